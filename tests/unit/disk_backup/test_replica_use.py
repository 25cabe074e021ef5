"""The order in which a disk's copy may be used, and what it says to every wrong one."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from crash_states import MemoryFile, MemoryFiles
from disk_backup_world import DISKS, DOMAIN, JOURNAL_BYTES, FakeMapping, configs
from xxhash import xxh3_128_digest

from remus_agent.adapters.disk.replica import FileReplica
from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.adapters.disk.slots import Standing
from remus_agent.adapters.ledger import Ledger
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts, Replica, Replicas
from remus_agent.errors import DiskError, JournalError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.regions import region_bytes
from remus_agent.store_ports import CommitRecord
from tests.burning import burn
from tests.spent import account, spent

DISK = DISKS[0]
MAP = str(uuid.UUID(int=77))
A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


def commit(session: str, epoch: int) -> CommitRecord:
    return CommitRecord(session, 1, epoch, bytes(16))


def full(byte: bytes) -> list[Extent]:
    return [Extent(Op.WRITE, 0, DISK.size, byte * DISK.size)]


def sector(number: int, byte: bytes) -> list[Extent]:
    return [Extent(Op.WRITE, number * 512, 512, byte * 512)]


class Bench:
    """One disk in memory."""

    def __init__(self) -> None:
        self.contents = {
            "device-xvda": bytearray(b"-" * DISK.size),
            "journal-xvda": bytearray(JOURNAL_BYTES),
        }
        self.files = MemoryFiles(self.contents)
        self.mapping = FakeMapping()
        self.replicas = FileReplicas(configs(), self.mapping, self.files)

    @property
    def device(self) -> MemoryFile:
        return self.files.opened["device-xvda"]

    @property
    def journal(self) -> MemoryFile:
        return self.files.opened["journal-xvda"]

    async def open(self, committed: CommitRecord | None = None) -> FileReplica:
        return await self.replicas.open(DOMAIN, DISK, committed)

    async def at(self, epoch: int, session: str = A) -> FileReplica:
        replica = await self.open()
        await replica.begin(MAP, session)
        await replica.seed(full(b"0"))
        for number in range(1, epoch + 1):
            await replica.stage(number, sector(number, b"e"))
            await replica.apply(number)
        return replica


def go(test: Callable[[Bench], Awaitable[None]]) -> None:
    asyncio.run(test(Bench()))  # type: ignore[arg-type]


def test_it_is_what_the_ports_say() -> None:
    async def run(bench: Bench) -> None:
        replicas: Replicas = bench.replicas
        replica: Replica = await replicas.open(DOMAIN, DISK, None)
        assert replica.facts == DISK
        assert replica.map_id is None
        assert replica.capacity == 20480
        await replica.close()

    go(run)


def test_what_it_costs() -> None:
    """The thread that writes the disk, those that help it with many writes, and the one that opened it."""

    async def run(bench: Bench) -> None:
        ledger = Ledger()
        bench.replicas = FileReplicas(configs(), bench.mapping, bench.files, ledger)
        replica = await bench.open()
        await replica.begin(MAP, A)
        await replica._run(burn, 0.1)
        replica._copy.writers_seconds = 0.5
        open_ = await spent(ledger, DOMAIN, "disks")
        assert open_.cpu_seconds >= 0.55
        await replica.close()
        closed = await spent(ledger, DOMAIN, "disks")
        assert closed.cpu_seconds >= open_.cpu_seconds
        assert (await account(ledger)).shared.cpu_seconds > 0

    go(run)


def test_a_life() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(2)
        assert replica.map_id == MAP
        assert replica.standing == Standing(A, 2)
        await replica.stage(3, sector(3, b"x"))
        await replica.drop()
        await replica.close()
        await replica.close()
        replica = await bench.open(commit(A, 2))
        assert (replica.map_id, replica.standing) == (MAP, Standing(A, 2))
        assert bench.mapping.calls == [("nowhere", DOMAIN, "xvda", DISK.size)] * 2
        await replica.hand_over()
        assert bench.mapping.calls[2:] == [("linear", DOMAIN, "xvda", "device-xvda", DISK.size)]
        await replica.close()
        expected = b"0" * 512 + b"e" * 1024 + b"0" * (DISK.size - 1536)
        assert bench.contents["device-xvda"] == expected

    go(run)


def test_a_committed_epoch_that_was_not_applied_is_applied_when_it_is_opened() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        await replica.stage(2, sector(0, b"2"))
        await replica.close()
        assert bench.contents["device-xvda"][:512] == b"0" * 512
        replica = await bench.open(commit(A, 2))
        assert bench.contents["device-xvda"][:512] == b"2" * 512
        await replica.begin(MAP, A)  # the same session goes on
        await replica.stage(3, sector(0, b"3"))
        await replica.apply(3)
        assert replica.standing == Standing(A, 3)
        await replica.close()

    go(run)


def test_epochs_and_calls_out_of_order() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.open()
        for call in (replica.stage(1, []), replica.seed([]), replica.apply(1)):
            await refused(call)
        await refused(replica.begin("map", A), "not a UUID")
        await refused(replica.begin(MAP, A.replace("-", "")), "not a UUID")
        await replica.begin(MAP, A)
        await refused(replica.stage(2, []), "expects epoch 1")
        await refused(replica.hand_over(), "has not committed yet")
        await replica.stage(1, [])
        for call in (replica.stage(2, []), replica.stage(1, []), replica.seed([]), replica.begin(MAP, B)):
            await refused(call)
        await refused(replica.hand_over(), "epoch 1 staged")
        await refused(replica.apply(2), "not staged")
        await replica.apply(1)
        await refused(replica.seed([]), "only from the beginning")
        await replica.stage(2, [])
        await replica.drop()
        for call in (replica.stage(2, []), replica.begin(MAP, B), replica.apply(2)):
            await refused(call, "dropped epoch 2")
        await replica.hand_over()
        await refused(replica.stage(2, []), "is closed")

    go(run)


async def refused(call: Awaitable[object], why: str | None = None) -> DiskError:
    with pytest.raises(DiskError, match=why) as caught:
        await call
    assert caught.value.domain == DOMAIN
    assert caught.value.left is not None
    return caught.value


def test_seeding_gives_up_the_older_copy() -> None:
    async def run(bench: Bench) -> None:
        await (await bench.at(2)).close()
        replica = await bench.open(commit(A, 2))
        await replica.begin(MAP, B)
        assert replica.standing == Standing(A, 2)
        await replica.seed(sector(5, b"b"))
        await refused(replica.hand_over(), "being seeded")
        await replica.close()
        before = bytes(bench.contents["device-xvda"])
        replica = await bench.open(commit(A, 2))
        assert bench.contents["device-xvda"] == before
        assert replica.map_id == MAP
        error = await refused(replica.hand_over(), f"seeded by session {B}")
        assert error.hint is not None
        await refused(replica.begin(MAP, A), "cannot go on with session")
        await replica.begin(MAP, B)
        await replica.stage(1, [])
        await replica.apply(1)
        await replica.close()
        assert (await bench.open(commit(B, 1))).standing == Standing(B, 1)

    go(run)


@pytest.mark.parametrize(
    ("committed", "why"),
    [
        (None, "nothing was committed"),
        (commit(B, 1), f"was seeded by session {A}, which did not commit"),
        (commit(A, 3), "does not hold the committed epoch"),
        (commit(A, 1), "does not hold the committed epoch"),
    ],
    ids=["none", "another session", "later", "earlier"],
)
def test_a_commit_record_that_the_disk_does_not_belong_to(committed: CommitRecord | None, why: str) -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(2)
        await replica.stage(3, sector(0, b"3"))
        await replica.close()
        bench.contents["journal-xvda"][8192 + 24576 : 8192 + 24576 + 4096] = bytes(4096)  # the slot of epoch 3
        before = bytes(bench.contents["device-xvda"])
        replica = await bench.open(committed)
        assert replica.standing is None
        assert replica.map_id is None
        await refused(replica.hand_over(), why)
        assert bench.contents["device-xvda"] == before

    go(run)


def test_a_commit_record_that_goes_back() -> None:
    async def run(bench: Bench) -> None:
        await (await bench.at(4)).close()
        await (await bench.open(commit(A, 4))).close()
        replica = await bench.open(commit(A, 3))
        await refused(replica.hand_over(), "later than the last commit")

    go(run)


def test_a_damaged_slot_of_the_committed_epoch() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        await replica.stage(2, sector(0, b"2"))
        await replica.close()
        bench.contents["journal-xvda"][8192 + 4096 + 40] ^= 1
        replica = await bench.open(commit(A, 2))
        await refused(replica.hand_over(), "does not hold the committed epoch whole")
        assert replica.map_id is None
        await replica.begin(MAP, B)  # a new session makes it a copy again
        await replica.stage(1, full(b"n"))
        await replica.apply(1)
        await replica.hand_over()

    go(run)


def test_handing_over_can_be_tried_again() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        bench.mapping.fails = DiskError("dm says no")
        with pytest.raises(DiskError, match="dm says no"):
            await replica.hand_over()
        assert replica.map_id is None
        await replica.hand_over()
        assert [call[0] for call in bench.mapping.calls] == ["nowhere", "linear", "linear"]
        replica = await bench.open(commit(A, 1))
        await refused(replica.hand_over(), "handed over to a guest before")

    go(run)


def test_an_epoch_that_is_larger_than_a_slot() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        extents = sector(0, b"x") * (replica.capacity // 528 + 1)
        with pytest.raises(JournalError, match=r"is full: epoch 2 needs 20592 bytes and a slot has 20480") as caught:
            await replica.stage(2, extents)
        assert caught.value.left == "the epoch is not staged"
        assert caught.value.hint is not None
        await replica.stage(2, extents[:-1])
        await replica.apply(2)

    go(run)


def test_what_does_not_fit_the_disk_is_refused_before_it_can_be_committed() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        await refused(replica.stage(2, [Extent(Op.ZERO, DISK.size, 512)]), "does not fit it")
        await replica.stage(2, [])

    go(run)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EIO, "Input/output error"),
        (errno.ENOSPC, "No space left"),
        (errno.ENODEV, "has disappeared"),
        (errno.ENXIO, "has disappeared"),
        (errno.EROFS, "Read-only"),
    ],
)
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("where", ["device", "journal"])
def test_a_failing_device_or_journal(number: int, said: str, call: str, where: str) -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        file = bench.device if where == "device" else bench.journal
        if where == "device":
            await replica.stage(2, sector(0, b"2"))
        file.fail[call] = OSError(number, os.strerror(number))
        with pytest.raises(DiskError if where == "device" else JournalError, match=said) as caught:
            await (replica.apply(2) if where == "device" else replica.stage(2, sector(0, b"2")))
        assert str(caught.value).count("xvda") >= 1
        assert caught.value.epoch == 2
        assert caught.value.left is not None
        assert caught.value.hint is not None
        file.fail.clear()
        for later in (replica.stage(2, []), replica.apply(2), replica.begin(MAP, B), replica.hand_over()):
            await refused(later, "was not opened again")
        await replica.close()
        committed = 2 if where == "device" else 1
        replica = await bench.open(commit(A, committed))
        assert replica.standing == Standing(A, committed)
        assert bench.contents["device-xvda"][:512] == (b"2" if where == "device" else b"0") * 512

    go(run)


def test_a_device_that_fails_while_it_is_seeded_or_read() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.open()
        await replica.begin(MAP, A)
        bench.device.fail["pread"] = OSError(errno.EIO, "")
        await refused(replica.digests(0, DISK.size), "cannot be read")
        bench.device.fail["pwrite"] = OSError(errno.EIO, "")
        await refused(replica.seed(full(b"s")), "cannot be written")
        await refused(replica.seed(full(b"s")), "not opened again")

    go(run)


def test_digests_of_regions() -> None:
    size = 5 * 65536 + 4096
    disk = DiskFacts("xvdc", size, 512)
    content = os.urandom(size)
    config = Disk(DOMAIN, "xvdc", Path("d"), Path("m"), Path("j"), JOURNAL_BYTES)
    files = MemoryFiles({"d": bytearray(content), "j": bytearray(JOURNAL_BYTES)})

    async def run() -> None:
        replica = await FileReplicas([config], FakeMapping(), files).open(DOMAIN, disk, None)
        expected = [xxh3_128_digest(content[at : at + 65536]) for at in range(0, size, 65536)]
        assert await replica.digests(0, size) == b"".join(expected)
        assert await replica.digests(65536, 2 * 65536) == b"".join(expected[1:3])
        assert await replica.digests(5 * 65536, 65536) == expected[5]
        for offset, length in ((1, 65536), (0, 100), (size, 65536), (0, 0), (-65536, 65536)):
            await refused(replica.digests(offset, length), "no whole regions")
        await replica.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("size", "region"), [(1, 1 << 16), (1 << 36, 1 << 16), ((1 << 36) + 1, 1 << 17), (1 << 40, 1 << 20)]
)
def test_regions_grow_with_the_disk(size: int, region: int) -> None:
    assert region_bytes(size) == region


def test_a_cancelled_call_is_finished_before_the_next_one() -> None:
    async def run(bench: Bench) -> None:
        replica = await bench.at(1)
        hold, entered = threading.Event(), threading.Event()
        real = bench.journal.pwrite

        def slow(offset: int, parts: Any) -> None:
            entered.set()
            assert hold.wait(10)
            real(offset, parts)

        bench.journal.pwrite = slow  # type: ignore[method-assign]
        staging = asyncio.create_task(replica.stage(2, sector(0, b"2")))
        await asyncio.to_thread(entered.wait)
        staging.cancel()
        dropping = asyncio.create_task(replica.drop())
        await asyncio.sleep(0.01)
        assert not dropping.done()
        hold.set()
        await dropping
        await refused(replica.stage(2, []), "dropped epoch 2")
        await replica.close()
        assert (await bench.open(commit(A, 2))).standing == Standing(A, 2)  # had it been committed

    go(run)
