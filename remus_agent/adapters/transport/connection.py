"""One connection: frames over TCP, encrypted where a TLS layer was put below them.

Received bytes go from the socket straight into the payload of their frame (with TLS: are decrypted into it). `send`
returns when the kernel has taken all bytes of the frame, so the caller may then use the memory again; the kernel's
socket buffer is all that is queued. TLS sits between the frames and the transport and not below the transport, so
that all of this, and how a connection ends, is the same with it and without.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from remus_agent.adapters.transport.sockets import SMALL_BYTES, peer_name, pieces, translate
from remus_agent.adapters.transport.tls_layer import TlsLayer
from remus_agent.addresses import parse_address
from remus_agent.errors import ConnectionLost, RemusError, ReplicationError
from remus_agent.protocol.replication.frames import Buffer, Frame, FrameDecoder, encode

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Received payload bytes that wait for receive() before reading pauses."""
QUEUE_FRAMES: Final = 256
_LINGER: Final = 1.0
"""Seconds that close() waits for the other side to read what was sent."""


class TcpConnection(asyncio.BufferedProtocol):
    """`ports.Connection` over one TCP connection; made by `TcpConnector` and `serve`. encrypted: nothing is received before
    `secure` was called."""

    def __init__(self, on_made: Callable[[TcpConnection], None] | None = None, *, encrypted: bool = False) -> None:
        self._on_made = on_made
        self._encrypted = encrypted
        self._layer: TlsLayer | None = None
        self._handshake: asyncio.Future[None] | None = None
        self._identity: str | None = None
        self._heard = False
        self._transport: asyncio.Transport | None = None
        self._peer = "unknown peer"
        self._decoder = FrameDecoder()
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._reading_paused = False
        self._discarding = False
        self._closing = False
        self._cause: RemusError | OSError | str | None = None
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._send_lock = asyncio.Lock()

    @property
    def peer(self) -> str:
        """Address and port of the other side."""
        return self._peer

    @property
    def peer_ip(self) -> str:
        """IP address of the other side, IPv4 also where the socket is IPv6."""
        return parse_address(self._peer).ip

    @property
    def identity(self) -> str | None:
        """The host that the other side has proven to be; None without TLS."""
        return self._identity

    async def secure(self, layer: TlsLayer, identify: Callable[[TlsLayer], str]) -> None:
        """Put TLS under the frames. identify: names the other side by its certificate, or raises. No frame is read or
        written before that. Raises ConnectionLost and what identify does; the connection is of no use then."""
        if self._gone.is_set() or self._closing:
            raise self._error("TLS")
        self._layer = layer
        self._handshake = asyncio.get_running_loop().create_future()
        self._shake()
        self._resume_reading()
        try:
            await self._handshake
        except ssl.SSLError as error:
            raise translate(error, self._peer, "TLS") from error
        except OSError as error:
            raise ConnectionLost(
                f"{self._peer} ended the connection during the handshake",
                operation="TLS",
                hint="see whether its agent has a section [tls] too, and what its log says",
            ) from error
        self._identity = identify(layer)
        self._handshake = None
        self._decrypt()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connected socket."""
        self._transport = cast(asyncio.Transport, transport)
        self._peer = peer_name(transport.get_extra_info("peername"))
        # Not one byte may stay with the transport when send() returns.
        self._transport.set_write_buffer_limits(high=0, low=0)
        if self._encrypted:
            # Not now: the asyncio of Debian 12 (Python 3.11.2) begins to read after this call, whatever it was told. And before
            # the first read: what is asked for here comes first in the next round of the loop.
            asyncio.get_running_loop().call_soon(self._wait_for_layer)
        if self._on_made is not None:
            self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Memory for the next bytes."""
        if self._discarding or self._malformed() is not None:
            return memoryview(bytearray(SMALL_BYTES))
        return self._decoder.get_buffer(sizehint) if self._layer is None else self._layer.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes were received into the memory of get_buffer()."""
        if self._discarding or self._malformed() is not None:
            return
        if self._layer is None:
            self._take(nbytes)
            return
        self._layer.received(nbytes)
        if self._handshake is None:
            self._decrypt()
        else:
            self._shake()

    def _take(self, nbytes: int) -> None:
        """Bytes of frames are in the decoder's memory."""
        try:
            frames = self._decoder.buffer_updated(nbytes)
        except ReplicationError:
            frames = []
        self._heard = self._heard or bool(frames)
        for frame in frames:
            self._queue.append(frame)
            self._queued_bytes += frame.payload_bytes
        failed = self._malformed()
        if failed is not None:
            self._cause = failed
            self._abort()
        elif self._over_limit():
            self._pause_reading()
        if frames or self._cause is not None:
            self._arrived.set()

    def eof_received(self) -> bool:
        """The other side sends no more; the transport closes."""
        pending = self._decoder.pending
        if self._cause is None and not self._closing:
            self._cause = (
                f"the other side closed in the middle of a frame ({pending} bytes of it arrived)"
                if pending
                else "the other side closed the connection"
            )
            if not self._heard and (self._encrypted or self._on_made is None):
                self._cause += ", maybe since it refuses this host: the log of its agent says why"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._cause is None:
            self._cause = exc if isinstance(exc, OSError) else str(exc) if exc else "closed by this side"
        self._gone.set()
        self._writable.set()
        self._arrived.set()
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())

    def pause_writing(self) -> None:
        """The kernel did not take all bytes."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The kernel has taken all bytes."""
        self._writable.set()

    # ports.Connection

    async def send(self, frame: Frame) -> None:
        """Write a frame; returns when the kernel has all of it and its buffers may be used again.

        Raises ConnectionLost or PeerTimeout; ReplicationError for a frame that must not be sent. Cancelling
        it in the middle of a large frame ends the connection, because half a frame cannot be taken back.
        """
        parts = encode(frame)
        async with self._send_lock:
            if len(parts) == 1 or sum(map(len, parts)) <= SMALL_BYTES:
                await self._write(b"".join(parts))
                await self._flushed()
                return
            try:
                for piece in pieces(parts):
                    await self._write(piece)
                    await self._flushed()
            except asyncio.CancelledError:
                self._cause = self._cause or "sending was given up in the middle of a frame"
                self._abort()
                raise

    async def receive(self) -> Frame:
        """The next frame. Frames that arrived before the end are still delivered.

        Raises ConnectionLost or PeerTimeout at the end, ReplicationError for malformed bytes.
        """
        while not self._queue:
            if self._cause is not None and (self._gone.is_set() or self._malformed() is not None):
                raise self._error("receive")
            if self._closing:
                raise self._error("receive")
            self._arrived.clear()
            await self._arrived.wait()
        frame = self._queue.popleft()
        self._queued_bytes -= frame.payload_bytes
        if self._reading_paused and not self._over_limit(divisor=2):
            self._resume_reading()
        return frame

    async def close(self) -> None:
        """End the connection after what was sent is on its way; what still comes is thrown away. Safe to call
        twice."""
        transport = self._transport
        if transport is None or self._gone.is_set():
            return
        if not self._closing:
            self._take_no_more()
            # Closing a socket with unread bytes resets it, and the other side could lose the last frame we
            # sent. So: end our direction, and read until the other side ends its own.
            if not transport.is_closing():
                if self._layer is not None and self._identity is not None:
                    transport.write(self._layer.farewell())
                try:
                    transport.write_eof()
                except OSError:
                    # The kernel has given the connection up, by a reset or for silence, and the loop has not seen it: it does not
                    # look while reading is paused. What our callers have to end besides it must not depend on that.
                    transport.abort()
        try:
            async with asyncio.timeout(_LINGER):
                await self._gone.wait()
        except TimeoutError:
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()
            await self._gone.wait()

    def abort(self) -> None:
        """End the connection at once; nothing more is sent, and what has come is thrown away."""
        self._take_no_more()
        self._abort()

    # Parts

    def _take_no_more(self) -> None:
        """From now on whoever receives has an error."""
        self._closing = True
        self._cause = self._cause or "closed by this side"
        self._discarding = True
        self._queue.clear()
        self._queued_bytes = 0
        self._resume_reading()
        self._arrived.set()

    async def _write(self, data: Buffer) -> None:
        if self._transport is None or self._closing or self._gone.is_set() or self._transport.is_closing():
            raise self._error("send")
        if self._layer is None:
            self._transport.write(data)
            return
        try:
            encrypted = self._layer.encrypt(data)
        except ssl.SSLError as error:
            self._cause = error
            self._abort()
            raise self._error("send") from error
        self._transport.write(encrypted)

    async def _flushed(self) -> None:
        await self._writable.wait()
        if self._gone.is_set():
            raise self._error("send")

    def _shake(self) -> None:
        """Go on with the handshake."""
        if self._layer is None or self._handshake is None or self._handshake.done():
            return  # done, and what it has found is looked at; bytes of frames wait in the layer
        try:
            if self._layer.handshake():
                self._handshake.set_result(None)
        except ssl.SSLError as error:
            self._cause = error
            self._handshake.set_exception(error)
        self._answer()

    def _decrypt(self) -> None:
        """Hand on what can be decrypted."""
        layer = self._layer
        try:
            while layer is not None and not self._discarding and self._malformed() is None:
                nbytes = layer.decrypt(self._decoder.get_buffer(-1))
                if not nbytes:
                    break
                self._take(nbytes)
        except ssl.SSLError as error:
            self._cause = self._cause or error
            self._abort()
            self._arrived.set()
        self._answer()

    def _answer(self) -> None:
        """Send what TLS itself has to say: an alert has to arrive also where we close at once."""
        if self._layer is not None and self._transport is not None and not self._transport.is_closing():
            data = self._layer.pending()
            if data:
                self._transport.write(data)

    def _malformed(self) -> ReplicationError | None:
        return self._decoder.failed

    def _error(self, operation: str) -> RemusError:
        return translate(self._cause or "the connection is closed", self._peer, operation)

    def _over_limit(self, divisor: int = 1) -> bool:
        return self._queued_bytes >= QUEUE_BYTES // divisor or len(self._queue) >= QUEUE_FRAMES // divisor

    def _wait_for_layer(self) -> None:
        """Read nothing until `secure` is called."""
        if self._layer is None and not self._closing:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None and self._reading_paused:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
