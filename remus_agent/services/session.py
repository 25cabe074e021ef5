"""One session of a primary with its backup: a connection, its heartbeat and its acknowledgements.

A session is used by one task. Two helpers run beside it: one sends heartbeats, one receives. Whatever ends the
connection ends every wait of the session with the same error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from remus_agent.errors import ConnectionLost, PeerError, PeerRefused, PeerTimeout, ProtocolError, RemusError
from remus_agent.ports import Clock, Connection, Connector
from remus_agent.protocol.replication.digest import EpochDigest
from remus_agent.protocol.replication.frames import Buffer, Frame, FrameType
from remus_agent.protocol.replication.message_frames import decode, encode
from remus_agent.protocol.replication.messages import EpochEnd, Hello, MemoryAck, Outcome, Plain, Refuse, Welcome
from remus_agent.services.deadlines import HELD, LOOK_AT_THE_BACKUP, receive_within, send_within
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")


class PrimarySession:
    """The primary's end. Made by `open_session`; `close` ends it in any state."""

    def __init__(self, connection: Connection, hello: Hello, settings: Settings, clock: Clock) -> None:
        self.id = hello.session
        self._domain = hello.domain
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._digest = EpochDigest()
        self._expected: tuple[int, bytes] | None = None
        self._acked = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopping = False
        self._handed = asyncio.Event()
        self._outcome: Outcome | None = None
        self._end: RemusError | None = None
        self._ended = asyncio.Event()
        self.last_heard = clock.now()
        self._helpers = [
            asyncio.create_task(self._receive(), name=f"receive {self._domain}"),
            asyncio.create_task(self._heartbeat(), name=f"heartbeat {self._domain}"),
        ]

    async def send_preamble(self, preamble: bytes, member: int = 0) -> None:
        """Send what precedes memory; it counts into the digest of epoch 1. member: of a consistency group, whose it is."""
        self._digest.update(preamble)
        await self._send(Frame(FrameType.PREAMBLE, 1, 0, (preamble,), member))

    async def send_records(self, epoch: int, group: Sequence[Buffer], member: int = 0) -> int:
        """Send one group of whole stream records of an epoch. Returns its bytes. member: see `send_preamble`."""
        before = self._digest.stream_bytes
        self._digest.update_all(group)
        await self._send(Frame(FrameType.STREAM, epoch, 0, tuple(group), member))
        return self._digest.stream_bytes - before

    async def end_epoch(self, epoch: int, pages: int, *, last: bool = False) -> None:
        """Say that the epoch is complete; after this `wait_ack` waits for it. last: the guest is not resumed."""
        digest = self._digest.digest()
        end = EpochEnd(epoch=epoch, stream_bytes=self._digest.stream_bytes, pages=pages, digest=digest, last=last)
        self._digest = EpochDigest()
        self._expected = (epoch, digest)
        self._acked.clear()
        await self._send(encode(end))

    async def wait_ack(self, epoch: int) -> None:
        """Return when the backup has acknowledged this epoch's memory with the right digest. Raises PeerError."""
        await self._wait(self._acked, self._settings.ack, f"acknowledgement of epoch {epoch}", epoch)

    async def discard_copy(self) -> None:
        """Ask the backup to discard its copies of the domain; return when it says that they are gone. Raises PeerError."""
        self._stopping = True
        await self._send(encode(Plain(FrameType.STOP)))
        await self._wait(self._stopped, self._settings.ack, "word that the copy is discarded", None)

    @property
    def over(self) -> RemusError | None:
        """What has ended the session, if it has ended: then nothing more is sent in it."""
        return self._end

    async def hand_over(self, seconds: float) -> Outcome:
        """Tell the backup, after the last epoch's acknowledgement, that the guest is its own; what has become of it. Once only.
        Raises PeerError when no answer comes: then the backup may run it."""
        self._stopping = True
        await self._send(encode(Plain(FrameType.HAND_OVER)))
        await self._wait(self._handed, seconds, "word of what has become of the hand-over", None)
        if self._outcome is None:
            raise ConnectionLost("no outcome", operation="hand over", domain=self._domain)
        return self._outcome

    async def ended(self) -> RemusError:
        """Wait until something ends the session; what it was. For who waits for something else meanwhile."""
        await self._ended.wait()
        return self._end or ConnectionLost("the session has ended", operation="session", domain=self._domain)

    def fail(self, error: RemusError) -> None:
        """Something that belongs to the session has failed, a disk's connection for one: every wait ends with this error. Not
        once the copy is to be discarded, because the backup ends those connections first."""
        if not self._stopping:
            self._finish(error)

    async def guard(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the work returns, which is begun here (see `asking.Work`); raises the session's end if that comes first."""
        task = asyncio.create_task(work(), name=f"work {self._domain}")
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._raise_if_ended()
            return task.result()
        finally:
            for one in (task, ended):
                one.cancel()
            await asyncio.gather(task, ended, return_exceptions=True)

    async def close(self) -> None:
        """End the connection. Safe to call twice."""
        for helper in self._helpers:
            helper.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
        await self._connection.close()

    async def _send(self, frame: Frame) -> None:
        self._raise_if_ended()
        await send_within(self._settings.ack, self._connection, frame, domain=self._domain)

    async def _wait(self, happened: asyncio.Event, seconds: float, what: str, epoch: int | None) -> None:
        waits = {asyncio.create_task(happened.wait()), asyncio.create_task(self._ended.wait())}
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if happened.is_set():
            return
        self._raise_if_ended()
        raise PeerTimeout(
            f"no {what} within {seconds:g} s",
            operation="wait for the backup",
            domain=self._domain,
            epoch=epoch,
            left=HELD,
            hint=LOOK_AT_THE_BACKUP,
        )

    def _raise_if_ended(self) -> None:
        if self._end is not None:
            raise self._end

    async def _receive(self) -> None:
        try:
            while True:
                frame = await receive_within(
                    self._settings.silence,
                    self._connection,
                    "backup",
                    domain=self._domain,
                )
                self.last_heard = self._clock.now()
                self._handle(frame)
        except (PeerError, ProtocolError) as error:
            self._finish(error)
        except Exception as defect:  # nobody waits for it, and without it the session would only seem to go on
            log.critical("%s: a session ends by a defect of this agent", self._domain, exc_info=True)
            self._finish(failed_by(defect, self._domain))

    def _handle(self, frame: Frame) -> None:
        message = decode(frame)
        match message:
            case MemoryAck():
                if self._expected is None or (message.epoch, message.digest) != self._expected:
                    raise ConnectionLost(
                        "the backup acknowledged something that was not sent",
                        operation="memory acknowledgement",
                        domain=self._domain,
                        epoch=message.epoch,
                    )
                self._expected = None
                self._acked.set()
            case Refuse():
                raise refused_by_peer(message, self._domain)
            case Plain(type=FrameType.STOPPED):
                self._stopped.set()
            case Outcome() if message.session == self.id:
                self._outcome = message
                self._handed.set()
            case Plain(type=FrameType.HEARTBEAT):
                pass
            case _:
                raise ConnectionLost(
                    f"the backup sent an unexpected {frame.type.name}",
                    operation="session",
                    domain=self._domain,
                )

    def _finish(self, error: RemusError) -> None:
        if self._end is None:
            self._end = error
            self._ended.set()

    async def _heartbeat(self) -> None:
        try:
            while True:
                await self._clock.sleep(self._settings.heartbeat)
                await self._connection.send(encode(Plain(FrameType.HEARTBEAT)))
        except PeerError as error:
            self._finish(error)
        except Exception as defect:  # nobody waits for it, and without it the session would only seem to go on
            log.critical("%s: a session ends by a defect of this agent", self._domain, exc_info=True)
            self._finish(failed_by(defect, self._domain))


def failed_by(defect: Exception, domain: str) -> ConnectionLost:
    """What ends a session when this agent's own code has failed in a way that nobody has foreseen."""
    return ConnectionLost(
        f"this host's agent failed by a defect: {defect!r}",
        operation="session",
        domain=domain,
        hint="nothing for now, a new session begins by itself; the agent's log has what to report",
    )


def refused_by_peer(refuse: Refuse, domain: str) -> PeerRefused:
    """The error for a REFUSE, naming all its reasons."""
    return PeerRefused(
        "; ".join(reason.message for reason in refuse.reasons),
        reasons=tuple(reason.code for reason in refuse.reasons),
        operation="session with the backup",
        domain=domain,
        hint="; ".join(reason.hint for reason in refuse.reasons if reason.hint) or None,
    )


async def ask(
    connector: Connector, address: str, hello: Hello, settings: Settings
) -> tuple[Connection, Welcome | Refuse]:
    """Connect and say HELLO; the connection and the answer. Raises PeerError, ProtocolError."""
    connection = await connector.connect(address, settings.connect)
    try:
        async with asyncio.timeout(settings.ack):
            await connection.send(encode(hello))
            while True:
                message = decode(await connection.receive())
                if isinstance(message, Welcome | Refuse):
                    return connection, message
                if not (isinstance(message, Plain) and message.type is FrameType.HEARTBEAT):
                    raise ConnectionLost("unexpected answer to HELLO", operation="open session", domain=hello.domain)
    except TimeoutError:
        await connection.close()
        raise PeerTimeout(
            f"no answer to HELLO within {settings.ack:g} s",
            operation="open session",
            domain=hello.domain,
            left="no session was opened",
            hint="the log of the agent on the backup says what it waits for; see also dmesg there",
        ) from None
    except BaseException:
        await connection.close()
        raise


async def open_session(
    connector: Connector, address: str, hello: Hello, settings: Settings, clock: Clock
) -> PrimarySession:
    """A session that the backup has agreed to. Raises PeerRefused with its reasons, or another PeerError."""
    connection, answer = await ask(connector, address, hello, settings)
    if isinstance(answer, Refuse):
        await connection.close()
        raise refused_by_peer(answer, hello.domain)
    return PrimarySession(connection, hello, settings, clock)
