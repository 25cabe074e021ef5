"""A blocking connection between agents for scripts that stand in for one of them on a lab host: plain TCP, or TLS with that
host's own certificate where its agent's configuration has [tls]. No event loop: a script can say what no agent would."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path
from types import TracebackType

from remus_agent.adapters.transport.tls import Own, of_config
from remus_agent.adapters.transport.tls_layer import RECEIVE_BYTES, TlsLayer
from remus_agent.config import load

CONFIG = "/etc/remus/agent.toml"
"""Of the agent of this host."""


class PeerSocket:
    """One connection; may be written to by one thread while another one reads. layer: None for plain TCP. What TLS
    refuses (a certificate of another CA, for one) raises ssl.SSLError, which no script takes for an answer."""

    def __init__(self, connection: socket.socket, layer: TlsLayer | None) -> None:
        self._socket = connection
        self._layer = layer
        self._lock = threading.Lock()
        if layer is not None:
            self._shake(layer)

    def send(self, data: bytes) -> None:
        """Write all of it. Raises ConnectionError, TimeoutError."""
        with self._lock:
            self._socket.sendall(data if self._layer is None else self._layer.encrypt(data))

    def receive(self) -> bytes:
        """Some bytes; empty when the other side sends no more. Raises ConnectionError, TimeoutError."""
        if self._layer is None:
            return self._socket.recv(RECEIVE_BYTES)
        while True:
            with self._lock:
                clear = self._decrypt(self._layer)  # first what came with the end of the handshake
            if clear:
                return clear
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                return b""
            with self._lock:
                _put(self._layer, data)

    def end(self) -> None:
        """Say that nothing more is sent. What comes can still be received. Raises ConnectionError, TimeoutError."""
        with self._lock:
            if self._layer is not None:
                self._socket.sendall(self._layer.farewell())
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
                raise ConnectionResetError("the other side has reset the connection") from error

    def __enter__(self) -> PeerSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _shake(self, layer: TlsLayer) -> None:
        done = False
        while not done:
            try:
                done = layer.handshake()
            finally:
                self._socket.sendall(layer.pending())
            if not done:
                data = self._socket.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionResetError("the other side ended the connection during the TLS handshake")
                _put(layer, data)

    def _decrypt(self, layer: TlsLayer) -> bytes:
        clear = bytearray(RECEIVE_BYTES)  # clear bytes are fewer than encrypted ones: nothing whole stays behind
        count = layer.decrypt(memoryview(clear))
        answer = layer.pending()
        if answer:
            self._socket.sendall(answer)
        return bytes(clear[:count])


def dial(address: str, port: int, timeout: float, config: str = CONFIG) -> PeerSocket:
    """Connect to an agent as the agent of this host would. timeout: seconds, also for what follows."""
    connection = socket.create_connection((address, port), timeout=timeout)
    own = _own(config)
    return _secured(connection, TlsLayer(own.client, server=False) if own else None)


def accept(server: socket.socket, config: str = CONFIG) -> PeerSocket:
    """The next connection of an agent, taken in as the agent of this host would."""
    connection, _ = server.accept()
    own = _own(config)
    return _secured(connection, TlsLayer(own.server, server=True) if own else None)


def _own(config: str) -> Own | None:
    tls = of_config(load(Path(config)))
    return None if tls is None else tls.own()


def _secured(connection: socket.socket, layer: TlsLayer | None) -> PeerSocket:
    try:
        return PeerSocket(connection, layer)
    except BaseException:
        connection.close()
        raise


def _put(layer: TlsLayer, data: bytes) -> None:
    layer.get_buffer()[: len(data)] = data
    layer.received(len(data))
