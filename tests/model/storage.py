"""What a simulated host keeps durably: its journals, in the blocks of the real ones, and the notes of its agent.

A write takes no time unless a fault makes it. One in whose course the agent or the host dies has reached the disk, or has not, or
in part: what is left of it is decided then (`Disk.crash`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from remus_agent.adapters.journal.blocks import FILE_BYTES, RECORD, Entry, following, newest, pack
from remus_agent.adapters.sim.local import SimDisk, SimJournal, SimPauses
from remus_agent.store_ports import CommitRecord, GuestRecord, PauseNote
from tests.model.violated import Violated

JOURNAL: Final = "journal"
NOTES: Final = "notes"
"""What a write is of: a commit, or what an agent has to know after a restart."""
Lands = Callable[[float], None]
"""What becomes of a write of which this share has reached the disk: 0.0 nothing, 1.0 all of it."""


def as_a_whole(change: Callable[[], object]) -> Lands:
    """Of a file that is put in place, or taken away, as a whole: there is the old one or the new one."""

    def lands(share: float) -> None:
        if share == 1.0:
            change()

    return lands


class Disk(SimDisk):
    """Journals that tell of each commit, and records that tell of each guest that is about to run from a copy, or runs alone.

    takes: seconds that a write of this kind takes from now on. reached: the share of those under way that a crash finds on the
    disk."""

    def __init__(
        self,
        committed: Callable[[CommitRecord], None],
        starts: Callable[[str], None],
        alone: Callable[[], None],
    ) -> None:
        super().__init__()
        self.takes: Callable[[str], float] = lambda _: 0.0
        self.reached = 0.0
        self._committed = committed
        self._starts = starts
        self._alone = alone
        self._under_way: list[Lands] = []

    async def durably(self, kind: str, lands: Lands) -> None:
        """Returns when it is on the disk. The disk goes on with what it was given, also when nobody waits for it any more."""
        seconds = self.takes(kind)
        if not seconds:
            lands(1.0)
            return
        self._under_way.append(lands)
        try:
            await asyncio.sleep(seconds)
        finally:
            if lands in self._under_way:
                self._under_way.remove(lands)
                lands(1.0)

    def crash(self) -> None:
        """Whoever wrote is dead."""
        left, self._under_way = self._under_way, []
        for lands in left:
            lands(self.reached)

    async def save(self, record: GuestRecord) -> None:
        self.check("guest records")

        def change() -> None:
            before = self.guests.get(record.name)
            self.guests[record.name] = record
            if record.starting:
                self._starts(record.starting)
            if _alone(record) and not _alone(before):
                self._alone()

        await self.durably(NOTES, as_a_whole(change))

    async def remove(self, name: str) -> bool:
        known = name in self.guests
        if known:
            await self.durably(NOTES, as_a_whole(lambda: self.guests.pop(name, None)))
        return known

    async def open(self, domain: str) -> SimJournal:
        if domain not in self.journals:
            self.journals[domain] = Journal(self, self._committed)
        journal = await super().open(domain)
        assert isinstance(journal, Journal)
        journal.read()
        return journal


def _alone(record: GuestRecord | None) -> bool:
    """Whether a guest runs here alone, by its record: the agent that comes next opens its output."""
    return record is not None and record.role == "primary" and not record.committed


class Journal(SimJournal):
    """One that tells of each commit. What it remembers is what stands in its blocks."""

    def __init__(self, disk: Disk, committed: Callable[[CommitRecord], None]) -> None:
        super().__init__(disk)
        self._storage = disk
        self._committed = committed
        self._image = bytearray(FILE_BYTES)
        self._newest: Entry | None = None

    def read(self) -> None:
        """Another agent has opened it, and knows nothing but what stands there."""
        self._newest = newest(self._image)

    async def commit(self, record: CommitRecord) -> None:
        if not self.is_open:
            raise AssertionError("a commit to a journal that is closed")
        self._disk.check("journal")
        await asyncio.sleep(self._disk.delay())
        entry = following(self._newest, record)
        await self._storage.durably(JOURNAL, lambda share: self._lands(entry, share))
        self._newest = entry

    async def last(self) -> CommitRecord | None:
        return self._newest.record if self._newest else None

    def _lands(self, entry: Entry, share: float) -> None:
        block = pack(entry)
        if share < 1.0:
            self._torn(entry, block[: int(share * RECORD.size)])
            return
        self._image[entry.offset : entry.offset + len(block)] = block
        self._committed(entry.record)

    def _torn(self, entry: Entry, reached: bytes) -> None:
        before = newest(self._image)
        self._image[entry.offset : entry.offset + len(reached)] = reached
        found = newest(self._image)
        if found == entry:
            self._committed(entry.record)
        elif found != before:
            raise Violated(f"G6: a torn write has left {found} in the journal, where {before} was the newest")


class Pauses(SimPauses):
    """Notes of pauses on the same disk."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._storage = disk

    async def save(self, note: PauseNote) -> None:
        self._disk.check("pauses")
        await self._storage.durably(NOTES, as_a_whole(lambda: self.notes.__setitem__(note.name, note)))

    async def remove(self, name: str) -> bool:
        known = name in self.notes
        if known:
            await self._storage.durably(NOTES, as_a_whole(lambda: self.notes.pop(name, None)))
        return known
