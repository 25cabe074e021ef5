"""Protected disks in memory: what outlives an agent (SimVolume, SimStores), and what belongs to one (SimTaps, SimReplicas).

The fakes hold the services to the contracts of `remus_agent.disk_ports`: what breaks one is noted in `violations`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from xxhash import xxh3_128

from remus_agent.adapters.sim.local import SimDisk
from remus_agent.disk_ports import CopyProgress, Digests, DiskData, DiskEnd, DiskFacts
from remus_agent.errors import DiskError
from remus_agent.ports import CommitRecord, Domain
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.extents import ExtentMap
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.replication.digest import EpochDigest

REGION: Final = 4096
SECTOR: Final = 512
PIECE: Final = 16 * 1024
EARLY: Final = 32 * 1024
"""Bytes of the running epoch that are shipped before its end."""


def _regions(offset: int, length: int) -> range:
    return range(offset // REGION, (offset + length - 1) // REGION + 1)


@dataclass
class SimVolume:
    """One disk of a guest on its primary. map_id: None while the disk is linear. marked: the region map. missed: what md's own
    bitmap notes while no agent serves the tap. limit: bytes that the tap's log may hold."""

    facts: DiskFacts
    limit: int = 1 << 20
    content: bytearray = field(init=False)
    map_id: str | None = None
    marked: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)
    tap: SimTap | None = None
    stuck: bool = False

    def __post_init__(self) -> None:
        self.content = bytearray(self.facts.size)

    def write(self, offset: int, data: bytes) -> None:
        """The guest changes these bytes: it writes the whole sectors that they are in."""
        self.content[offset : offset + len(data)] = data
        start = offset // SECTOR * SECTOR
        length = -(-(offset + len(data)) // SECTOR) * SECTOR - start
        if self.map_id is None:
            return
        if self.tap is None:
            self.missed.update(_regions(start, length))
        else:
            self.tap.log(Extent(Op.WRITE, start, length, bytes(self.content[start : start + length])))


class _Epoch:
    """The log of one epoch."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.map = ExtentMap()
        self.regions: set[int] = set()
        self.digest = EpochDigest()
        self.extents = 0


class SimTap:
    """disk_ports.WriteTap"""

    def __init__(self, volume: SimVolume) -> None:
        self._volume = volume
        self._alive = True
        self._epochs: list[_Epoch] = []
        self._uncommitted: list[_Epoch] = []
        self._written: set[int] = set()
        self._overflowed = False
        self._pulse = asyncio.Event()
        self._done = self._total = self._sent = 0

    @property
    def facts(self) -> DiskFacts:
        return self._volume.facts

    @property
    def map_id(self) -> str:
        if self._volume.map_id is None:
            raise AssertionError("the tap is not open")
        return self._volume.map_id

    @property
    def progress(self) -> CopyProgress:
        return CopyProgress(self._done, self._total, self._sent)

    async def open(self) -> None:
        await asyncio.sleep(0)
        volume = self._volume
        if volume.map_id is None:
            volume.map_id = str(uuid.uuid4())
            volume.marked = set()
        volume.marked |= volume.missed
        volume.missed = set()
        volume.tap = self

    def begin(self, *, same_base: bool) -> None:
        if not self._alive:
            return
        if not same_base:
            self._volume.marked = set(range(self.facts.size // REGION))
        first = _Epoch(1)
        self._epochs, self._uncommitted = [first], [first]
        self._written, self._overflowed = set(), False
        self._done, self._total, self._sent = 0, len(self._volume.marked) * REGION, 0

    async def copy(self, digests: Digests | None) -> None:
        for region in sorted(self._volume.marked):
            offset = region * REGION
            await asyncio.sleep(0)
            theirs = await digests(offset, REGION) if digests is not None else None
            self._must_log()
            data = bytes(self._volume.content[offset : offset + REGION])
            self._epochs[-1].regions.add(region)
            self._done += REGION
            if theirs == xxh3_128(data).digest():
                continue
            for sector in range(REGION // SECTOR):
                at = offset + sector * SECTOR
                if at // SECTOR not in self._written:
                    self._add(Extent(Op.WRITE, at, SECTOR, data[sector * SECTOR : (sector + 1) * SECTOR]))

    def barrier(self, epoch: int) -> None:
        self._must_log()
        if self._epochs[-1].number != epoch:
            raise AssertionError("a barrier for an epoch that is not the running one")
        self._epochs[-1].closed = True
        running = _Epoch(epoch + 1)
        self._epochs.append(running)
        self._uncommitted.append(running)
        self._wake()

    async def next(self) -> DiskData | DiskEnd:
        while True:
            self._must_log()
            epoch = self._epochs[0]
            if epoch.map.count and (epoch.closed or epoch.map.bytes >= EARLY):
                return self._piece(epoch)
            if epoch.closed:
                self._epochs.pop(0)
                return DiskEnd(epoch.number, epoch.digest.stream_bytes, epoch.extents, epoch.digest.digest())
            await self._pulse.wait()

    def committed(self, epoch: int) -> None:
        if not self._alive:
            return
        while self._uncommitted and self._uncommitted[0].number <= epoch:
            gone = self._uncommitted.pop(0)
            self._volume.marked -= gone.regions - {region for later in self._uncommitted for region in later.regions}

    def end(self) -> None:
        if self._alive:
            self._epochs, self._uncommitted = [], []
            self._wake()

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self._volume.stuck:
            raise DiskError(f"the device of {self.facts.vdev} is stuck", operation="close the tap")
        self.end()
        if self._alive:
            self._volume.map_id, self._volume.tap = None, None
            self._volume.marked, self._volume.missed = set(), set()

    def kill(self) -> None:
        """The agent is dead."""
        self._alive = False
        self._epochs, self._uncommitted = [], []
        if self._volume.tap is self:
            self._volume.tap = None
        self._wake()

    def log(self, extent: Extent) -> None:
        """A write of the guest."""
        self._volume.marked.update(_regions(extent.offset, extent.length))
        if not self._epochs or self._overflowed:
            return
        self._written.update(range(extent.offset // SECTOR, extent.end // SECTOR))
        self._epochs[-1].regions.update(_regions(extent.offset, extent.length))
        self._add(extent)

    def _add(self, extent: Extent) -> None:
        self._epochs[-1].map.add(extent)
        if sum(epoch.map.bytes for epoch in self._epochs) > self._volume.limit:
            self._overflowed = True
        self._wake()

    def _piece(self, epoch: _Epoch) -> DiskData:
        taken, rest, size = list[Extent](), ExtentMap(), 0
        for extent in epoch.map:
            if size < PIECE:
                taken.append(extent)
                size += len(extent.data)
            else:
                rest.add(extent)
        epoch.map = rest
        payload = wire.pack(taken)
        epoch.digest.update_all(payload)
        epoch.extents += len(taken)
        self._sent += size
        return DiskData(epoch.number, payload)

    def _must_log(self) -> None:
        if self._overflowed:
            raise DiskError(f"the guest writes faster to {self.facts.vdev} than it can be sent", operation="log writes")
        if not self._epochs:
            raise DiskError("the session has ended", operation="log writes")

    def _wake(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()


class SimTaps:
    """disk_ports.Taps of one agent."""

    def __init__(self, volumes: dict[str, list[SimVolume]]) -> None:
        self._volumes = volumes
        self._made: list[SimTap] = []

    async def of(self, domain: Domain) -> tuple[SimTap, ...]:
        taps = tuple(SimTap(volume) for volume in self._volumes.get(domain.name, []))
        self._made += taps
        return taps

    def kill(self) -> None:
        """The agent is dead."""
        for tap in self._made:
            tap.kill()


@dataclass
class SimStore:
    """One disk on a backup with its journal. mapper: where the guest's device leads to."""

    content: bytearray
    map_id: str | None = None
    session: str = ""
    slots: dict[int, tuple[str, int, tuple[Extent, ...]]] = field(default_factory=dict)
    applied: int = 0
    seeding: bool = False
    mapper: str = "linear"
    user: SimReplica | None = None
    written: int = 0


@dataclass
class SimStores:
    """The disks of a backup's host, which outlive its agent. fails: operations that fail. delay: how long one takes."""

    journals: SimDisk
    capacity: int = 1 << 20
    by_disk: dict[tuple[str, str], SimStore] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    delay: Callable[[], float] = lambda: 0.0
    violations: list[str] = field(default_factory=list)

    def content(self, domain: str, vdev: str) -> bytes:
        """What stands on a disk now."""
        return bytes(self.by_disk[domain, vdev].content)

    def must(self, condition: bool, text: str) -> None:
        """Note a broken contract."""
        if not condition:
            self.violations.append(text)
            raise AssertionError(text)


class SimReplica:
    """disk_ports.Replica"""

    def __init__(self, stores: SimStores, domain: str, facts: DiskFacts, store: SimStore) -> None:
        self._stores = stores
        self._domain = domain
        self._facts = facts
        self._store = store

    @property
    def facts(self) -> DiskFacts:
        return self._facts

    @property
    def map_id(self) -> str | None:
        return self._store.map_id

    @property
    def capacity(self) -> int:
        return self._stores.capacity

    async def begin(self, map_id: str, session: str) -> None:
        await self._operation("begin")
        self._store.map_id, self._store.session, self._store.applied = map_id, session, 0

    async def seed(self, extents: Sequence[Extent]) -> None:
        await self._operation("seed")
        if not self._store.applied:
            self._store.seeding = True
        await self._write(extents)

    async def stage(self, epoch: int, extents: Sequence[Extent]) -> None:
        await self._operation("stage")
        self._stores.must(self._store.applied == epoch - 1, f"epoch {epoch} staged before {epoch - 1} was applied")
        self._store.slots[epoch % 2] = (self._store.session, epoch, tuple(extents))

    async def apply(self, epoch: int) -> None:
        await self._operation("apply")
        session, number, extents = self._store.slots[epoch % 2]
        last = await self._stores.journals.journals[self._domain].last()
        covered = last is not None and (last.session, last.epoch) == (session, epoch)
        self._stores.must(covered and number == epoch, f"epoch {epoch} applied before its commit")
        await self._write(extents)
        self._store.applied, self._store.seeding = epoch, False

    async def drop(self) -> None:
        await self._operation("drop")
        newer = [slot for slot, (_, epoch, _) in self._store.slots.items() if epoch > self._store.applied]
        for slot in newer:
            del self._store.slots[slot]

    async def digests(self, offset: int, length: int) -> bytes:
        await self._operation("digests")
        starts = range(offset, offset + length, REGION)
        return b"".join(xxh3_128(bytes(self._store.content[at : at + REGION])).digest() for at in starts)

    async def hand_over(self) -> None:
        await self._operation("hand_over")
        self._stores.must(not self._store.seeding, "a disk that is being seeded is handed over")
        self._store.map_id, self._store.user, self._store.mapper = None, None, "linear"

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self._store.user is self:
            self._store.user = None

    async def _operation(self, name: str) -> None:
        self._check(name)
        await asyncio.sleep(self._stores.delay())
        self._check(name)

    def _check(self, name: str) -> None:
        if self._store.user is not self:
            raise DiskError(f"disk {self._facts.vdev} is closed", operation=name)
        if name in self._stores.fails:
            raise DiskError(f"disk {self._facts.vdev} has failed", operation=name)

    async def _write(self, extents: Iterable[Extent]) -> None:
        """One after the other, so that an agent can die in between."""
        for extent in extents:
            self._check("write")
            data = bytes(extent.data) if extent.op is Op.WRITE else bytes(extent.length)
            self._store.content[extent.offset : extent.end] = data
            self._store.written += len(data)
            await asyncio.sleep(self._stores.delay() / 8)


class SimReplicas:
    """disk_ports.Replicas of one agent."""

    def __init__(self, stores: SimStores) -> None:
        self._stores = stores
        self._dead = False

    async def examine(self, domain: str, disks: Sequence[DiskFacts]) -> list[str]:
        return [
            f"disk {disk.vdev} has {len(store.content)} bytes here, {disk.size} on the primary"
            for disk in disks
            if (store := self._stores.by_disk.get((domain, disk.vdev))) and len(store.content) != disk.size
        ]

    async def open(self, domain: str, disk: DiskFacts, committed: CommitRecord | None) -> SimReplica:
        await asyncio.sleep(0)
        if self._dead or "open" in self._stores.fails:
            raise DiskError(f"disk {disk.vdev} cannot be opened", operation="open")
        store = self._stores.by_disk.setdefault((domain, disk.vdev), SimStore(bytearray(disk.size)))
        self._stores.must(store.user is None, f"disk {disk.vdev} opened twice")
        replica = SimReplica(self._stores, domain, disk, store)
        store.user, store.mapper = replica, "nowhere"
        # Only the committed epoch itself can lack: the one before was applied before it was staged.
        for session, epoch, extents in list(store.slots.values()):
            if committed is not None and (session, epoch) == (committed.session, committed.epoch):
                await replica._write(extents)
                store.seeding = False
        store.slots = {}
        return replica

    def kill(self) -> None:
        """The agent is dead."""
        self._dead = True
        for store in self._stores.by_disk.values():
            store.user = None
