"""The primary's end of one disk's own connection: sends what its tap hands out, receives the acknowledgements.

A channel belongs to a session (`services.session`); whatever ends it ends the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from remus_agent.disk_ports import DiskData, DiskEnd, WriteTap
from remus_agent.errors import ConnectionLost, PeerTimeout, RemusError
from remus_agent.ports import Clock, Connection, Connector
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
    Refuse,
)
from remus_agent.services.deadlines import HELD, LOOK_AT_THE_BACKUP, receive_within, send_within
from remus_agent.services.session import failed_by, refused_by_peer
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)


async def open_channel(
    connector: Connector,
    address: str,
    tap: WriteTap,
    hello: DiskHello,
    settings: Settings,
    clock: Clock,
    failed: Callable[[RemusError], None],
) -> DiskChannel:
    """A connection for the disk of this tap, which the backup has agreed to. Raises PeerError, ProtocolError. failed: called
    once with what ends the channel later."""
    connection = await connector.connect(address, settings.connect)
    try:
        async with asyncio.timeout(settings.ack):
            await connection.send(encode(hello))
            while True:
                message = decode(await connection.receive())
                if isinstance(message, Refuse):
                    raise refused_by_peer(message, hello.domain)
                if isinstance(message, DiskWelcome) and (message.session, message.vdev) == (hello.session, hello.vdev):
                    return DiskChannel(connection, tap, hello, message.same_base, settings, clock, failed)
                if not (isinstance(message, Plain) and message.type is FrameType.HEARTBEAT):
                    raise ConnectionLost(
                        f"unexpected answer to DISK_HELLO of {hello.vdev}", operation="open disk", domain=hello.domain
                    )
    except TimeoutError:
        await connection.close()
        raise PeerTimeout(
            f"no answer to DISK_HELLO of {hello.vdev} within {settings.ack:g} s",
            operation="open disk",
            domain=hello.domain,
            left=HELD,
            hint=LOOK_AT_THE_BACKUP,
        ) from None
    except BaseException:
        await connection.close()
        raise


class DiskChannel:
    """Made by `open_channel`; `start` sets it going, `close` ends it in any state."""

    def __init__(
        self,
        connection: Connection,
        tap: WriteTap,
        hello: DiskHello,
        same_base: bool,
        settings: Settings,
        clock: Clock,
        failed: Callable[[RemusError], None],
    ) -> None:
        self.vdev = hello.vdev
        self.tap = tap
        self.same_base = same_base
        self.copied = False
        self.acked_epoch = 0
        self.acked_at = 0.0
        self.last_end: DiskEnd | None = None
        self._domain = hello.domain
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._failed = failed
        self._expected: tuple[int, bytes] | None = None
        self._acked = asyncio.Event()
        self._asking = asyncio.Lock()
        self._answer: asyncio.Future[bytes] | None = None
        self._helpers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """The session begins with epoch 1 now: every write from here on is sent. The first DISK_... frame after DISK_HELLO tells
        the backup so."""
        await self.tap.begin(same_base=self.same_base)
        self._helpers = [
            asyncio.create_task(self._run(work()), name=f"{name} {self._domain} {self.vdev}")
            for name, work in (("send", self._send), ("receive", self._receive), ("heartbeat", self._heartbeat))
        ]

    async def copy(self) -> None:
        """Send what the backup's disk lacks; return when nothing is left but what the guest writes meanwhile."""
        await self.tap.copy(self.digests)
        self.copied = True

    async def wait_ack(self, epoch: int) -> None:
        """Return when the backup has acknowledged this epoch of the disk with the right digest. Raises PeerTimeout; what ends
        the channel is told to `failed` only."""
        try:
            async with asyncio.timeout(self._settings.ack):
                while self.acked_epoch < epoch:
                    self._acked.clear()
                    await self._acked.wait()
        except TimeoutError:
            raise PeerTimeout(
                f"no acknowledgement of epoch {epoch} of disk {self.vdev} within {self._settings.ack:g} s",
                operation="wait for the backup",
                domain=self._domain,
                epoch=epoch,
                left=HELD,
                hint="check the replication link, and the backup's disk",
            ) from None

    async def digests(self, offset: int, length: int) -> bytes:
        """disk_ports.Digests: what the backup's disk consists of."""
        async with self._asking:
            self._answer = asyncio.get_running_loop().create_future()
            try:
                await self._put(encode(DiskAsk(offset=offset, length=length)))
                async with asyncio.timeout(self._settings.ack):
                    return await self._answer
            except TimeoutError:
                raise PeerTimeout(
                    f"no digests of disk {self.vdev} within {self._settings.ack:g} s",
                    operation="copy a disk",
                    domain=self._domain,
                    left=HELD,
                    hint="check the replication link, and the backup's disk",
                ) from None
            finally:
                self._answer = None

    async def close(self) -> None:
        """End the connection; the tap only tracks from now on. Safe to call twice."""
        self.tap.end()
        for helper in self._helpers:
            helper.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
        await self._connection.close()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except RemusError as error:
            error.domain = error.domain or self._domain
            self._failed(error)
        except Exception as defect:  # nobody waits for it
            log.critical("%s: disk %s ends its session by a defect", self._domain, self.vdev, exc_info=True)
            self._failed(failed_by(defect, self._domain))

    async def _send(self) -> None:
        while True:
            piece = await self.tap.next()
            if isinstance(piece, DiskData):
                await self._put(Frame(FrameType.DISK_DATA, piece.epoch, 0, piece.payload))
                continue
            self.last_end = piece
            self._expected = (piece.epoch, piece.digest)
            end = DiskEpochEnd(
                epoch=piece.epoch, data_bytes=piece.data_bytes, extents=piece.extents, digest=piece.digest
            )
            await self._put(encode(end))

    async def _put(self, frame: Frame) -> None:
        await send_within(self._settings.ack, self._connection, frame, domain=self._domain, of=f" of disk {self.vdev}")

    async def _receive(self) -> None:
        while True:
            frame = await receive_within(
                self._settings.silence,
                self._connection,
                "backup",
                domain=self._domain,
                of=f" of disk {self.vdev}",
            )
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        match decode(frame):
            case DiskAck() as ack:
                if (ack.epoch, ack.digest) != self._expected:
                    raise self._broken("the backup acknowledged something that was not sent", ack.epoch)
                self._expected = None
                self.acked_epoch, self.acked_at = ack.epoch, self._clock.now()
                self._acked.set()
            case DiskDigests(digests=digests):
                if self._answer is None or self._answer.done():
                    raise self._broken("the backup sent digests that nobody asked for")
                self._answer.set_result(digests)
            case Refuse() as refuse:
                raise refused_by_peer(refuse, self._domain)
            case Plain(type=FrameType.HEARTBEAT):
                pass
            case _:
                raise self._broken(f"the backup sent an unexpected {frame.type.name}")

    async def _heartbeat(self) -> None:
        while True:
            await self._clock.sleep(self._settings.heartbeat)
            await self._connection.send(encode(Plain(FrameType.HEARTBEAT)))

    def _broken(self, message: str, epoch: int | None = None) -> ConnectionLost:
        return ConnectionLost(message, operation=f"disk {self.vdev}", domain=self._domain, epoch=epoch)
