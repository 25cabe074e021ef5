"""A close that fails as Linux's does: the descriptor is gone all the same, and its number is somebody else's at once."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def close_fails(other: Path) -> Iterator[list[int]]:
    """Every `os.close` meanwhile; the numbers that were closed. Each of them is of this other file from then on, which nobody but
    its owner may write to or close."""
    closed: list[int] = []
    owner = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def fails(fd: int) -> None:
        assert fd not in closed, "somebody else's descriptor is closed"
        closed.append(fd)
        os.dup2(owner, fd, inheritable=False)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "close", fails)
        yield closed
    for fd in (*closed, owner):
        os.close(fd)
    assert other.read_bytes() == b""
