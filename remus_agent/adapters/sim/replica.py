"""Disks of a backup in memory: what outlives an agent (SimStores), and what belongs to one (SimReplicas).

The fakes hold the services to the contracts of `remus_agent.disk_ports`: what breaks one is noted in `violations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from xxhash import xxh3_128

from remus_agent.adapters.sim.disk import REGION
from remus_agent.adapters.sim.local import SimDisk
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError
from remus_agent.faults import FaultName, active
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.wire import HEADER_BYTES
from remus_agent.store_ports import CommitRecord


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
    """The disks of a backup's host, which outlive its agent. fails: operations that fail. delay: how long one takes.
    committed_as: of guests that are members of a group, the group that they are committed with."""

    journals: SimDisk
    capacity: int = 1 << 20
    by_disk: dict[tuple[str, str], SimStore] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    delay: Callable[[], float] = lambda: 0.0
    violations: list[str] = field(default_factory=list)
    committed_as: dict[str, str] = field(default_factory=dict)

    def content(self, domain: str, vdev: str) -> bytes:
        """What stands on a disk now."""
        return bytes(self.by_disk[domain, vdev].content)

    def lead(self, domain: str, vdev: str) -> None:
        """The mapper device is led to the disk."""
        if "lead" in self.fails:
            raise DiskError(f"the mapper device of {vdev} is busy", operation="hand_over", domain=domain)

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
        self._released = False
        self._staged: int | None = None
        self._dropped = False
        self._dead = False

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
        for name in (map_id, session):
            self._stores.must(str(UUID(name)) == name, f"{name} is no UUID")
        self._refuse_if(self._staged is not None, f"still has epoch {self._staged} staged")
        self._store.map_id, self._store.session, self._store.applied = map_id, session, 0

    async def seed(self, extents: Sequence[Extent]) -> None:
        await self._operation("seed")
        self._refuse_if(not self._store.session, "has no session")
        late = bool(self._store.applied) or self._staged is not None
        self._refuse_if(
            late and not active(FaultName.DISK_APPLY_ON_RECEIPT), "can be seeded only to the first epoch of a session"
        )
        self._refuse_misfits(extents)
        if not self._store.applied:
            self._store.seeding = True
        await self._write(extents)

    async def stage(self, epoch: int, extents: Sequence[Extent]) -> None:
        await self._operation("stage")
        self._refuse_if(self._staged is not None, f"still has epoch {self._staged} staged")
        self._refuse_if(not self._store.session, "has no session")
        self._refuse_misfits(extents)
        packed = sum(HEADER_BYTES + len(extent.data) for extent in extents)
        self._refuse_if(packed > self.capacity, f"has no room for the {packed} bytes of epoch {epoch}")
        self._staged = epoch
        self._stores.must(self._store.applied == epoch - 1, f"epoch {epoch} staged before {epoch - 1} was applied")
        self._store.slots[epoch % 2] = (self._store.session, epoch, tuple(extents))

    async def apply(self, epoch: int) -> None:
        await self._operation("apply")
        self._refuse_if(self._staged != epoch, f"has not staged epoch {epoch}")
        session, number, extents = self._store.slots[epoch % 2]
        owner = self._stores.committed_as.get(self._domain, self._domain)
        last = await self._stores.journals.journals[owner].last()
        covered = last is not None and (last.session, last.epoch) == (session, epoch)
        self._stores.must(covered and number == epoch, f"epoch {epoch} applied before its commit")
        await self._write(extents)
        self._store.applied, self._store.seeding, self._staged = epoch, False, None

    async def drop(self) -> None:
        await self._operation("drop")
        self._dropped = self._dropped or self._staged is not None
        self._staged = None
        newer = [slot for slot, (_, epoch, _) in self._store.slots.items() if epoch > self._store.applied]
        for slot in newer:
            del self._store.slots[slot]

    async def digests(self, offset: int, length: int) -> bytes:
        await self._operation("digests")
        self._stores.must(offset % REGION == 0 and length % REGION == 0, "digests of what is no whole region")
        starts = range(offset, offset + length, REGION)
        return b"".join(xxh3_128(bytes(self._store.content[at : at + REGION])).digest() for at in starts)

    @property
    def released(self) -> bool:
        return self._released

    async def hand_over(self) -> None:
        if not self._released:
            await self._operation("hand_over")
            self._refuse_if(self._staged is not None, f"still has epoch {self._staged} staged")
            self._stores.must(not self._store.seeding, "a disk that is being seeded is handed over")
            self._store.map_id, self._store.user, self._released = None, None, True
        self._stores.lead(self._domain, self._facts.vdev)
        self._store.mapper = "linear"

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
        self._refuse_if(self._dead, "failed before and was not opened again since")
        self._refuse_if(
            self._dropped and name not in ("drop", "hand_over"), "has dropped an epoch and was not opened again"
        )
        if name in self._stores.fails:
            # Asking for digests changes nothing, and letting go is asked for again.
            self._dead = name not in ("digests", "drop", "hand_over")
            raise DiskError(f"disk {self._facts.vdev} has failed", operation=name)

    def _refuse_if(self, wrong: bool, why: str) -> None:
        """Raises DiskError, nothing was changed."""
        if wrong:
            raise DiskError(f"disk {self._facts.vdev} {why}", operation="replica", domain=self._domain)

    def _refuse_misfits(self, extents: Sequence[Extent]) -> None:
        size, block = self._facts.size, self._facts.block
        wrong = [extent for extent in extents if extent.end > size or extent.offset % block or extent.length % block]
        self._refuse_if(bool(wrong), "was sent what does not fit it")

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
