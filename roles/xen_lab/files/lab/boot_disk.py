"""A disk that a BIOS boots: GRUB in its first sectors, one partition with the system behind them.

Written directly, so that no loop device is needed. GRUB's own boot sector expects the rest of it (``core.img``) from sector 1 on,
whose first sector expects its continuation in sector 2: there it is put, so none of grub-install's patches are needed.
"""

import struct
from pathlib import Path

from lab.errors import LabError

SECTOR = 512
FIRST_SECTOR = 2048
"""Of the partition; what lies before it is GRUB's."""
LINUX = 0x83
ACTIVE = 0x80
BEYOND = b"\xfe\xff\xff"
"""Cylinder, head and sector of what has no such address."""
CODE = 440
"""Bytes of the boot sector before the disk's signature."""


def boot_sector(boot: bytes, signature: int, sectors: int) -> bytes:
    """The first sector of a disk of SECTORS: GRUB's BOOT, and a table with one partition up to the end. SIGNATURE names the
    disk."""
    if len(boot) != SECTOR or boot[-2:] != b"\x55\xaa":
        raise LabError("GRUB's boot.img is not a boot sector")
    entry = struct.pack("<B3sB3sII", ACTIVE, BEYOND, LINUX, BEYOND, FIRST_SECTOR, sectors - FIRST_SECTOR)
    return boot[:CODE] + struct.pack("<IH", signature, 0) + entry + bytes(48) + b"\x55\xaa"


def head(boot: bytes, core: bytes, signature: int, sectors: int) -> bytes:
    """Everything before the partition."""
    if len(core) > (FIRST_SECTOR - 1) * SECTOR:
        raise LabError(f"GRUB's core.img has {len(core)} bytes, which do not fit before the partition")
    return boot_sector(boot, signature, sectors) + core


def create(disk: Path, mib: int) -> None:
    """An empty sparse DISK of MIB."""
    with disk.open("wb") as file:
        file.truncate(mib << 20)


def install_grub(disk: Path, grub: Path, signature: int) -> None:
    """Write what boots the partition of DISK: boot.img and core.img of the folder GRUB."""
    sectors = disk.stat().st_size // SECTOR
    data = head((grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes(), signature, sectors)
    with disk.open("r+b") as file:
        file.write(data)
