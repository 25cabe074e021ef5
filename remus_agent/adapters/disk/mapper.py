"""Device-mapper devices: tables by name, changed live (`dmsetup`, package of the same name).

Tables are those of the kernel's Documentation/admin-guide/device-mapper/{linear,dm-raid}.rst; offsets and sizes in them
are in sectors of 512 bytes, whatever the device's own sector size."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from remus_agent.adapters.disk.command import run

DIRECTORY: Final = Path("/dev/mapper")
SECTOR: Final = 512


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


async def status(name: str) -> list[str]:
    """Words of its live status behind the name of its target."""
    return (await run("dmsetup", "status", name)).split()[3:]


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
    await cycle(name, flush=flush)


async def cycle(name: str, *, flush: bool = True) -> None:
    """Suspend and resume: takes a loaded table live, or lets dm-raid take back legs that had failed."""
    options = ("--nolockfs",) if flush else ("--nolockfs", "--noflush")
    try:
        await run("dmsetup", "suspend", *options, name)
    finally:
        await run("dmsetup", "resume", name)  # whatever happened: a guest must not wait for ever


async def remove(name: str) -> None:
    """Take a device away that nobody uses. Nothing happens when there is none."""
    if await exists(name):
        await run("dmsetup", "remove", "--retry", name)
