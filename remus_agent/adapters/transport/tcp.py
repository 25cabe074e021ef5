"""Agent-to-agent connections over TCP: connect, and accept from configured peers. See `connection` for what they do.

Give a `tls.MutualTls` to `TcpConnector` and `serve` and the connections are encrypted, and both sides know each other by
their certificates before a frame is sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection

from remus_agent.adapters.transport.connection import QUEUE_FRAMES, TcpConnection
from remus_agent.adapters.transport.sockets import translate, tune
from remus_agent.adapters.transport.tls import MutualTls
from remus_agent.addresses import Address, parse_address
from remus_agent.errors import ConfigError, PeerTimeout, RemusError

log = logging.getLogger(__name__)

OnConnection = Callable[[TcpConnection], Awaitable[None]]


class TcpConnector:
    """`ports.Connector`. silence: seconds without any answer of the peer's kernel before a connection is
    given up. source: local IP to connect from (peers accept only the addresses they know). tls: None for plain TCP."""

    def __init__(self, *, silence: float, source: str | None = None, tls: MutualTls | None = None) -> None:
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
                    lambda: TcpConnection(encrypted=self._tls is not None), sock=sock
                )
                sock = None
                if self._tls is not None:
                    await self._secure(self._tls, connection, str(target))
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

    async def _secure(self, tls: MutualTls, connection: TcpConnection, address: str) -> None:
        try:
            await tls.connect(connection, address)
        except RemusError:
            await connection.close()  # not abort(): what TLS has said to the other side has to arrive
            raise
        except BaseException:
            connection.abort()
            raise


class Listener:
    """A listening socket and the handlers of its connections; made by `serve`."""

    def __init__(
        self, allowed: Collection[str], on_connection: OnConnection, tls: MutualTls | None, silence: float
    ) -> None:
        self._tls = tls
        self._silence = silence
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
            if self._tls is not None:
                await self._tls.accept(connection, self._silence)
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
    tls: MutualTls | None = None,
) -> Listener:
    """Accept connections on `ADDRESS:PORT` from the IPs in allowed_peers; all others are closed at once.

    Each connection is given to on_connection in a task of its own and closed when that returns. Port 0 is
    allowed here. Raises ConfigError when the address cannot be used.
    """
    ip, _, port = listen_address.rpartition(":")
    target = Address(ip.strip("[]"), 0) if port == "0" else parse_address(listen_address)
    loop = asyncio.get_running_loop()
    listener = Listener(allowed_peers, on_connection, tls, silence)
    sock = socket.socket(
        socket.AF_INET6 if ":" in target.ip else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    )
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tune(sock, silence)  # accepted sockets inherit all of it
        sock.bind((target.ip, target.port))
        server = await loop.create_server(lambda: TcpConnection(listener.made, encrypted=tls is not None), sock=sock)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {target}: {os.strerror(error.errno) if error.errno else error}",
            operation="listen",
            hint="see replication.listen in the configuration, and whether another agent runs",
        ) from error
    listener.start(server)
    return listener
