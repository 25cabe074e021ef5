"""Relays a stream with checkpoints that somebody else takes, stock `xl remus` for one, to a backup's agent.

For the backup it is a primary like any other. What it is not: it holds no output of the guest. Whoever writes the stream is
held by back pressure, because nothing of the next epoch is read before the backup has acknowledged the one before.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn

from remus_agent.errors import RefusedError, RemusError, StreamError
from remus_agent.ports import Clock, Connector
from remus_agent.protocol.replication.frames import Buffer, FrameType, payload_limit
from remus_agent.protocol.replication.messages import Hello
from remus_agent.protocol.stream_tools.epochs import Beginning, Complete, EpochSplitter, Part, Piece
from remus_agent.protocol.stream_tools.walk import CutBetweenEpochs
from remus_agent.relay_ports import ByteSource, Reservations, Reserved
from remus_agent.services.session import PrimarySession, open_session
from remus_agent.services.settings import Settings

RESERVE: Final = 20.0
"""Seconds for which the agent of this host is asked to leave the domain alone; asked again every RENEW seconds."""
RENEW: Final = 5.0
_LIMIT: Final = payload_limit(FrameType.STREAM)


class End(StrEnum):
    """How a stream ended."""

    WHOLE = "whole"
    BETWEEN_EPOCHS = "between-epochs"
    BROKEN_OFF = "broken-off"


@dataclass(slots=True)
class Report:
    """What was relayed so far. epochs: acknowledged by the backup; pages: of these, with content; bytes: of the stream, sent;
    seconds: since the start."""

    backup: str
    domain: str | None = None
    session: str | None = None
    epochs: int = 0
    pages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    ended: End = End.BROKEN_OFF

    def as_dict(self) -> dict[str, Any]:
        """For a summary."""
        return asdict(self) | {"ended": self.ended.value, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class RelayPorts:
    """What a relay works with."""

    source: ByteSource
    connector: Connector
    reservations: Reservations
    clock: Clock


class Relay:
    """One stream, one session. address: of the backup's agent. domain: the only one that is relayed, None for any.

    ready: called when the writer of the stream may begin. on_progress: called when something was sent or acknowledged."""

    def __init__(
        self,
        ports: RelayPorts,
        settings: Settings,
        address: str,
        *,
        domain: str | None = None,
        ready: Callable[[], None] = lambda: None,
        on_progress: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self.report = Report(address)
        self._ports = ports
        self._settings = settings
        self._expected = domain
        self._ready = ready
        self._on_progress = on_progress
        self._started = ports.clock.now()
        self._splitter = EpochSplitter(_LIMIT)
        self._reserved: tuple[str, Reserved] | None = None
        self._session: PrimarySession | None = None
        self._guards: list[asyncio.Task[NoReturn]] = []
        self._group: list[Buffer] = []
        self._group_bytes = 0
        self._epoch = 1
        self._awaiting: int | None = None

    async def run(self) -> None:
        """Until the stream ends. An end between epochs is how such streams end, and no error.

        Whatever else ends it is raised: RefusedError (also of this host's agent, of a plain stream), StreamError, PeerError,
        ProtocolError, FileError. The session ends without a STOP in any case: the backup keeps what it has committed."""
        try:
            if self._expected is not None:
                await self._reserve(self._expected)
            self._ready()
            while piece := await self._read():
                for part in self._splitter.feed(piece):
                    await self._take(part)
                await self._flush()  # what is queued are views of the piece
            self._splitter.close()
            self.report.ended = End.WHOLE
        except CutBetweenEpochs:
            self.report.ended = End.BETWEEN_EPOCHS
        except RemusError as error:
            self._complete(error)
            raise
        finally:
            await self._close()
            self._touch()

    async def _read(self) -> memoryview:
        """The next bytes, none at the end; raises when the session or the reservation ends meanwhile."""
        reading = asyncio.ensure_future(self._ports.source.read())
        try:
            await asyncio.wait({reading, *self._guards}, return_when=asyncio.FIRST_COMPLETED)
            for guard in self._guards:
                if guard.done():
                    guard.result()
            return reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _take(self, part: Part) -> None:
        match part:
            case Beginning():
                await self._begin(part)
            case Piece():
                if self._group_bytes + part.size > _LIMIT:
                    await self._flush()
                self._epoch = part.epoch
                self._group += part.buffers
                self._group_bytes += part.size
            case Complete():
                await self._flush()
                await self._end_epoch(part)

    async def _begin(self, beginning: Beginning) -> None:
        name = beginning.name
        if self._expected not in (None, name):
            raise RefusedError(
                f"the stream is of {name}, not of {self._expected}", operation="relay", domain=self._expected
            )
        if beginning.devices:
            raise RefusedError(
                f"it has devices that cannot be replicated ({', '.join(beginning.devices)})",
                operation="relay",
                domain=name,
                hint="the copy would run with a disk of another moment; only guests without disks can be relayed",
            )
        reserved = self._reserved[1] if self._reserved else await self._reserve(name)
        hello = Hello(
            purpose="protect",
            session=str(uuid.uuid4()),
            generation=reserved.generation,
            domain=name,
            uuid=beginning.uuid,
            guest_type=beginning.guest_type.value,
            memory_kib=beginning.memory_kib,
            xen_version=".".join(map(str, beginning.xen)),
            cpu_policy=reserved.facts.policy_for(beginning.guest_type),
            host=reserved.host,
        )
        ports = self._ports
        session = await open_session(ports.connector, self.report.backup, hello, self._settings, ports.clock)
        self._session = session
        self.report.session = session.id
        self._guard(_fail_with(session), "session")
        await session.send_preamble(beginning.raw)
        self.report.bytes += len(beginning.raw)
        self._touch()

    async def _flush(self) -> None:
        if not self._group:
            return
        group, self._group, self._group_bytes = self._group, [], 0
        self.report.bytes += await self._need_session().send_records(self._epoch, group)
        self._touch()

    async def _end_epoch(self, complete: Complete) -> None:
        session = self._need_session()
        self._awaiting = complete.epoch
        await session.end_epoch(complete.epoch, complete.pages)
        await session.wait_ack(complete.epoch)
        self._awaiting = None
        self.report.epochs = complete.epoch
        self.report.pages += complete.pages
        self._touch()

    async def _reserve(self, domain: str) -> Reserved:
        self.report.domain = domain
        reserved = await self._ports.reservations.reserve(domain, RESERVE)
        self._reserved = (domain, reserved)
        self._guard(self._renew(domain), "reservation")
        return reserved

    async def _renew(self, domain: str) -> NoReturn:
        while True:
            await self._ports.clock.sleep(RENEW)
            await self._ports.reservations.renew(domain, RESERVE)

    def _guard(self, work: Coroutine[Any, Any, NoReturn], what: str) -> None:
        self._guards.append(asyncio.create_task(work, name=f"{what} {self.report.domain}"))

    async def _close(self) -> None:
        for guard in self._guards:
            guard.cancel()
        await asyncio.gather(*self._guards, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._reserved is not None:
            try:
                await self._ports.reservations.renew(self._reserved[0], 0)
            except RemusError:
                return  # it ends by itself

    def _complete(self, error: RemusError) -> None:
        """Say what an error leaves behind."""
        error.domain = error.domain or self.report.domain
        if isinstance(error, StreamError):
            error.operation = f"read {self._ports.source.name}"
        if self._session is None:
            if error.left is None or isinstance(error, StreamError):
                error.left = "nothing was sent"
            return
        at_most = f", or {self._awaiting} if its acknowledgement was lost" if self._awaiting else ""
        if self.report.epochs:
            error.left = f"the backup holds epoch {self.report.epochs}{at_most}; what came after it is dropped"
        else:
            error.left = f"the backup holds no epoch{at_most}"

    def _need_session(self) -> PrimarySession:
        if self._session is None:
            raise RuntimeError("records before the preamble")
        return self._session

    def _touch(self) -> None:
        self.report.seconds = self._ports.clock.now() - self._started
        self._on_progress(self.report)


async def _fail_with(session: PrimarySession) -> NoReturn:
    raise await session.ended()
