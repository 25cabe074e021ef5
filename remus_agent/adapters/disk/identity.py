"""Which device it is that a path leads to: what tells it from another one of the same size that was put in its place.

A name in /dev says nothing of that, and the device itself has no room for a mark: all of its bytes are the guest's. So it is what
sysfs says of the device and of everything below it: the UUID of a volume or an array, where a partition lies, what a disk says of
itself. All of it, because the name of a volume, its UUID included, can be restored onto an empty disk.

A disk that says nothing of itself is known by its number in this boot, which no later one gets, and in the next boot not at all.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from xxhash import xxh3_128_digest

_SYSFS: Final = Path("/sys")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SAID: Final = ("wwid", "device/wwid", "serial", "device/cid")
"""What a disk says of itself: NVMe, SCSI and SATA, virtio, MMC."""
_MULTIPATH: Final = "mpath-"
"""Begins a UUID that is made of what the disk says of itself; the paths to it come and go."""


@dataclass(frozen=True, slots=True)
class Identity:
    """digest: 16 bytes over all that is known. boot: the only one in which that holds (a UUID); None when it holds for good."""

    digest: bytes
    boot: str | None = None


class Match(Enum):
    """Whether a device is the one that was there before."""

    SAME = auto()
    OTHER = auto()
    UNKNOWN = auto()
    """Both are known in a boot of their own only, or the one before was not noted."""


def compare(before: Identity | None, now: Identity) -> Match:
    """The device that is there now against the one that was there before, if that is known."""
    if before is None:
        return Match.UNKNOWN
    if before.digest == now.digest:
        return Match.SAME
    return Match.UNKNOWN if before.boot and now.boot and before.boot != now.boot else Match.OTHER


def identify(fd: int) -> Identity:
    """Of an open block device, or of a regular file. Raises OSError."""
    info = os.fstat(fd)
    if stat.S_ISBLK(info.st_mode):
        return of_device(f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}")
    return Identity(xxh3_128_digest(f"file {info.st_dev} {info.st_ino}".encode()))


def of_device(number: str, *, sysfs: Path = _SYSFS, boot_id: Path = _BOOT_ID) -> Identity:
    """Of the block device with this `major:minor`. Raises OSError."""
    parts = list(_parts((sysfs / "dev" / "block" / number).resolve(strict=True)))
    boot = None if all(lasting for _, lasting in parts) else str(uuid.UUID(boot_id.read_text().strip()))
    words = [*sorted(word for word, _ in parts), boot or ""]
    return Identity(xxh3_128_digest("\n".join(words).encode()), boot)


def _parts(device: Path) -> Iterator[tuple[str, bool]]:
    """What is known of a device and of all below it, each with whether it holds beyond this boot."""
    if (device / "partition").exists():
        yield f"partition {_read(device / 'start')} {_read(device / 'size')}", True
        yield from _parts(device.parent)
        return
    below = sorted((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    said = [_read(device / kind / "uuid") for kind in ("dm", "md") if (device / kind).is_dir()]
    said = said or [_read(device / name) for name in _SAID]
    known = next((word for word in said if word), None)
    if known is not None:
        yield known, True
    else:
        yield f"number {_read(device / 'diskseq')} of {_read(device / 'dev')}", False
    if known is None or not known.startswith(_MULTIPATH):
        for part in below:
            yield from _parts(part.resolve(strict=True))


def _read(path: Path) -> str:
    """An attribute; empty when there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
