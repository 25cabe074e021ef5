"""The thread that serves one disk's writes: nbd requests from the kernel into the disk's log.

A write is answered once it is in the log, so the guest never hears of one that could be missing in its epoch. Reads are
refused: md reads from the tap's leg only when the local device has failed, and what the backup holds may be older.

The thread does nothing that could wait for a disk: its memory is locked with the agent's, and the kernel is told that
it is part of writing back (PR_SET_IO_FLUSHER), so that an allocation never waits for the very writes it serves.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from remus_agent.errors import DiskError, NbdError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.tap_log import TapLog
from remus_agent.protocol.nbd.constants import REPLY, REPLY_MAGIC
from remus_agent.protocol.nbd.messages import (
    Disconnect,
    Event,
    Export,
    Flush,
    Read,
    Send,
    Trim,
    Write,
    WriteZeroes,
    reply,
)
from remus_agent.protocol.nbd.server import NbdServer

log = logging.getLogger(__name__)

_PR_SET_IO_FLUSHER: Final = 57
_SLOWEST: Final = 0.01
"""Seconds between two batches of requests when the log is full. The kernel has up to 128 requests under way, each of which may
come alone, and the last one must not wait as long as the kernel waits for a tap."""


class TapServer:
    """Serves one log on a Unix socket, one client after the other.

    lock: held around every call of the log. logged: called in this thread after changes were logged, with the bytes that
    wait, or None when the log has overflowed. gone: called in this thread when a client is gone that was through with the
    handshake. That includes every client to which a change was refused: md has failed its leg then and sends no more.
    """

    def __init__(
        self,
        path: Path,
        export: Export,
        tap_log: TapLog,
        lock: threading.Lock,
        logged: Callable[[int | None], None],
        gone: Callable[[], None],
    ) -> None:
        self._path = path
        self._export = export
        self._log = tap_log
        self._lock = lock
        self._logged = logged
        self._gone = gone
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._pressure = 0.0
        self._thread = threading.Thread(target=self._run, name=f"tap {export.name}", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the kernel still holds its end, asked of the socket itself: the thread may not have seen the end yet, and the
        kernel closes its end before it fails what is under way."""
        client = self._client
        if client is None:
            return False
        look = select.poll()
        try:
            look.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
            return not look.poll(0)
        except (OSError, ValueError):  # closed meanwhile
            return False

    def start(self) -> None:
        """Listen; a client can connect when this returns. Raises DiskError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._listener.listen(2)
        except OSError as error:
            raise DiskError(f"cannot listen at {self._path}: {error.strerror}", operation="start the tap") from error
        self._thread.start()

    def stop(self) -> None:
        """End the client's connection and the thread. Safe to call twice."""
        self._stopping.set()
        for side in (self._listener, self._client):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        if self._listener is not None:
            self._listener.close()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
            log.warning(
                "%s: the kernel refuses PR_SET_IO_FLUSHER: %s", self._export.name, os.strerror(ctypes.get_errno())
            )
        assert self._listener is not None  # noqa: S101 - made by start
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._client = client
                begun = self._talk(client)
                self._client = None
            if begun and not self._stopping.is_set():
                self._gone()

    def _talk(self, client: socket.socket) -> bool:
        """Serve one client to its end, whatever that is. Returns whether it was through with the handshake."""
        server = NbdServer(self._export)
        try:
            self._serve(client, server)
        except (NbdError, DiskError) as error:
            log.error("%s: %s", self._export.name, error)
        except OSError as error:
            log.info("%s: the kernel's end is gone: %s", self._export.name, error.strerror)
        except Exception:
            log.critical("%s: its tap ended by a defect; the guest's disk goes on", self._export.name, exc_info=True)
        return server.negotiated

    def _serve(self, client: socket.socket, server: NbdServer) -> None:
        client.sendall(server.greeting)
        changes: list[tuple[int, Extent]] = []
        while not self._stopping.is_set():
            count = client.recv_into(server.get_buffer())
            if count == 0:
                return
            answers, refused = bytearray(), False
            for event in server.buffer_updated(count):
                if (change := _change_of(event)) is not None:
                    changes.append(change)
                    continue
                answers += self._log_all(changes)  # before what follows them
                if isinstance(event, Disconnect):
                    return
                answers += event.data if isinstance(event, Send) else _answer(event)
                refused = refused or (isinstance(event, Send) and _refuses(event.data))
            answers += self._log_all(changes)
            if answers:
                client.sendall(answers)
            if self._pressure > 0:
                self._stopping.wait(self._pressure * _SLOWEST)
                self._pressure = 0.0
            if refused:
                raise NbdError(
                    "request", expected="one within the disk", found="one that was refused", operation="serve a tap"
                )

    def _log_all(self, changes: list[tuple[int, Extent]]) -> bytes:
        """Log what came with one read, under one lock; the replies. Empties the list."""
        if not changes:
            return b""
        tap_log = self._log
        with self._lock:
            for _, extent in changes:
                tap_log.write(extent)
            waiting = None if tap_log.overflowed else tap_log.waiting
            self._pressure = tap_log.pressure
        self._logged(waiting)
        answers = b"".join([reply(handle) for handle, _ in changes])
        changes.clear()
        return answers


def _change_of(event: Event) -> tuple[int, Extent] | None:
    """The handle of a request that changes the disk, and what it changes; None for any other event."""
    match event:
        case Write():
            return event.handle, Extent(Op.WRITE, event.offset, event.length, event.data)
        case WriteZeroes():
            return event.handle, Extent(Op.ZERO, event.offset, event.length)
        case Trim():
            return event.handle, Extent(Op.DISCARD, event.offset, event.length)
        case _:
            return None


def _answer(event: Event) -> bytes:
    """The reply to what changes nothing."""
    match event:
        case Flush():
            return reply(event.handle)  # nothing outside can tell before the epoch is committed, and then it is durable
        case Read():
            return reply(event.handle, errno.EIO)
        case _:
            raise NbdError("request", expected="one that is known", found=str(event), operation="serve a tap")


def _refuses(data: bytes) -> bool:
    """Whether it is a reply, not an answer of the handshake, with an error."""
    return len(data) == REPLY.size and REPLY.unpack(data)[0] == REPLY_MAGIC and REPLY.unpack(data)[1] != 0
