"""The mapper devices of a host's disks as they are and as they should be, without an agent: what `remus-disks` does.

A device that a running agent has made a raid is never touched here, nor one in use whose users would see another content."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from remus_agent.adapters.disk import mapper, marker
from remus_agent.adapters.disk.command import run
from remus_agent.adapters.disk.geometry import geometry, number_of
from remus_agent.disk_config import METADATA_BYTES, MIN_JOURNAL_BYTES, Disk
from remus_agent.errors import DiskError, RefusedError

MIN_BYTES: Final = 1024 * 1024
"""Of a disk: what is smaller has no room for a partition."""
_OURS: Final = re.compile(r"remus-.+-(xvd|hd|sd)[a-z]{1,2}[0-9]{0,3}")
_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Seen:
    """One disk and its mapper device. size: bytes of the local device. backup: this host holds a backup's copy. target: kind of
    the mapper device, None when there is none. mapped: its bytes. leads_to: `major:minor` behind a linear one. legs: of a raid,
    one letter each (A in use, a being brought up to date, D failed)."""

    disk: Disk
    size: int
    backup: bool
    target: str | None
    mapped: int = 0
    leads_to: str | None = None
    users: int = 0
    legs: str | None = None

    @property
    def wanted(self) -> str:
        """Kind of the mapper device while no agent protects the disk."""
        return "error" if self.backup else "linear"

    @property
    def same_content(self) -> bool:
        """Whether the mapper device leads where it should."""
        if self.target == "raid":
            return not self.backup
        return self.target == self.wanted and (self.backup or self.leads_to == number_of(self.disk.device))

    @property
    def right(self) -> bool:
        """Whether there is nothing to do."""
        return self.same_content and (self.target == "raid" or self.mapped == self.size)


@dataclass(frozen=True, slots=True)
class Done:
    """What `bring_up` did (or would do) with a disk. action: made, changed, none. note: what a person should know."""

    seen: Seen
    action: str
    note: str = ""


async def look(disk: Disk, state: Path) -> Seen:
    """A disk and its mapper device now. Raises DiskError when the local device is not usable."""
    size, _ = await asyncio.to_thread(geometry, disk.device, disk.domain)
    backup = marker.is_backup(state, disk)
    if not await mapper.exists(disk.name):
        return Seen(disk, size, backup, None)
    words = (await mapper.table(disk.name)).split()
    target = words[2] if len(words) > 2 else "empty"
    return Seen(
        disk,
        size,
        backup,
        target,
        mapped=int(words[1]) * mapper.SECTOR if len(words) > 2 else 0,
        leads_to=words[3] if target == "linear" else None,
        users=await mapper.users(disk.name),
        legs=(await mapper.raid_status(disk.name)).legs if target == "raid" else None,
    )


async def appear(devices: Sequence[Path], seconds: float) -> None:
    """Wait until all are there, as devices of volume groups come late in a boot; return in any case after so many seconds."""
    clock = asyncio.get_running_loop()
    end = clock.time() + seconds
    while clock.time() < end and not all(device.exists() for device in devices):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_POLL)


async def bring_up(disk: Disk, state: Path, *, dry_run: bool = False) -> Done:
    """Make or correct the mapper device of a disk. Raises DiskError when it is wrong and must not be changed."""
    seen = await look(disk, state)
    if seen.target == "raid":
        if seen.backup:
            raise _in_use(
                seen, f"a running agent protects it, but {marker.path_of(state, disk)} says that it is a backup's copy"
            )
        return Done(seen, "none", "protected by the agent")
    if seen.right:
        return Done(seen, "none")
    if seen.users and seen.same_content:
        return Done(seen, "none", f"in use with {seen.mapped} bytes; gets {seen.size} when it is not in use")
    if seen.users:
        raise _in_use(seen, f"it is in use as {_kind(seen)}, and should be {_wanted(seen)}")
    action = "made" if seen.target is None else "changed"
    if not dry_run:
        await _apply(seen)
        seen = await look(disk, state)
    return Done(seen, action, f"{_kind(seen)}" if not dry_run else f"{_wanted(seen)}")


async def take_down(name: str) -> None:
    """Take a mapper device away. Raises RefusedError while it is used, DiskError."""
    if not await mapper.exists(name):
        raise RefusedError(f"there is no {mapper.path_of(name)}", operation="take a disk down")
    words = (await mapper.table(name)).split()
    protected = len(words) > 2 and words[2] == "raid"
    if protected or await mapper.users(name):
        raise RefusedError(
            f"{mapper.path_of(name)} is {'protected by the agent' if protected else 'in use'}",
            operation="take a disk down",
            left="it was not changed",
            hint="remusctl unprotect its guest, then shut that down" if protected else "shut its guest down first",
        )
    await mapper.remove(name)


async def strays(disks: Sequence[Disk]) -> list[str]:
    """Mapper devices with names of ours that no disk of the file has."""
    known = {disk.name for disk in disks}
    names = [line.split("\t")[0] for line in (await run("dmsetup", "ls")).splitlines()]
    return sorted(name for name in names if _OURS.fullmatch(name) and name not in known)


def problems(disks: Sequence[Disk]) -> list[str]:
    """Everything that is wrong with the devices of the file, which is read and not changed."""
    found: list[str] = []
    uses: dict[str, str] = {}
    for disk in disks:
        found += _sizes(disk)
        own = number_of(disk.mapper)
        for role in ("device", "metadata", "journal"):
            path: Path = getattr(disk, role)
            number = number_of(path)
            if path == disk.mapper or (number is not None and number == own):
                found.append(f"{role} of {disk.name} is {path}, its own mapper device; name what shall be behind it")
            elif number is not None and number in uses:
                found.append(f"{role} of {disk.name}, {path}, is the same device as {uses[number]}")
            elif number is not None:
                uses[number] = f"{role} of {disk.name}"
    return found


def _sizes(disk: Disk) -> list[str]:
    found = []
    try:
        size, block = geometry(disk.device, disk.domain)
        if size < MIN_BYTES:
            found.append(f"device of {disk.name}, {disk.device}, has {size} bytes; it needs at least {MIN_BYTES}")
        if size % block or size % mapper.SECTOR:
            found.append(
                f"device of {disk.name}, {disk.device}, has {size} bytes, which is not a multiple of its sectors"
            )
    except DiskError as error:
        found.append(f"device of {disk.name}: {error.message}; it must be a block device of this host")
    for role, path, least in (
        ("metadata", disk.metadata, METADATA_BYTES),
        ("journal", disk.journal, MIN_JOURNAL_BYTES),
    ):
        if path.is_block_device():
            try:
                size, _ = geometry(path, disk.domain)
            except DiskError as error:
                found.append(f"{role} of {disk.name}: {error.message}")
                continue
            if size < least:
                found.append(f"{role} of {disk.name}, {path}, has {size} bytes; it needs at least {least}")
        elif path.exists() and not path.is_file():
            found.append(f"{role} of {disk.name}, {path}, is neither a block device nor a file")
        elif not path.exists() and path.is_relative_to("/dev"):
            found.append(f"{role} of {disk.name}, {path}, does not exist")
    return found


async def _apply(seen: Seen) -> None:
    disk = seen.disk
    content = mapper.nowhere(seen.size) if seen.backup else mapper.linear(seen.size, disk.device)
    try:
        if seen.target is None:
            await mapper.create(disk.name, content)
        else:
            await mapper.replace(disk.name, content)
    except DiskError as error:
        raise DiskError(
            error.message,
            operation="make a mapper device",
            domain=disk.domain,
            left=f"{disk.mapper} is as it was",
            hint=error.hint or f"`lsblk {disk.device}` and `dmesg` show who uses the device",
        ) from error


def _kind(seen: Seen) -> str:
    return {"linear": f"linear to {seen.leads_to}", "error": "leading nowhere"}.get(seen.target or "", str(seen.target))


def _wanted(seen: Seen) -> str:
    number = number_of(seen.disk.device)
    return _kind(replace(seen, target=seen.wanted, leads_to=f"{number} ({seen.disk.device})"))


def _in_use(seen: Seen, why: str) -> DiskError:
    return DiskError(
        f"{seen.disk.mapper}: {why}",
        operation="make a mapper device",
        domain=seen.disk.domain,
        left="it was not changed",
        hint=f"compare /etc/remus/disks.toml and remusctl status {seen.disk.domain}; what uses it must end before it changes",
    )
