"""The control socket: a Unix socket on which `remusctl` and the Ansible modules talk to the agent.

Who may connect is who may write to the socket: root, and the group `remus-admin` where it exists. A request
that was begun is carried out also when its client goes away.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from remus_agent.errors import ConfigError, ProtocolError, RefusedError, RemusError
from remus_agent.protocol import control

log = logging.getLogger(__name__)

GROUP: Final = "remus-admin"
MODE: Final = 0o660
MAX_RUNNING: Final = 32
"""Requests of one client at the same time."""
_READ_BYTES: Final = 64 * 1024
_PROGRESS_BACKLOG: Final = 256 * 1024
"""Unread bytes of a client from which on its progress lines are left out."""
_LAST_WORDS: Final = 1.0
"""Seconds that clients have to read the last answers when the agent stops."""
_CREDENTIALS: Final = struct.Struct("3i")


class ReportProgress(Protocol):
    """Tells the client how far its request is. Never blocks, never fails; may be called from the event loop
    only."""

    def __call__(self, phase: str, done: int = 0, total: int = 0, unit: str = "", message: str = "") -> None: ...


Handler = Callable[[dict[str, Any], ReportProgress], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Answers requests with the handlers of a mapping method -> `async (params, progress) -> result`."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler], *, group: str = GROUP) -> None:
        self._path = path
        self._handlers = dict(handlers)
        self._group = group
        self._server: asyncio.Server | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._clients: dict[asyncio.Task[None], _Client] = {}
        self._inode: int | None = None

    async def start(self) -> None:
        """Listen. A socket file that a dead agent left is replaced. Raises ConfigError when another agent
        answers on it or the path cannot be used."""
        try:
            sock = self._bind()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._path}: {os.strerror(error.errno) if error.errno else error}",
                operation="control socket",
                hint="see paths.run in the configuration; the agent must run as root",
            ) from error
        self._server = await asyncio.start_unix_server(self._connected, sock=sock)

    async def close(self, grace: float = 5.0) -> None:
        """Accept no more, give requests under way grace seconds, then cancel them. Removes the socket
        file."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._remove_file()
        if self._requests:
            await asyncio.wait(self._requests, timeout=grace)
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        # Clients end by their connections: Python 3.11 logs a cancelled connection task as an error.
        clients = dict(self._clients)
        for client in clients.values():
            client.close()
        if clients:
            _, unread = await asyncio.wait(clients, timeout=_LAST_WORDS)
            for task in unread:
                clients[task].abort()

    # The socket file

    def _bind(self) -> socket.socket:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._check_free()
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # Nobody can connect before listen(), so the owner and mode are right from the first moment on.
            sock.bind(str(temporary))
            gid = self._gid()
            if gid is not None:
                os.chown(temporary, -1, gid)
            temporary.chmod(MODE)
            sock.listen(64)
            temporary.rename(self._path)
            self._inode = self._path.lstat().st_ino
        except OSError:
            sock.close()
            temporary.unlink(missing_ok=True)
            raise
        return sock

    def _gid(self) -> int | None:
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            return None

    def _check_free(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ConfigError(
                f"{self._path} is not a socket",
                operation="control socket",
                left="the file was not changed",
                hint="move it away",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except OSError as error:
                if error.errno in {errno.ECONNREFUSED, errno.ENOENT}:
                    return  # left by an agent that is dead
                if error.errno != errno.EAGAIN:  # EAGAIN: somebody listens, with a full backlog
                    raise
        raise ConfigError(
            f"another agent answers on {self._path}",
            operation="control socket",
            hint="only one agent can run on a host; see systemctl status remus-agent",
        )

    def _remove_file(self) -> None:
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except OSError as error:
            log.debug("socket file %s: %s", self._path, error)

    # Clients

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        task = asyncio.current_task()
        if task is not None:
            self._clients[task] = client
            task.add_done_callback(self._clients.pop)
        splitter = control.LineSplitter(control.REQUEST_LIMIT)
        try:
            while data := await reader.read(_READ_BYTES):
                for line in splitter.feed(data):
                    self._take(line, client)
            await client.idle()
        except ProtocolError as error:
            client.write(control.encode_error(None, error))
            await client.idle()
        except (ConnectionError, TimeoutError) as error:
            log.debug("control client went away: %s", error)
        finally:
            client.close()

    def _take(self, line: bytes, client: _Client) -> None:
        try:
            request = control.decode_request(line)
            if client.running >= MAX_RUNNING:
                raise RefusedError(f"{MAX_RUNNING} requests of this client are under way", hint="wait for one")
            handler = self._handlers.get(request.method)
            if handler is None:
                raise ProtocolError(
                    f"unknown method {request.method!r}",
                    operation="control socket",
                    hint=f"methods: {', '.join(sorted(self._handlers))}",
                )
        except RemusError as error:
            client.write(control.encode_error(control.request_id(line), error))
            return
        log.debug("request %s of %s", request.method, client.who)
        task = asyncio.get_running_loop().create_task(
            self._run(request, handler, client), name=f"control {request.method}"
        )
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        client.begin(task)

    async def _run(self, request: control.Request, handler: Handler, client: _Client) -> None:
        began = time.monotonic()

        def progress(phase: str, done: int = 0, total: int = 0, unit: str = "", message: str = "") -> None:
            if client.backlog < _PROGRESS_BACKLOG:
                elapsed = round(time.monotonic() - began, 3)
                step = control.Progress(
                    phase=phase, done=done, total=total, unit=unit, message=message, elapsed=elapsed
                )
                client.write(control.encode_progress(request.id, step))

        try:
            result = await handler(request.params, progress)
            line = control.encode_result(request.id, result)
        except RemusError as error:
            log.info("request %s of %s failed: %s", request.method, client.who, error)
            line = control.encode_error(request.id, error)
        except asyncio.CancelledError:
            stopping = RefusedError(
                "the agent is stopping",
                operation=request.method,
                left="the request may be carried out in part",
                hint="ask for the status when the agent runs again",
            )
            client.write(control.encode_error(request.id, stopping))
            raise
        except Exception:
            log.exception("request %s of %s failed in an unexpected way", request.method, client.who)
            line = control.encode_internal_error(request.id)
        client.write(line)


class _Client:
    """One connected client. Writing to one that went away does nothing."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()
        self.who = _who(writer.get_extra_info("socket"))

    @property
    def running(self) -> int:
        return len(self._tasks)

    @property
    def backlog(self) -> int:
        """Bytes that the client has not read."""
        return self._writer.transport.get_write_buffer_size()

    def begin(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def write(self, line: bytes) -> None:
        if not self._writer.transport.is_closing():
            self._writer.write(line)

    async def idle(self) -> None:
        """The client sends no more (it may still read): wait for its requests, or until it is gone
        entirely."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


def _who(sock: Any) -> str:
    """The client's process, for the log."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return "an unknown process"
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return f"pid {pid} uid {uid}"
