"""Protected disks of a primary in memory: what outlives an agent (SimVolume), and what belongs to one (SimTaps)."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Final

from xxhash import xxh3_128

from remus_agent.disk_ports import CopyProgress, Digests, DiskData, DiskEnd, DiskFacts
from remus_agent.errors import DiskError, LocalDiskFailed, RefusedError
from remus_agent.ports import Domain
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
    bitmap notes while no agent serves the tap. limit: bytes that the tap's log may hold. takes: seconds to put the tap behind it
    or to take it away. failed: the local device answers with errors; md goes on with the tap alone. refusing: the tap does not
    serve it, so that the guest's writes fail as well then. let_go: md does not use the tap any more, and nobody was told."""

    facts: DiskFacts
    limit: int = 1 << 20
    content: bytearray = field(init=False)
    map_id: str | None = None
    marked: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)
    tap: SimTap | None = None
    stuck: bool = False
    failed: bool = False
    refusing: bool = False
    let_go: bool = False
    takes: float = 0.0

    def __post_init__(self) -> None:
        self.content = bytearray(self.facts.size)

    def write(self, offset: int, data: bytes) -> None:
        """The guest changes these bytes: it writes the whole sectors that they are in. Raises DiskError when that fails."""
        if self.failed and self.refusing:
            raise DiskError(f"{self.facts.vdev} fails", operation="write")
        self.content[offset : offset + len(data)] = data
        start = offset // SECTOR * SECTOR
        length = -(-(offset + len(data)) // SECTOR) * SECTOR - start
        if self.map_id is None:
            return
        if self.tap is None:
            self.missed.update(_regions(start, length))
        else:
            self.tap.log(Extent(Op.WRITE, start, length, bytes(self.content[start : start + length])))

    def require_loose(self) -> None:
        """Raises DiskError when the device does not let go of its tap."""
        if self.stuck:
            raise DiskError(f"the device of {self.facts.vdev} is stuck", operation="close the tap")

    def require_local(self) -> None:
        """Raises LocalDiskFailed when the local device has failed below a tap."""
        if self.failed and self.map_id is not None:
            raise LocalDiskFailed(f"the device of {self.facts.vdev} has failed", operation="use the local disk")

    def make_linear(self) -> None:
        """Take the tap away and forget the map."""
        self.map_id, self.tap = None, None
        self.marked, self.missed = set(), set()


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
        self._wanted: set[int] = set()
        self._session = 0
        self._same_base = False
        self._overflowed = False
        self._pulse = asyncio.Event()
        self._done = self._total = self._sent = 0

    @property
    def facts(self) -> DiskFacts:
        return self._volume.facts

    @property
    def map_id(self) -> str:
        if self._volume.map_id is None:
            raise self._not_open()
        return self._volume.map_id

    @property
    def progress(self) -> CopyProgress:
        return CopyProgress(self._done, self._total, self._sent)

    async def open(self) -> None:
        await asyncio.sleep(self._volume.takes)
        volume = self._volume
        volume.require_local()
        volume.refusing = volume.let_go = False
        if volume.map_id is None:
            volume.map_id = str(uuid.uuid4())
            volume.marked = set()
        volume.marked |= volume.missed
        volume.missed = set()
        volume.tap = self

    async def begin(self, *, same_base: bool) -> None:
        if not self._alive:
            return
        if self._volume.map_id is None:
            raise self._not_open()
        self._same_base = same_base
        if not same_base:
            self._volume.marked = set(range(self.facts.size // REGION))
        first = _Epoch(1)
        self._epochs, self._uncommitted = [first], [first]
        self._written, self._overflowed = set(), False
        self._wanted = set(self._volume.marked)
        self._session += 1
        self._done, self._total, self._sent = 0, len(self._volume.marked) * REGION, 0

    async def copy(self, digests: Digests | None) -> None:
        session = self._session
        if self._same_base:
            digests = None
        for region in sorted(self._wanted):
            offset = region * REGION
            await asyncio.sleep(0)
            theirs = await digests(offset, REGION) if digests is not None else None
            self._must_log()
            if session != self._session:
                raise DiskError("the session ended while the disk was being copied", operation="copy disk")
            self._wanted.discard(region)
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
        if self._overflowed:
            return  # `next` reports it
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
            if epoch.map.count and (epoch.closed or epoch.map.memory > EARLY):
                return self._piece(epoch)
            if epoch.closed:
                self._epochs.pop(0)
                return DiskEnd(epoch.number, epoch.digest.stream_bytes, epoch.extents, epoch.digest.digest())
            await self._pulse.wait()

    def committed(self, epoch: int) -> None:
        if not self._alive:
            return
        if self._epochs and epoch >= self._epochs[0].number:
            raise DiskError(f"epoch {epoch} is committed before it was sent", operation="commit epoch", epoch=epoch)
        while self._uncommitted and self._uncommitted[0].number <= epoch:
            gone = self._uncommitted.pop(0)
            kept = {region for later in self._uncommitted for region in later.regions} | self._wanted
            self._volume.marked -= gone.regions - kept

    async def require_local(self) -> None:
        await asyncio.sleep(0)
        self._volume.require_local()

    async def look(self) -> None:
        await self.require_local()
        if self._volume.let_go:
            self.end()

    async def refuse(self) -> None:
        await asyncio.sleep(0)
        self._volume.refusing = True

    def end(self) -> None:
        if self._alive:
            self._epochs, self._uncommitted = [], []
            self._wake()

    async def close(self, *, given_up: bool = False) -> None:
        await asyncio.sleep(self._volume.takes)
        self._volume.require_loose()
        if not given_up:
            self._volume.require_local()
        self.end()
        if self._alive:
            self._volume.make_linear()

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
        if sum(epoch.map.memory for epoch in self._epochs) > self._volume.limit:
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

    def _not_open(self) -> DiskError:
        return DiskError(f"the tap of {self.facts.vdev} is not open", operation="protect a disk")

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
        volumes = {f"/dev/mapper/remus-{domain.name}-{v.facts.vdev}": v for v in self._volumes.get(domain.name, [])}
        wanted = [vbd for vbd in domain.disks if vbd.writable and not vbd.cdrom]
        refused = [str(vbd) for vbd in wanted if vbd.path not in volumes]
        if refused:
            raise RefusedError(f"its disks {', '.join(refused)} are not behind the mapper", domain=domain.name)
        taps = tuple(SimTap(volumes[vbd.path]) for vbd in wanted)
        self._made += taps
        return taps

    async def sweep(self, keep: frozenset[str]) -> list[str]:
        await asyncio.sleep(0)
        done: list[str] = []
        failed: list[str] = []
        for domain, volumes in self._volumes.items():
            for volume in volumes:
                if domain in keep or volume.map_id is None:
                    continue
                try:
                    volume.require_loose()
                except DiskError as error:
                    failed.append(str(error))
                    continue
                volume.make_linear()
                done.append(f"remus-{domain}-{volume.facts.vdev}")
        if failed:
            raise DiskError("; ".join(failed), operation="take away old taps")
        return done

    def kill(self) -> None:
        """The agent is dead."""
        for tap in self._made:
            tap.kill()
