"""Loop devices for tests, where root may have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def loop_device(backing: Path, size: int, sector: int = 512) -> Iterator[Path]:
    """A loop device over a new file; the test is skipped where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    if shutil.which("losetup") is None or not Path("/dev/loop-control").exists():
        pytest.skip("this kernel or system has no loop devices")
    with backing.open("wb") as file:
        file.truncate(size)
    command = ["losetup", "--find", "--show", "--sector-size", str(sector), str(backing)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)
