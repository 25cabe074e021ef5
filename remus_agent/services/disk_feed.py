"""The backup's end of one disk's own connection: takes in its epochs and stages them.

What is staged is durable and changes nothing yet: the content of the disk follows the commit record that covers memory and
all disks (`services.copy`). Before the first commit of a session, data go to the disk as they come, unless an older copy
still needs the disk as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from remus_agent.disk_ports import DiskFacts, Replica
from remus_agent.errors import (
    ConnectionLost,
    DiskError,
    PeerError,
    ProtocolError,
    RemusError,
    ReplicationError,
)
from remus_agent.faults import FaultName, active
from remus_agent.ports import Clock, Connection
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.extents import ExtentMap
from remus_agent.protocol.disk.operations import Extent
from remus_agent.protocol.replication.digest import EpochDigest
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.protocol.replication.message_frames import decode, encode
from remus_agent.protocol.replication.messages import (
    DiskAck,
    DiskAsk,
    DiskDigests,
    DiskEpochEnd,
    DiskHello,
    DiskWelcome,
    Plain,
)
from remus_agent.services.deadlines import receive_within
from remus_agent.services.refusing import refuse
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Older:
    """The older copy of the domain, which counts until this session has committed. exists: whether there is one that needs
    this disk as it is."""

    exists: Callable[[str], bool]
    give_up: Callable[[], Awaitable[None]]


class DiskFeed:
    """One disk of one session. changed: called when an epoch was staged. heard: called with each frame that comes."""

    def __init__(
        self,
        domain: str,
        session: str,
        replica: Replica,
        settings: Settings,
        clock: Clock,
        older: Older,
        changed: Callable[[], None],
        until_applied: Callable[[DiskFeed, int], Awaitable[None]],
        heard: Callable[[], None],
    ) -> None:
        self.facts: DiskFacts = replica.facts
        self.staged: tuple[int, bytes] = (0, b"")
        """The newest epoch that is staged, with its digest."""
        self.applied = 0
        self.half_done = False
        """Whether something has failed on the replica, so that nobody knows its state."""
        self.done = asyncio.Event()
        self._domain = domain
        self._session = session
        self._replica = replica
        self._settings = settings
        self._clock = clock
        self._older = older
        self._changed = changed
        self._until_applied = until_applied
        self._heard = heard
        self._connection: Connection | None = None
        self._map_id = ""
        self._begun = False
        self._stopped: RemusError | None = None
        self._busy = asyncio.Lock()
        self._epoch = 1
        self._map = ExtentMap()
        self._digest = EpochDigest()
        self._extents = 0
        self._staged_memory = 0
        self.done.set()

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the open epoch takes, and one that is staged and not applied yet."""
        return self._map.memory + self._staged_memory

    @property
    def attached(self) -> bool:
        """Whether its connection has come."""
        return self._connection is not None

    async def serve(self, connection: Connection, hello: DiskHello) -> None:
        """Take in the disk until its connection ends, which is raised."""
        self._heard()  # DISK_HELLO
        self._connection = connection
        self._map_id = hello.map_id
        self.done.clear()
        heartbeat = asyncio.create_task(self._heartbeat(connection), name=f"heartbeat {self._domain} {hello.vdev}")
        try:
            same_base = self._replica.map_id == hello.map_id
            await connection.send(encode(DiskWelcome(session=hello.session, vdev=hello.vdev, same_base=same_base)))
            while True:
                await self._take(connection, await self._receive(connection))
        except RemusError as error:
            await self._refuse(error)
            raise
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)
            self.done.set()

    async def apply(self, epoch: int) -> None:
        """The epoch was committed."""
        await self._on_replica(lambda replica: replica.apply(epoch))
        self.applied = epoch
        self._staged_memory = 0

    async def stop(self, error: RemusError) -> None:
        """The session is over: tell the primary why, if it is there, and wait until nothing is done to the replica any more."""
        if self._stopped is None:
            self._stopped = error
        if self._connection is not None and isinstance(error, PeerError):
            self._connection.abort()  # to close it waits for the primary
        elif self._connection is not None:
            await self._refuse(error)
            await self._connection.close()
        await self.done.wait()
        async with self._busy:
            self._map, self._staged_memory = ExtentMap(), 0

    async def _take(self, connection: Connection, frame: Frame) -> None:
        if frame.type is FrameType.DISK_DATA:
            await self._data(frame)
            return
        match decode(frame):
            case DiskEpochEnd() as end:
                await self._end(connection, end)
            case DiskAsk() as ask:
                await self._answer(connection, ask)
            case Plain(type=FrameType.HEARTBEAT):
                pass
            case _:
                raise self._broken(f"unexpected {frame.type.name} of disk {self.facts.vdev}")

    async def _data(self, frame: Frame) -> None:
        if frame.epoch != self._epoch:
            raise self._broken(f"data of epoch {frame.epoch} while {self._epoch} is open")
        await self._begin()
        extents: list[Extent] = []
        for payload in frame.payload:
            self._digest.update(payload)
            most = wire.MOST_EXTENTS - len(extents)
            extents += wire.parse(payload, size=self.facts.size, block=self.facts.block, most=most)
        self._extents += len(extents)
        seeding = self._epoch == 1 and not self._older.exists(self.facts.vdev)
        if seeding or (self._epoch > 1 and active(FaultName.DISK_APPLY_ON_RECEIPT)):
            await self._seed([*self._map, *extents])
        else:
            for extent in extents:
                self._map.add(extent)
            await self._limit()

    async def _limit(self) -> None:
        limit = min(self._replica.capacity, self._settings.disk_staging_bytes)
        if self._map.bytes <= self._replica.capacity and self._map.memory <= self._settings.disk_staging_bytes:
            return
        if self._epoch > 1:
            raise DiskError(
                f"epoch {self._epoch} of disk {self.facts.vdev} is larger than the {limit} bytes that can be staged",
                operation="stage a disk",
                domain=self._domain,
                epoch=self._epoch,
                hint="give the disk's journal on the backup more space, or shorten the interval",
            )
        log.warning("%s: the older copy is given up, the first epoch of a disk is too large to stage", self._domain)
        await self._older.give_up()
        if self._older.exists(self.facts.vdev):
            raise DiskError("the older copy is being activated", operation="stage a disk", domain=self._domain)
        await self._seed(list(self._map))

    async def _seed(self, extents: Sequence[Extent]) -> None:
        self._map = ExtentMap()
        await self._on_replica(lambda replica: replica.seed(extents))

    async def _end(self, connection: Connection, end: DiskEpochEnd) -> None:
        if end.epoch != self._epoch:
            raise self._broken(f"end of epoch {end.epoch} while {self._epoch} is open")
        await self._begin()
        digest = self._digest.digest()
        received = (self._digest.stream_bytes, self._extents, digest)
        if received != (end.data_bytes, end.extents, end.digest) and not active(FaultName.DIGEST_UNCHECKED):
            raise self._broken(f"epoch {end.epoch} of disk {self.facts.vdev} arrived damaged")
        await self._until_applied(self, end.epoch - 1)
        extents = list(self._map)
        await self._on_replica(lambda replica: replica.stage(end.epoch, extents))
        self._staged_memory = self._map.memory
        self._map, self._digest, self._extents = ExtentMap(), EpochDigest(), 0
        self._epoch = end.epoch + 1
        self.staged = (end.epoch, digest)
        self._changed()
        await connection.send(encode(DiskAck(epoch=end.epoch, digest=digest)))

    async def _answer(self, connection: Connection, ask: DiskAsk) -> None:
        if ask.offset + ask.length > self.facts.size:
            raise self._broken(f"digests asked for beyond the end of disk {self.facts.vdev}")
        await self._begin()
        digests = await self._on_replica(lambda replica: replica.digests(ask.offset, ask.length))
        await connection.send(encode(DiskDigests(digests=digests)))

    async def _begin(self) -> None:
        """The disk takes the map's identity only now: before the primary's map was made to name all that has to be copied, the
        same identity would promise too much in the next session."""
        if not self._begun:
            await self._on_replica(lambda replica: replica.begin(self._map_id, self._session))
            self._begun = True

    async def _on_replica(self, work: Callable[[Replica], Awaitable[T]]) -> T:
        async with self._busy:
            if self._stopped is not None:
                raise self._stopped
            self.half_done = True
            result = await work(self._replica)
            self.half_done = False
            return result

    async def _receive(self, connection: Connection) -> Frame:
        frame = await receive_within(
            self._settings.silence,
            connection,
            "primary",
            domain=self._domain,
            of=f" of disk {self.facts.vdev}",
            epoch=self._epoch,
            left="the copy stands at its last commit",
            hint="check the replication link and the primary's host",
        )
        self._heard()
        return frame

    async def _refuse(self, error: RemusError) -> None:
        if self._connection is not None:
            await refuse(self._connection, error, self._domain, self._settings.connect)

    async def _heartbeat(self, connection: Connection) -> None:
        try:
            while True:
                await self._clock.sleep(self._settings.heartbeat)
                await connection.send(encode(Plain(FrameType.HEARTBEAT)))
        except PeerError:
            return  # the receiving side notices and reports it

    def _broken(self, message: str) -> ProtocolError:
        return ReplicationError(message, operation="receive a disk", domain=self._domain, epoch=self._epoch)


def session_over(domain: str) -> RemusError:
    """What the disks of a session that has ended are told."""
    return ConnectionLost("the session has ended", operation="receive a disk", domain=domain)
