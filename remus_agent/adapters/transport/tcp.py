"""Frames over TCP.

Received bytes go from the socket straight into the payload of their frame. `send` returns when the kernel has
taken all bytes of the frame, so the caller may then use the memory again; the kernel's socket buffer is all
that is queued.

TLS: give an `ssl.SSLContext` to `TcpConnector` and `serve`; nothing else changes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final, cast

from remus_agent.adapters.transport.sockets import SMALL_BYTES, peer_name, pieces, translate, tune
from remus_agent.config import Address, parse_address
from remus_agent.errors import ConfigError, PeerTimeout, RemusError, ReplicationError
from remus_agent.protocol.replication.frames import Buffer, Frame, FrameDecoder, encode

log = logging.getLogger(__name__)

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Received payload bytes that wait for receive() before reading pauses."""
QUEUE_FRAMES: Final = 256
_LINGER: Final = 1.0
"""Seconds that close() waits for the other side to read what was sent."""

OnConnection = Callable[["TcpConnection"], Awaitable[None]]


class TcpConnection(asyncio.BufferedProtocol):
    """`ports.Connection` over one TCP connection; made by `TcpConnector` and `serve`."""

    def __init__(self, on_made: Callable[[TcpConnection], None] | None = None) -> None:
        self._on_made = on_made
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

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connected socket."""
        self._transport = cast(asyncio.Transport, transport)
        self._peer = peer_name(transport.get_extra_info("peername"))
        # Not one byte may stay with the transport when send() returns. (asyncio's TLS pauses at its limit already, so
        # that 0 would pause it for ever; it holds encrypted copies anyway.)
        encrypted = transport.get_extra_info("sslcontext") is not None
        self._transport.set_write_buffer_limits(high=1 if encrypted else 0, low=0)
        if self._on_made is not None:
            self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Memory for the next bytes."""
        if self._discarding or self._malformed() is not None:
            return memoryview(bytearray(SMALL_BYTES))
        return self._decoder.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes were received into the memory of get_buffer()."""
        if self._discarding or self._malformed() is not None:
            return
        try:
            frames = self._decoder.buffer_updated(nbytes)
        except ReplicationError:
            frames = []
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
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._cause is None:
            self._cause = exc if isinstance(exc, OSError) else str(exc) if exc else "closed by this side"
        self._gone.set()
        self._writable.set()
        self._arrived.set()

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
            self._closing = True
            self._cause = self._cause or "closed by this side"
            self._discarding = True
            self._queue.clear()
            self._queued_bytes = 0
            self._resume_reading()
            self._arrived.set()
            # Closing a socket with unread bytes resets it, and the other side could lose the last frame we
            # sent. So: end our direction, and read until the other side ends its own.
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
            else:
                transport.close()
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
        """End the connection at once; nothing more is sent."""
        self._closing = True
        self._cause = self._cause or "closed by this side"
        self._abort()

    # Parts

    async def _write(self, data: Buffer) -> None:
        if self._transport is None or self._closing or self._gone.is_set() or self._transport.is_closing():
            raise self._error("send")
        self._transport.write(data)

    async def _flushed(self) -> None:
        await self._writable.wait()
        if self._gone.is_set():
            raise self._error("send")

    def _malformed(self) -> ReplicationError | None:
        return self._decoder.failed

    def _error(self, operation: str) -> RemusError:
        return translate(self._cause or "the connection is closed", self._peer, operation)

    def _over_limit(self, divisor: int = 1) -> bool:
        return self._queued_bytes >= QUEUE_BYTES // divisor or len(self._queue) >= QUEUE_FRAMES // divisor

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


class TcpConnector:
    """`ports.Connector`. silence: seconds without any answer of the peer's kernel before a connection is
    given up. source: local IP to connect from (peers accept only the addresses they know)."""

    def __init__(self, *, silence: float, source: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._silence = silence
        self._source = source
        self._tls = tls

    async def connect(self, address: str, timeout: float) -> TcpConnection:
        """Connect to `ADDRESS:PORT` within timeout seconds. Raises ConnectionLost, PeerTimeout or
        ConfigError."""
        target = parse_address(address)
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in target.ip else socket.AF_INET
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(timeout):
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                tune(sock, self._silence)
                if self._source is not None:
                    sock.bind((self._source, 0))
                await loop.sock_connect(sock, (target.ip, target.port))
                _, connection = await loop.create_connection(
                    TcpConnection,
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=target.ip if self._tls else None,
                )
                sock = None
                return connection
        except TimeoutError as error:
            raise PeerTimeout(
                f"no answer from {target} within {timeout:g} s",
                operation="connect",
                hint="see whether the host runs and the replication network reaches it",
            ) from error
        except OSError as error:
            raise translate(error, str(target), "connect") from error
        finally:
            if sock is not None:
                sock.close()


class Listener:
    """A listening socket and the handlers of its connections; made by `serve`."""

    def __init__(self, allowed: Collection[str], on_connection: OnConnection) -> None:
        self._allowed = frozenset(str(ipaddress.ip_address(ip)) for ip in allowed)
        self._on_connection = on_connection
        self._server: asyncio.Server | None = None
        self._handlers: dict[asyncio.Task[None], TcpConnection] = {}
        self._strangers: set[str] = set()

    @property
    def address(self) -> Address:
        """Where it listens (the port is known also when it was asked for as 0)."""
        if self._server is None or not self._server.sockets:
            raise ConfigError("the listener is closed", operation="listen")
        name = self._server.sockets[0].getsockname()
        return Address(str(name[0]), int(name[1]))

    async def close(self) -> None:
        """Accept no more, cancel the handlers and close their connections."""
        if self._server is not None:
            self._server.close()
        handlers = dict(self._handlers)
        for task in handlers:
            task.cancel()
        if handlers:
            await asyncio.wait(handlers)

    def start(self, server: asyncio.Server) -> None:
        """Take over the listening server."""
        self._server = server

    def made(self, connection: TcpConnection) -> None:
        """A connection was accepted."""
        ip = connection.peer_ip
        if ip not in self._allowed:
            connection.abort()
            if ip not in self._strangers and len(self._strangers) < QUEUE_FRAMES:
                self._strangers.add(ip)
                log.warning("refused a connection from %s: not a configured peer (logged once)", ip)
            return
        task = asyncio.get_running_loop().create_task(self._handle(connection), name=f"peer {connection.peer}")
        self._handlers[task] = connection
        task.add_done_callback(self._handlers.pop)

    async def _handle(self, connection: TcpConnection) -> None:
        try:
            await self._on_connection(connection)
        except RemusError as error:
            log.warning("connection from %s ended: %s", connection.peer, error)
        except Exception:
            log.exception("handler of the connection from %s failed", connection.peer)
        finally:
            await connection.close()


async def serve(
    listen_address: str,
    allowed_peers: Collection[str],
    on_connection: OnConnection,
    *,
    silence: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> Listener:
    """Accept connections on `ADDRESS:PORT` from the IPs in allowed_peers; all others are closed at once.

    Each connection is given to on_connection in a task of its own and closed when that returns. Port 0 is
    allowed here. Raises ConfigError when the address cannot be used.
    """
    ip, _, port = listen_address.rpartition(":")
    target = Address(ip.strip("[]"), 0) if port == "0" else parse_address(listen_address)
    loop = asyncio.get_running_loop()
    listener = Listener(allowed_peers, on_connection)
    sock = socket.socket(
        socket.AF_INET6 if ":" in target.ip else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    )
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tune(sock, silence)  # accepted sockets inherit all of it
        sock.bind((target.ip, target.port))
        server = await loop.create_server(lambda: TcpConnection(listener.made), sock=sock, ssl=tls)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {target}: {os.strerror(error.errno) if error.errno else error}",
            operation="listen",
            hint="see replication.listen in the configuration, and whether another agent runs",
        ) from error
    listener.start(server)
    return listener
