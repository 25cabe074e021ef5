"""What a crash leaves of a write that is under way, in the storage of the simulated world."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from remus_agent.adapters.journal.blocks import BLOCKS, RECORD
from remus_agent.store_ports import CommitRecord, GuestRecord
from tests.model.loop import run
from tests.model.storage import Disk

SESSION = str(uuid.UUID(int=1))


def record(epoch: int) -> CommitRecord:
    return CommitRecord(SESSION, 2, epoch, epoch.to_bytes(16, "big"))


def note(generation: int) -> GuestRecord:
    return GuestRecord("web1", SESSION, "primary", "beta", generation, True, 700, 1 << 20)


class Told:
    """A disk, and which epochs it has told to be committed."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.disk = Disk(lambda record: self.epochs.append(record.epoch), lambda _: None, lambda: None)

    async def newest(self) -> CommitRecord | None:
        """As the next agent reads it."""
        for journal in self.disk.journals.values():
            journal.is_open = False
        return await (await self.disk.open("web1")).last()


async def dies_in(work: asyncio.Task[None], disk: Disk, share: float) -> None:
    """The agent is lost in this write, of which so much is on the disk."""
    disk.reached = share
    await asyncio.sleep(0.5)
    disk.crash()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize("reached", range(RECORD.size + 1))
def test_a_commit_that_is_torn_anywhere_is_there_or_is_not(reached: int) -> None:
    async def story() -> None:
        told = Told()
        journal = await told.disk.open("web1")
        for epoch in range(1, BLOCKS + 3):  # what is torn was a record before
            await journal.commit(record(epoch))
        told.disk.takes = lambda _: 1.0
        torn = record(BLOCKS + 3)
        await dies_in(asyncio.create_task(journal.commit(torn)), told.disk, reached / RECORD.size)
        there = reached == RECORD.size
        assert await told.newest() == (torn if there else record(BLOCKS + 2))
        assert (told.epochs[-1] == torn.epoch) is there

    run(story())


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_a_note_is_the_old_one_or_the_new_one(share: float) -> None:
    async def story() -> None:
        disk = Told().disk
        await disk.save(note(2))
        disk.takes = lambda _: 1.0
        await dies_in(asyncio.create_task(disk.save(note(3))), disk, share)
        assert disk.guests == {"web1": note(3 if share == 1.0 else 2)}
        await dies_in(asyncio.create_task(disk.remove("web1")), disk, share)  # type: ignore[arg-type]
        assert bool(disk.guests) is (share < 1.0)

    run(story())


def test_what_nobody_waits_for_any_more_is_written_all_the_same() -> None:
    async def story() -> None:
        told = Told()
        journal = await told.disk.open("web1")
        told.disk.takes = lambda _: 1.0
        commit = asyncio.create_task(journal.commit(record(1)))
        await asyncio.sleep(0.5)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
        assert await told.newest() == record(1)

    run(story())
