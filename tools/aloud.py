"""A command whose output goes to the terminal as it comes, and is kept to look for the cause of a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread

KEPT = 1 << 20
"""Bytes of output that are kept, the last ones."""
LINGER = 10.0
"""Seconds to wait for what is still to come once a command has ended: what it left running may hold the pipe for ever."""


def run_aloud(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> tuple[int | None, list[str]]:
    """Its exit code, None when it had not ended after so many seconds and was killed, and the lines that it wrote."""
    kept = bytearray()
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
        )
    finally:
        os.close(writing)
    # A daemon: a process that holds the pipe for ever must not keep this one from ending.
    reader = Thread(target=_pass_on, args=(reading, kept), daemon=True)
    reader.start()
    try:
        code: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    reader.join(LINGER)
    return code, kept.decode(errors="replace").splitlines()


def _pass_on(pipe: int, kept: bytearray) -> None:
    with open(pipe, "rb", buffering=0) as source:
        while piece := source.read(1 << 16):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            kept += piece
            del kept[:-KEPT]
