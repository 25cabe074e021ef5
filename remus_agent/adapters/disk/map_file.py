"""The region map of one disk in a file that is mapped into memory, so that it outlives the process."""

from __future__ import annotations

import logging
import mmap
import os
import uuid
from pathlib import Path

from remus_agent.errors import DiskError
from remus_agent.protocol.disk.regions import RegionMap, map_bytes

log = logging.getLogger(__name__)


def open_map(path: Path, size: int, *, keep: bool) -> RegionMap:
    """The map of a disk of so many bytes. keep: use the one that is there if it is sound, because every write since it was
    written was tracked; otherwise a new one with an identity of its own, in which everything may differ. Raises DiskError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            was = os.fstat(fd).st_size
            os.ftruncate(fd, map_bytes(size))
            os.posix_fallocate(fd, 0, map_bytes(size))  # a full /run is an error here, and would be SIGBUS at a write
            memory = memoryview(mmap.mmap(fd, map_bytes(size)))
        finally:
            os.close(fd)
    except OSError as error:
        raise DiskError(
            f"the region map {path} cannot be made: {error.strerror}",
            operation="protect a disk",
            hint=f"free memory and space under {path.parent}",
        ) from error
    if keep and was == map_bytes(size):
        try:
            return RegionMap.open(memory, size)
        except DiskError as error:
            log.warning("%s is not usable, everything will be compared: %s", path, error)
    made = RegionMap.create(memory, str(uuid.uuid4()), size)
    made.mark_all()
    return made


def remove_map(path: Path) -> None:
    """Forget a map."""
    path.unlink(missing_ok=True)
