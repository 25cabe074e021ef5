"""Durable changes in a directory, and the errors they can end with."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from remus_agent.errors import JournalError

_CHUNK: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,126}")

_HINTS: Final = {
    errno.ENOSPC: "free space on the file system of {directory}",
    errno.EDQUOT: "free space or raise the quota of {directory}",
    errno.EIO: "the device under {directory} fails; look at the kernel's log and replace it",
    errno.EROFS: "the file system of {directory} is read-only; look at the kernel's log",
    errno.EACCES: "the agent must run as root",
    errno.EPERM: "the agent must run as root",
}


def check_name(domain: str) -> str:
    """The name of a domain, when it may be used as a file name. Raises JournalError."""
    if _NAME.fullmatch(domain) is None:
        raise JournalError(f"{domain!r} cannot be used as a file name", operation="journal")
    return domain


def failure(error: OSError, doing: str, path: Path, domain: str, left: str | None = None) -> JournalError:
    """The error for a failed call, with what to do about it."""
    hint = _HINTS.get(error.errno or 0)
    return JournalError(
        f"cannot {doing} {path}: {os.strerror(error.errno) if error.errno else error}",
        operation="journal",
        domain=domain,
        left=left,
        hint=hint.format(directory=path.parent) if hint else None,
    )


def make(directory: Path) -> None:
    """Create the directory, for root only, when it does not exist. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def files(directory: Path, suffix: str) -> list[Path]:
    """Those of a suffix, sorted, hidden ones left out; none where there is no such directory. Raises JournalError."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == suffix and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failure(error, "read", directory, "*") from error


def check_writable(directory: Path) -> None:
    """Write a file there, make it durable, and remove it. Raises JournalError."""
    path = directory / ".selftest"
    try:
        make(directory)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_file(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            path.unlink()
    except OSError as error:
        raise failure(error, "write", path, "*", "nothing was changed") from error


def sync(directory: Path) -> None:
    """Make created, renamed and removed names durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(fd: int, data: bytes) -> None:
    """Write all of it and make it durable. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)


def replace_file(path: Path, data: bytes, reserve: bool = False) -> None:
    """Put a file in place as a whole: after a crash there is the old one or the new one. Raises OSError.

    reserve: allocate the space before anything is written.
    """

    def write(fd: int) -> None:
        if reserve:
            os.posix_fallocate(fd, 0, len(data))
        write_file(fd, data)

    _put(path, write)


def make_zeroes(path: Path, size: int) -> None:
    """Put a file of zeroes in place as a whole, with all its space written once: later writes change no metadata. Raises
    OSError."""
    zeroes = memoryview(bytes(_CHUNK))

    def write(fd: int) -> None:
        os.posix_fallocate(fd, 0, size)
        at = 0
        while at < size:
            at += os.pwrite(fd, zeroes[: size - at], at)
        os.fsync(fd)

    _put(path, write)


def _put(path: Path, write: Callable[[int], None]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            write(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
