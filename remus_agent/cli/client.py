"""One connection to the agent's control socket, without an event loop: the command line starts fast."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final

from remus_agent.errors import ConfigError, ProtocolError, RemusError
from remus_agent.protocol import control

DEFAULT_SOCKET: Final = Path("/run/remus/agent.sock")
SOCKET_VARIABLE: Final = "REMUS_SOCKET"
_READ_BYTES: Final = 256 * 1024

OnProgress = Callable[[control.Progress], None]


class AgentUnavailable(RemusError):
    """No agent answers on this host's control socket."""

    code: ClassVar[str] = "agent-unavailable"
    exit_code: ClassVar[int] = 12


class AgentError(RemusError):
    """The agent answered with an error. failure: as it was sent; status: what the process should end with."""

    def __init__(self, failure: control.Failure) -> None:
        super().__init__(
            failure.message,
            operation=failure.operation,
            domain=failure.domain,
            epoch=failure.epoch,
            left=failure.left,
            hint=failure.hint,
        )
        self.failure = failure
        self.status = control.exit_codes().get(failure.code, RemusError.exit_code)

    def as_dict(self) -> dict[str, Any]:
        """The error as the agent sent it."""
        return super().as_dict() | {"code": self.failure.code}


def socket_path(given: str | None = None) -> Path:
    """The control socket to use: the one given, else REMUS_SOCKET of the environment, else the usual one."""
    return Path(given or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)


class Client:
    """Asks the agent one thing after the other. Raises AgentUnavailable, AgentError, ProtocolError, and ConfigError for what no
    request can hold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._splitter = control.LineSplitter(control.ANSWER_LIMIT)
        self._lines: list[bytes] = []
        self._last_id = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout: float = 30.0,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Ask, and wait at most timeout seconds for the result. The agent carries on when we stop waiting."""
        deadline = time.monotonic() + timeout
        self._last_id += 1
        request = control.Request(version=control.VERSION, id=self._last_id, method=method, params=params or {})
        try:
            line = control.encode_request(request)
        except UnicodeEncodeError:
            raise ConfigError(
                "an argument is not UTF-8 text", operation=method, left="nothing was asked of the agent"
            ) from None
        try:
            sock = self._connected(deadline)
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.sendall(line)
            while True:
                answer = control.decode_answer(self._line(sock, deadline))
                if answer.id not in {self._last_id, None}:
                    continue
                if answer.error is not None:
                    raise AgentError(answer.error)
                if answer.result is not None:
                    return answer.result
                if answer.progress is not None and on_progress is not None:
                    on_progress(answer.progress)
        except TimeoutError:
            self.close()
            raise AgentUnavailable(
                f"the agent did not finish within {timeout:g} s",
                operation=method,
                left="it carries on with the request",
                hint="ask for the status of the domain",
            ) from None
        except OSError as error:
            self.close()
            raise self._unavailable(error, method) from error
        except ProtocolError:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. The next call connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._splitter = control.LineSplitter(control.ANSWER_LIMIT)
        self._lines = []

    def _connected(self, deadline: float) -> socket.socket:
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.connect(str(self._path))
            except OSError:
                sock.close()
                raise
            self._socket = sock
        return self._socket

    def _line(self, sock: socket.socket, deadline: float) -> bytes:
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            data = sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "the agent closed the connection")
            self._lines = self._splitter.feed(data)
        return self._lines.pop(0)

    def _unavailable(self, error: OSError, method: str) -> AgentUnavailable:
        started = "start the agent on this host: systemctl start remus-agent"
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return AgentUnavailable(
                "the agent closed the connection before it answered",
                operation=method,
                left="the request may be carried out in part",
                hint="see the agent's log: journalctl -u remus-agent",
            )
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return AgentUnavailable(f"no agent answers on {self._path}", operation=method, hint=started)
        if isinstance(error, PermissionError):
            return AgentUnavailable(
                f"no permission to use {self._path}",
                operation=method,
                hint="run this as root or as a member of the group remus-admin",
            )
        text = os.strerror(error.errno) if error.errno else str(error)
        return AgentUnavailable(f"cannot use {self._path}: {text}", operation=method, hint=started)
