"""Device-mapper devices: tables by name, changed live (`dmsetup`, package of the same name).

Tables are those of the kernel's Documentation/admin-guide/device-mapper/{linear,dm-raid}.rst; offsets and sizes in them
are in sectors of 512 bytes, whatever the device's own sector size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remus_agent.adapters.disk.command import run
from remus_agent.errors import DiskError

DIRECTORY: Final = Path("/dev/mapper")
SECTOR: Final = 512
_RAID_WORDS: Final = 6


@dataclass(frozen=True, slots=True)
class RaidStatus:
    """legs: one letter for each: A in use, a being brought up to date, D failed. action: what md does: idle, recover, frozen, or
    another of its words. done, total: bytes, of what it does; while it is idle they say nothing."""

    legs: str
    action: str
    done: int
    total: int


def path_of(name: str) -> Path:
    """Where the device with this name appears."""
    return DIRECTORY / name


def linear(size: int, device: Path, offset: int = 0) -> str:
    """A table that leads to a run of a device. size, offset: bytes."""
    return f"0 {size // SECTOR} linear {device} {offset // SECTOR}"


def nowhere(size: int) -> str:
    """A table whose every read and write fails."""
    return f"0 {size // SECTOR} error"


def raid(size: int, *, local: tuple[Path, Path], tap: tuple[Path, Path], region: int) -> str:
    """A raid1 of two legs, each (metadata device, data device), that count as equal from the start (`nosync`): what differs
    is the tap's business. Reads go to the first leg. region: bytes for each bit of md's own bitmap."""
    legs = " ".join(str(part) for leg in (local, tap) for part in leg)
    return f"0 {size // SECTOR} raid raid1 6 0 nosync region_size {region // SECTOR} write_mostly 1 2 {legs}"


async def exists(name: str) -> bool:
    """Whether there is a device with this name."""
    return name in {line.split("\t")[0] for line in (await run("dmsetup", "ls")).splitlines()}


async def table(name: str) -> str:
    """Its live table; device numbers in it are `major:minor`."""
    return (await run("dmsetup", "table", name)).strip()


async def raid_status(name: str) -> RaidStatus:
    """Of a raid's live table. Raises DiskError when it is none (any more)."""
    words = (await run("dmsetup", "status", name)).split()[2:]
    if words[:1] != ["raid"] or len(words) < _RAID_WORDS:
        raise DiskError(
            f"{path_of(name)} is {words[0] if words else 'without a table'}, not a raid",
            operation="look at a disk",
            left="it was not changed",
            hint="`remus-disks status` shows what it is",
        )
    done, _, total = words[4].partition("/")
    return RaidStatus(words[3], words[5], int(done) * SECTOR, int(total) * SECTOR)


async def users(name: str) -> int:
    """How many have it open."""
    return int((await run("dmsetup", "info", "--columns", "--noheadings", "--options", "open", name)).strip())


async def create(name: str, content: str) -> None:
    """Make a device; its node is there when this returns."""
    await run("dmsetup", "create", name, "--table", content)


async def replace(name: str, content: str, *, flush: bool = True) -> None:
    """Give a device another table without its users noticing more than a short wait. flush=False: what is under way is held
    back and goes to the new table; for a device whose old table no longer answers."""
    await run("dmsetup", "load", name, "--table", content)
    # The kernel suspends, changes and resumes in one call: whoever dies before or after it leaves no device suspended.
    try:
        await run("dmsetup", "resume", "--nolockfs", *(() if flush else ("--noflush",)), name)
    except DiskError:
        # The kernel may have suspended it and then refused the new table: go on with the old one.
        await run("dmsetup", "clear", name)
        await run("dmsetup", "resume", name)
        raise


async def cycle(name: str) -> None:
    """Suspend and resume, with the table that it has: waits for what is under way, and lets dm-raid take back legs that had
    failed. An agent that dies in between leaves the device suspended; its unit then resumes it (remus-agent.service)."""
    await run("dmsetup", "clear", name)  # a table that somebody loaded and left must not become the live one
    try:
        await run("dmsetup", "suspend", "--nolockfs", name)
    finally:
        await run("dmsetup", "resume", name)  # whatever happened: a guest must not wait for ever


async def remove(name: str) -> None:
    """Take a device away that nobody uses. Nothing happens when there is none."""
    if await exists(name):
        await run("dmsetup", "remove", "--retry", name)
