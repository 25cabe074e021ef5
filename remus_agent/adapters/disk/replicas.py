"""`disk_ports.Replicas`: the disks that this host can be a backup for, one device and one journal each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from remus_agent.adapters.disk.block_file import BlockFile, Opener, open_block_file
from remus_agent.adapters.disk.copy import DiskCopy
from remus_agent.adapters.disk.failures import Place, Role
from remus_agent.adapters.disk.replica import FileReplica, Mapping
from remus_agent.adapters.disk.slots import BLOCK_BYTES, SMALLEST_BYTES, DiskJournal
from remus_agent.adapters.journal import directory
from remus_agent.adapters.ledger import Entry, Ledger
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError, JournalError
from remus_agent.store_ports import CommitRecord

OPENED_AT_ONCE: Final = 8
"""Copies of one host that are opened at the same time: each runs some tools, and may write an epoch."""
LOOK_SECONDS: Final = 20.0
"""For the devices and journals of one guest to be looked at, before a primary is told that they do not answer."""
_SYSFS: Final = Path("/sys/class/block")


class FileReplicas:
    """`disk_ports.Replicas` from the host's configuration. ledger: notes what is there for which guest."""

    def __init__(
        self,
        disks: Iterable[Disk],
        mapping: Mapping,
        opener: Opener = open_block_file,
        ledger: Ledger | None = None,
    ) -> None:
        self._disks = {(disk.domain, disk.vdev): disk for disk in disks}
        self._mapping = mapping
        self._opener = opener
        self._ledger = ledger or Ledger()
        self._open: dict[tuple[str, str], FileReplica] = {}
        self._turns = asyncio.Semaphore(OPENED_AT_ONCE)
        self._looking: dict[str, asyncio.Future[list[str]]] = {}
        """Of each guest whose disks are being looked at."""

    async def examine(self, domain: str, disks: Sequence[DiskFacts]) -> list[str]:
        """Every reason against holding copies of these disks, each with what to do; that they do not answer is one. Changes
        nothing."""
        looking = self._looking.get(domain)
        if looking is not None:
            await asyncio.wait({looking}, timeout=LOOK_SECONDS)
        if looking is None or looking.done():
            # A thread of its own, and one for each guest at most: one that a device holds for ever must keep no other guest from
            # the threads that all of them share, however often its primary asks.
            executor = ThreadPoolExecutor(1, thread_name_prefix=f"look {domain}")
            looking = self._looking[domain] = asyncio.wrap_future(executor.submit(self._examine, domain, disks))
            executor.shutdown(wait=False)
            await asyncio.wait({looking}, timeout=LOOK_SECONDS)
        if not looking.done():
            return [str(self._mute(domain, disks))]
        if self._looking.get(domain) is looking:
            del self._looking[domain]
        return looking.result()

    async def open(self, domain: str, disk: DiskFacts, committed: CommitRecord | None) -> FileReplica:
        """Open one exclusively and bring it to the committed epoch. Raises DiskError, JournalError; then it is closed."""
        config = self._disks.get((domain, disk.vdev))
        if config is None:
            raise _unknown(domain, disk)
        place = Place(domain, disk.vdev, config.device, Role.DEVICE)
        entry = self._ledger.open(domain, "disks")
        async with self._turns:
            try:
                copy = await self._recovered(config, place, disk, committed, entry)
            except BaseException:
                entry.close()
                raise
        replica = FileReplica(copy, place, self._mapping, entry)
        self._open[domain, disk.vdev] = replica
        return replica

    async def _recovered(
        self, config: Disk, place: Place, disk: DiskFacts, committed: CommitRecord | None, entry: Entry
    ) -> DiskCopy:
        await self._mapping.nowhere(place.domain, disk.vdev, disk.size)
        executor = ThreadPoolExecutor(
            1, thread_name_prefix=f"disk {place.domain} {disk.vdev}", initializer=entry.thread
        )
        opening = executor.submit(self._open_copy, config, place, disk, committed)
        executor.submit(entry.look)
        try:
            return await asyncio.shield(asyncio.wrap_future(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        finally:
            executor.shutdown(wait=False)

    def _open_copy(self, config: Disk, place: Place, disk: DiskFacts, committed: CommitRecord | None) -> DiskCopy:
        device = self._open_device(place, disk)
        try:
            journal = self._open_journal(config, disk)
        except BaseException:
            device.close()
            raise
        copy = DiskCopy(disk, device, journal, place)
        try:
            copy.recover(committed)
        except BaseException:
            copy.close()
            raise
        return copy

    def _open_device(self, place: Place, disk: DiskFacts, *, exclusive: bool = True) -> BlockFile:
        with place.doing("opened", left="nothing was changed"):
            device = self._opener(place.path, sector=disk.block, exclusive=exclusive)
        if device.size < disk.size or device.sector != disk.block:
            device.close()
            raise place.error(
                f"has {device.size} bytes in sectors of {device.sector}; the primary's disk has {disk.size} in sectors of"
                f" {disk.block}",
                left="nothing was changed",
                hint="give it a device that is at least as large and has sectors of the same size",
            )
        return device

    def _open_journal(self, config: Disk, disk: DiskFacts) -> DiskJournal:
        place = Place(config.domain, config.vdev, config.journal, Role.JOURNAL)
        _check_bytes(place, config.journal_bytes)
        try:
            file = self._open_file(place)
        except FileNotFoundError:
            with place.doing("made", left="nothing is journalled"):
                directory.make(config.journal.parent)
                directory.make_zeroes(config.journal, config.journal_bytes)
            file = self._open_file(place)
        try:
            return DiskJournal(file, place, disk, config.journal_bytes)
        except BaseException:
            file.close()
            raise

    def _open_file(self, place: Place, *, exclusive: bool = True) -> BlockFile:
        """Raises FileNotFoundError when there is none."""
        with place.doing("opened", left="nothing was changed"):
            try:
                return self._opener(place.path, sector=BLOCK_BYTES, exclusive=exclusive)
            except FileNotFoundError as error:
                missing = error
        raise missing

    def _examine(self, domain: str, disks: Sequence[DiskFacts]) -> list[str]:
        found: list[str] = []
        for disk in disks:
            config = self._disks.get((domain, disk.vdev))
            if config is None:
                found.append(str(_unknown(domain, disk)))
                continue
            mine = self._open.get((domain, disk.vdev))
            exclusive = mine is None or mine.closed
            try:
                self._examine_device(Place(domain, disk.vdev, config.device, Role.DEVICE), config.name, disk, exclusive)
            except (DiskError, JournalError) as error:
                found.append(str(error))
            try:
                self._examine_journal(config, disk, exclusive)
            except (DiskError, JournalError) as error:
                found.append(str(error))
        return found

    def _mute(self, domain: str, disks: Sequence[DiskFacts]) -> DiskError:
        known = [self._disks[domain, disk.vdev] for disk in disks if (domain, disk.vdev) in self._disks]
        paths = ", ".join(str(path) for disk in known for path in (disk.device, disk.journal))
        return DiskError(
            f"one of {paths} has not answered within {LOOK_SECONDS:g} s",
            operation="look at the disks",
            domain=domain,
            left="nothing was changed",
            hint="the kernel's log (dmesg) on this host names a device that does not answer; it is tried again by itself",
        )

    def _examine_device(self, place: Place, name: str, disk: DiskFacts, exclusive: bool) -> None:
        """The disk's own mapper device may hold it: it is led nowhere before the device is opened."""
        exclusive = exclusive and not held_only_by(place.path, name)
        self._open_device(place, disk, exclusive=exclusive).close()

    def _examine_journal(self, config: Disk, disk: DiskFacts, exclusive: bool) -> None:
        place = Place(config.domain, config.vdev, config.journal, Role.JOURNAL)
        _check_bytes(place, config.journal_bytes)
        try:
            file = self._open_file(place, exclusive=exclusive)
        except FileNotFoundError:
            _expect_space(place, config.journal_bytes)
            return
        try:
            DiskJournal(file, place, disk, config.journal_bytes)
        finally:
            file.close()


def _close_unwanted(opening: Future[DiskCopy]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def held_only_by(device: Path, mapper: str, sysfs: Path = _SYSFS) -> bool:
    """Whether the mapper device of that name, and no other, is built on this device. It may be more than that in use."""
    try:
        holders = list((sysfs / device.resolve().name / "holders").iterdir())
        return [(holder / "dm" / "name").read_text().strip() for holder in holders] == [mapper]
    except OSError:
        return False


def _unknown(domain: str, disk: DiskFacts) -> DiskError:
    return DiskError(
        f"{disk.vdev}: this host has no device for it",
        operation="hold a copy of a disk",
        domain=domain,
        left="nothing was changed",
        hint="name a device for the disk in this host's configuration, as on the primary",
    )


def _check_bytes(place: Place, journal_bytes: int) -> None:
    if journal_bytes < SMALLEST_BYTES or journal_bytes % BLOCK_BYTES:
        raise place.error(
            f"is too small: {journal_bytes} bytes; at least {SMALLEST_BYTES} and whole blocks of {BLOCK_BYTES} are needed",
            left="nothing was changed",
            hint="configure a larger journal, about twice the largest epoch",
        )


def _expect_space(place: Place, needed: int) -> None:
    """Raise JournalError when the file could not be made."""
    parent = place.path.parent
    while not parent.exists():
        parent = parent.parent
    with place.doing("made"):
        info = os.statvfs(parent)
    free = info.f_bavail * info.f_frsize
    if free < needed:
        raise place.error(
            f"cannot be made: it needs {needed} bytes and {parent} has {free} free",
            left="nothing was changed",
            hint=f"free space on the file system of {parent}, or configure a smaller journal",
        )
