"""A new file that takes its name when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

_NO_SUCH_FILES: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""How file systems say that they have none without a name."""


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """One that its owner alone can read. It takes its name when the block ends, durably, and never somebody else's.

    Until then it has none, so the kernel clears it away whatever becomes of this process, SIGKILL included. Where the file system
    knows no files without a name (FAT, NFS) it has its name from the beginning, and an error removes it.

    Raises OSError; FileExistsError where the name is taken."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    fd = _without_name(path.parent)
    named = fd is None
    if fd is None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
            if not named:
                _name(fd, path)
    except BaseException:
        if named:
            path.unlink(missing_ok=True)
        raise


def _without_name(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _NO_SUCH_FILES:
            return None
        raise


def _name(fd: int, path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a folder's descriptor Python asks the kernel to follow the link below /proc; without, it links that itself.
        os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        os.fsync(folder)
    finally:
        os.close(folder)
