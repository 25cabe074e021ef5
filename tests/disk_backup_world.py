"""A primary with two disks, its region maps and its backup: drives the real adapters and knows what must be found again."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crash_states import MemoryFile, MemoryFiles, Recorder

from remus_agent.adapters.disk.replica import FileReplica
from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.adapters.journal import file as commits
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError, JournalError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.store_ports import CommitRecord

DOMAIN = "web1"
COMMITS = "commits"
DISKS = (DiskFacts("xvda", 24 * 512, 512), DiskFacts("xvdb", 6 * 4096, 4096))
JOURNAL_BYTES = 8192 + 2 * (4096 + 20480)
"""A full copy of xvda fits a slot, one of xvdb does not."""


def session_name(number: int) -> str:
    return str(uuid.UUID(int=number))


def session_number(name: str) -> int:
    return uuid.UUID(name).int


class FakeMapping:
    """Notes where the mapper devices lead. fails: raised by the next `linear`."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.fails: DiskError | None = None

    async def nowhere(self, domain: str, vdev: str, size: int) -> None:
        self.calls.append(("nowhere", domain, vdev, size))

    async def linear(self, domain: str, vdev: str, device: Path, size: int) -> None:
        self.calls.append(("linear", domain, vdev, str(device), size))
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error


@dataclass
class Content:
    """Bytes of a disk; what was discarded is in `undefined` (sector numbers)."""

    data: bytearray
    block: int
    undefined: set[int] = field(default_factory=set)

    def apply(self, extents: list[Extent]) -> None:
        for extent in extents:
            sectors = range(extent.offset // self.block, extent.end // self.block)
            self.undefined.difference_update(sectors)
            if extent.op is Op.DISCARD:
                self.undefined.update(sectors)
            self.data[extent.offset : extent.end] = extent.data if extent.op is Op.WRITE else bytes(extent.length)

    def copy(self) -> Content:
        return Content(bytearray(self.data), self.block, set(self.undefined))

    def differing(self, other: bytes) -> set[int]:
        """Sectors in which it is not this."""
        size = self.block
        return {
            number
            for number in range(len(self.data) // size)
            if self.data[number * size : (number + 1) * size] != other[number * size : (number + 1) * size]
        } - self.undefined


class Primary:
    """One disk with its map (a bit a sector): what a write tap does."""

    def __init__(self, facts: DiskFacts, rng: random.Random) -> None:
        self.facts = facts
        self.rng = rng
        self.now = Content(bytearray(rng.randbytes(facts.size)), facts.block)
        self.map_id = str(uuid.UUID(int=rng.getrandbits(128)))
        self.bits: set[int] = set(range(facts.size // facts.block))
        self.running: list[Extent] = []
        self.closed: dict[int, set[int]] = {}

    def write(self, count: int) -> None:
        for _ in range(count):
            first = self.rng.randrange(self.facts.size // self.facts.block)
            length = (
                self.rng.randint(
                    1, min(3 if self.facts.block == 512 else 2, self.facts.size // self.facts.block - first)
                )
                * self.facts.block
            )
            op = self.rng.choice((Op.WRITE, Op.WRITE, Op.WRITE, Op.ZERO, Op.DISCARD))
            data = self.rng.randbytes(length) if op is Op.WRITE else b""
            extent = Extent(op, first * self.facts.block, length, data)
            self.now.apply([extent])
            self.running.append(extent)
            self.bits.update(self._sectors([extent]))

    def _sectors(self, extents: list[Extent]) -> set[int]:
        size = self.facts.block
        return {number for extent in extents for number in range(extent.offset // size, extent.end // size)}

    def begin(self, base: str | None) -> list[Extent]:
        """What has to be copied, given the map that the backup names."""
        if base != self.map_id:
            self.bits = set(range(self.facts.size // self.facts.block))
        self.running, self.closed = [], {}
        size = self.facts.block
        return [
            Extent(Op.WRITE, number * size, size, bytes(self.now.data[number * size : (number + 1) * size]))
            for number in sorted(self.bits)
        ]

    def barrier(self, epoch: int) -> list[Extent]:
        extents, self.running = self.running, []
        self.closed[epoch] = self._sectors(extents)
        return extents

    def committed(self, epoch: int, copied: set[int] | None = None) -> None:
        gone = self.closed.pop(epoch) | (copied or set())
        still = self._sectors(self.running).union(*self.closed.values())
        self.bits -= gone - still


@dataclass(frozen=True)
class Seen:
    """At one point of the run: the last epoch that was acknowledged, and each disk's map and content on the primary."""

    acknowledged: tuple[int, int] | None
    disks: tuple[tuple[str, frozenset[int], Content], ...]


class World:
    """Runs sessions on files in memory, with the commit journal's calls recorded in the same log."""

    def __init__(self, path: Path, kind: type[MemoryFile] = MemoryFile, seed: int = 1, together: bool = False) -> None:
        self.rng = random.Random(seed)
        self.recorder = Recorder()
        self.start: dict[str, bytes] = {COMMITS: bytes(commits.FILE_BYTES)}
        for disk in DISKS:
            self.start[f"device-{disk.vdev}"] = self.rng.randbytes(disk.size)
            self.start[f"journal-{disk.vdev}"] = bytes(JOURNAL_BYTES)
        self.contents = {name: bytearray(content) for name, content in self.start.items() if name != COMMITS}
        self.files = MemoryFiles(self.contents, self.recorder, kind)
        self.primaries = [Primary(disk, self.rng) for disk in DISKS]
        self.boundaries: dict[tuple[int, int], list[Content]] = {}
        self.acknowledged: tuple[int, int] | None = None
        self.journals = commits.FileJournals(path)
        self.replicas: list[FileReplica] = []
        self.mapping = FakeMapping()
        self.session = 0
        self.together = together
        self.apply_after_commit = True
        self.before_commit: Callable[[int], Awaitable[None]] | None = None

    def note(self) -> None:
        disks = tuple((p.map_id, frozenset(p.bits), p.now.copy()) for p in self.primaries)
        self.recorder.note(Seen(self.acknowledged, disks))

    def guest(self, count: int = 3) -> None:
        for primary in self.primaries:
            primary.write(count)
        self.note()

    async def run_session(
        self, number: int, *, seed: bool = False, commits_until: int = 3, leave: str = "idle", new_map: bool = False
    ) -> None:
        """seed: copy without the journal. leave: `idle`, `staged` (and dropped), `seeding` (nothing committed)."""
        self.session = number
        self.journal = await self.journals.open(DOMAIN)
        try:
            await self._session(number, seed, commits_until, leave, new_map)
        finally:
            for replica in self.replicas:
                await replica.close()
            await self.journal.close()

    async def _session(self, number: int, seed: bool, until: int, leave: str, new_map: bool) -> None:
        committed = await self.journal.last()
        self.recorder.mark = None
        replicas = FileReplicas(configs(), self.mapping, self.files)
        self.replicas = [await replicas.open(DOMAIN, disk, committed) for disk in DISKS]
        copies: list[list[Extent]] = []
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            if new_map:
                primary.map_id = str(uuid.UUID(int=self.rng.getrandbits(128)))
                primary.bits = set(range(primary.facts.size // primary.facts.block))
            copies.append(primary.begin(replica.map_id))
            self.note()
            await replica.begin(primary.map_id, session_name(number))
        sectors = [
            {extent.offset // p.facts.block for extent in c} for c, p in zip(copies, self.primaries, strict=True)
        ]
        self.guest(2)
        rest: list[list[Extent]] = [[], []]
        if seed or leave == "seeding":
            self.recorder.mark = ("seed", number)
            for copy, replica in zip(copies, self.replicas, strict=True):
                half = len(copy) // 2
                await replica.seed(copy[: half // 2])
                await replica.seed(copy[half // 2 : half])
                if leave != "seeding":
                    await replica.seed(copy[half:])
            if leave == "seeding":
                return
        else:
            rest = copies
        await self._epochs(number, until, rest, sectors)
        if leave == "staged":
            extents = [p.barrier(until + 1) for p in self.primaries]
            self._boundary(number, until + 1)
            await self._stage(until + 1, extents)
            for replica in self.replicas:
                await replica.drop()

    async def _epochs(self, number: int, until: int, rest: list[list[Extent]], sectors: list[set[int]]) -> None:
        for epoch in range(1, until + 1):
            extents = [r + p.barrier(epoch) for r, p in zip(rest, self.primaries, strict=True)]
            rest = [[], []]
            self._boundary(number, epoch)
            self.guest(2)
            await self._stage(epoch, extents)
            if self.before_commit is not None:
                await self.before_commit(epoch)
            await self.journal.commit(CommitRecord(session_name(number), number, epoch, bytes(16)))
            self.acknowledged = (number, epoch)
            for primary, copied in zip(self.primaries, sectors, strict=True):
                primary.committed(epoch, copied if epoch == 1 else None)
            self.note()
            self.recorder.mark = None
            if self.apply_after_commit:
                await self._all(replica.apply(epoch) for replica in self.replicas)

    def _boundary(self, number: int, epoch: int) -> None:
        self.boundaries[number, epoch] = [p.now.copy() for p in self.primaries]

    async def _all(self, calls: Iterable[Awaitable[None]]) -> None:
        """On all disks, at the same time or one after the other."""
        if self.together:
            await asyncio.gather(*calls)
            return
        for call in calls:
            await call

    async def _stage(self, epoch: int, extents: list[list[Extent]]) -> None:
        await self._all(
            self._stage_one(epoch, replica, parts) for replica, parts in zip(self.replicas, extents, strict=True)
        )

    async def _stage_one(self, epoch: int, replica: FileReplica, parts: list[Extent]) -> None:
        try:
            await replica.stage(epoch, parts)
        except JournalError as error:  # too large for the journal: the older copy is given up
            assert "is full" in error.message, error
            self.recorder.mark = ("seed", self.session)
            await replica.seed(parts)
            await replica.stage(epoch, [])

    async def activate(self) -> None:
        """Fail over, then let the guest write to its disks."""
        self.journal = await self.journals.open(DOMAIN)
        committed = await self.journal.last()
        await self.journal.close()
        self.recorder.mark = ("handed over", self.session)
        replicas = FileReplicas(configs(), self.mapping, self.files)
        for disk in DISKS:
            replica = await replicas.open(DOMAIN, disk, committed)
            await replica.hand_over()
        for disk in DISKS:
            file = self.files(Path(f"device-{disk.vdev}"), sector=disk.block)
            for _ in range(3):
                file.pwrite(self.rng.randrange(disk.size // disk.block) * disk.block, [self.rng.randbytes(disk.block)])
            file.fdatasync()


def configs() -> list[Disk]:
    return [
        Disk(DOMAIN, disk.vdev, Path(f"device-{disk.vdev}"), Path("md"), Path(f"journal-{disk.vdev}"), JOURNAL_BYTES)
        for disk in DISKS
    ]


async def whole_life(world: World) -> None:
    """Every kind of session once: seeded, dropped at its end, with a map, overflowing, given up, after a failover."""
    world.note()
    await world.run_session(1, seed=True, commits_until=4, leave="staged")
    world.guest()
    await world.run_session(2, commits_until=3)
    world.guest()
    await world.run_session(3, commits_until=2, new_map=True)
    world.guest()
    await world.run_session(4, leave="seeding")
    world.guest()
    await world.run_session(5, commits_until=3, leave="staged")
    await world.activate()
    world.guest()
    await world.run_session(6, seed=True, commits_until=2, new_map=True)


def record(world: World, patch: pytest.MonkeyPatch, life: Callable[[World], Awaitable[None]] = whole_life) -> None:
    """Run a life; the commit journal's writes and flushes, which go to a real file, get into the log as well."""

    def pwrite(_: int, data: bytes, offset: int) -> int:
        world.recorder.write(COMMITS, offset, bytes(data))
        return len(data)

    real, newest = commits._pread_all, bytearray(commits.FILE_BYTES)

    def remember(fd: int, data: bytes, offset: int) -> int:
        newest[offset : offset + len(data)] = data
        return pwrite(fd, data, offset)

    with patch.context() as inner:
        inner.setattr(commits.os, "pwrite", remember)
        inner.setattr(commits.os, "fdatasync", lambda _: world.recorder.sync(COMMITS))
        inner.setattr(commits, "_pread_all", lambda fd: bytes(newest) if real(fd) else b"")
        asyncio.run(life(world))  # type: ignore[arg-type]
