"""Real NBD clients: nbdinfo and nbdsh of libnbd, qemu-io and qemu-img. `make setup` installs them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

LEFT_OUT = "REMUS_WITHOUT_NBD_TOOLS"
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""nbdsh runs `python3`, which has to be Debian's and not the virtual environment's: only that one has libnbd's module."""
SECONDS = 60


def find(tool: str) -> str:
    """The command. Without it the test fails, for a comparison that nobody notices to be missing shows nothing; with
    REMUS_WITHOUT_NBD_TOOLS=1 it is skipped."""
    found = shutil.which(tool, path=SYSTEM_PATH)
    if found is not None:
        return found
    if os.environ.get(LEFT_OUT) == "1":
        pytest.skip(f"{tool} is left out by {LEFT_OUT}=1")
    pytest.fail(
        f"{tool} is not installed; `make setup` does that, {LEFT_OUT}=1 leaves out what needs it", pytrace=False
    )


def run(tool: str, *arguments: str, code: int = 0) -> str:
    """What a tool prints to both of its outputs. code: the exit code it has to end with."""
    done = subprocess.run(
        [find(tool), *arguments],
        env={**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, f"{tool} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
