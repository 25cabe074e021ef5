"""Size, sector size and number of a block device."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Final

from remus_agent.errors import DiskError

_BLKSSZGET: Final = 0x1268
_BLKGETSIZE64: Final = 0x80081272


def geometry(device: Path, domain: str) -> tuple[int, int]:
    """Bytes of the device, and of one of its logical sectors (linux/fs.h). Raises DiskError."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return measure(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise DiskError(
            f"{device}: {error.strerror}",
            operation="look at a disk",
            domain=domain,
            left="nothing was changed",
            hint="it must be a block device of this host; see /etc/remus/disks.toml",
        ) from error


def measure(fd: int) -> tuple[int, int]:
    """The same of a device that is open. Raises OSError."""
    (size,) = struct.unpack("=Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    (block,) = struct.unpack("=I", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
    return size, block


def number_of(device: Path) -> str | None:
    """`major:minor` of a device, as device-mapper's tables have it; None when it is none."""
    try:
        found = device.stat()
    except OSError:
        return None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else None
