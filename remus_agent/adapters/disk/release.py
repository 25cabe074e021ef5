"""Taking a backup's copy of a disk into use without an activation, because an operator wants so: what `remus-disks release`
does on a host whose agent does not have it open."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from pathlib import Path

from remus_agent.adapters.disk import host
from remus_agent.adapters.disk.block_file import open_block_file
from remus_agent.adapters.disk.geometry import geometry
from remus_agent.adapters.disk.layers import DiskMapping
from remus_agent.adapters.disk.replicas import FileReplicas, held_only_by
from remus_agent.adapters.disk.slots import BLOCK_BYTES
from remus_agent.adapters.journal.file import FileJournals
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError, RefusedError
from remus_agent.store_ports import CommitRecord


@dataclass(frozen=True, slots=True)
class Releasable:
    """A copy that can be released. committed: the last commit of its domain on this host, None when there is none."""

    disk: Disk
    facts: DiskFacts
    committed: CommitRecord | None


async def find(disk: Disk, state: Path, group: str | None = None) -> Releasable | None:
    """The copy of a disk that this host holds and nobody uses; None when the disk is this host's own. Changes nothing. group:
    that its guest is a member of, and is committed with. Raises RefusedError, DiskError, JournalError."""
    seen = await host.look(disk, state)
    if not seen.backup and seen.target != "error":
        return None
    if seen.target == "raid" or seen.users:
        raise _refused(disk, "a guest or a program on this host has it open", f"`fuser -v {disk.mapper}` shows who")
    await asyncio.to_thread(_require_unheld, disk)
    size, block = await asyncio.to_thread(geometry, disk.device, disk.domain)
    return Releasable(disk, DiskFacts(disk.vdev, seen.mapped or size, block), await _committed(disk, state, group))


async def release(copy: Releasable, state: Path) -> str | None:
    """Apply what was committed, forget that the disk is a copy, and lead its mapper device to it. Returns why the content is
    not whole, None when it is. Raises DiskError, JournalError; calling it again finishes what was begun."""
    disk = copy.disk
    replica = await FileReplicas([disk], DiskMapping([disk], state)).open(disk.domain, copy.facts, copy.committed)
    try:
        problem = replica.problem
        await replica.give_up()
    finally:
        await replica.close()
    return problem


def _require_unheld(disk: Disk) -> None:
    """Raises RefusedError when an agent has the copy open."""
    for path, exclusive in (
        (disk.journal, True),
        (disk.device, not held_only_by(disk.device, disk.name)),
    ):
        try:
            open_block_file(path, sector=BLOCK_BYTES, exclusive=exclusive).close()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EAGAIN):
                raise _refused(
                    disk,
                    f"{path} is open: the agent holds this copy",
                    f"`remusctl status {disk.domain}` shows its session; if it is really not needed, destroy the copy with "
                    f"`remusctl unprotect {disk.domain} --force`, and repeat",
                ) from error
            raise DiskError(
                f"{path} cannot be opened: {error.strerror}",
                operation="release a disk",
                domain=disk.domain,
                left="nothing was changed",
            ) from error


async def _committed(disk: Disk, state: Path, group: str | None) -> CommitRecord | None:
    """Of its group; of the guest alone where the group has committed nothing here."""
    folder = state / "journal"
    for unit in filter(None, (group, disk.domain)):
        if await asyncio.to_thread((folder / unit).exists):
            break
    else:
        return None
    journal = await FileJournals(folder).open(unit)
    try:
        return await journal.last()
    finally:
        await journal.close()


def _refused(disk: Disk, why: str, hint: str) -> RefusedError:
    return RefusedError(
        f"{disk.mapper}: {why}", operation="release a disk", domain=disk.domain, left="nothing was changed", hint=hint
    )
