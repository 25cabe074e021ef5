"""A small blocking NBD server on a Unix socket, over memory: what real clients are let loose on. One client at a time, as at
a write tap; the next one may wait."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path
from types import TracebackType

from remus_agent.errors import NbdError
from remus_agent.protocol.nbd.messages import (
    Disconnect,
    Export,
    Flush,
    Read,
    Request,
    Send,
    Write,
    WriteZeroes,
    read_reply,
    reply,
)
from remus_agent.protocol.nbd.server import NbdServer
from remus_agent.protocol.replication.frames import Buffer

TRIMMED = 0xDD
"""What trimmed bytes are set to: their content is undefined, and a client that relies on zeroes shall notice."""


class MemoryServer:
    """Serves while it is entered. content: the disk. seen: all requests of all clients, in order. refused: the errors with
    which connections ended. bad: from this offset on, reads and writes fail with EIO."""

    def __init__(self, folder: Path, export: Export) -> None:
        self.export = export
        self.path = folder / "nbd.sock"
        self.content = bytearray(export.size)
        self.seen: list[Request] = []
        self.refused: list[NbdError] = []
        self.bad = export.size
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._connection: socket.socket | None = None
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._failure: Exception | None = None

    @property
    def uri(self) -> str:
        """For tools that take one."""
        return f"nbd+unix:///{self.export.name}?socket={self.path}"

    def __enter__(self) -> MemoryServer:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._listener, self._connection):
            if end is not None:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()
        if value is None and self._failure is not None:
            raise self._failure

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._connection = connection
                self._idle.clear()
                try:
                    self._serve(connection)
                except NbdError as error:
                    self.refused.append(error)
                except ConnectionError:
                    pass  # the client is gone
                except Exception as error:  # noqa: BLE001 - raised where the server is left
                    self._failure = error
                self._connection = None
                self._idle.set()

    def settle(self) -> None:
        """Wait until all that the client which has just ended sent is carried out."""
        assert self._idle.wait(10)

    def _serve(self, connection: socket.socket) -> None:
        server = NbdServer(self.export)
        connection.sendall(server.greeting)
        while count := connection.recv_into(server.get_buffer()):
            for event in server.buffer_updated(count):
                if isinstance(event, Send):
                    connection.sendall(event.data)
                    continue
                self.seen.append(event)
                if isinstance(event, Disconnect):
                    return
                for part in self._carry_out(event):
                    connection.sendall(part)

    def _carry_out(self, request: Request) -> list[Buffer]:
        assert not isinstance(request, Disconnect)
        if isinstance(request, Flush):
            return [reply(request.handle)]
        end = request.offset + request.length
        if end > self.bad:
            return [reply(request.handle, errno.EIO)]
        if isinstance(request, Read):
            return read_reply(request, memoryview(self.content)[request.offset : end])
        if isinstance(request, Write):
            self.content[request.offset : end] = request.data
        elif isinstance(request, WriteZeroes):
            self.content[request.offset : end] = bytes(request.length)
        else:
            self.content[request.offset : end] = bytes([TRIMMED]) * request.length
        return [reply(request.handle)]
