"""The clock of a host against this machine's, so that what both have written down can be put in one row."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO

from pair.hosts import CommandFailed, over_ssh

ASKED = 20
"""Times; the quickest answer counts."""
PATIENCE = 180.0
"""Seconds for all of them."""
SAYS = "import sys, time\nfor _ in sys.stdin: print(time.time(), flush=True)"
"""Runs on the host."""


@dataclass(frozen=True, slots=True)
class Difference:
    """ahead: what the host's time of day is more than this machine's CLOCK_MONOTONIC. doubt: by how much that may be wrong. In
    seconds."""

    ahead: float
    doubt: float


def _ask(stdin: IO[bytes], stdout: IO[bytes]) -> Difference:
    before = time.monotonic()
    stdin.write(b"\n")
    there = float(stdout.readline())  # a connection that has ended says nothing, which is no number
    after = time.monotonic()
    return Difference(there - (before + after) / 2, (after - before) / 2)


def difference(host: str) -> Difference:
    """How far apart the clocks are now. Raises CommandFailed when the host does not say."""
    words, pipe = over_ssh(host, f"exec python3 -c '{SAYS}'"), subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        patience = threading.Timer(PATIENCE, process.kill)
        patience.start()
        try:
            return min((_ask(process.stdin, process.stdout) for _ in range(ASKED)), key=lambda found: found.doubt)
        except (ValueError, BrokenPipeError) as error:
            raise CommandFailed(f"{host} does not say what time it is: {error}") from error
        finally:
            patience.cancel()
            process.kill()
