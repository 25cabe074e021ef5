"""QEMU's monitor protocol as far as a checkpoint needs it: one line, one command at a time, with file descriptors.

Written here because it is spoken while a guest is down, and by the supervisor, which is to stay small: what there is
for Python brings an event loop of its own. Source: QEMU's docs/interop/qmp-spec.rst."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_MESSAGE_MAX: Final = 1 << 20
_READ: Final = 1 << 16


class QmpError(Exception):
    """QEMU is not there, does not answer, or refuses; the text says which."""


class Qmp:
    """One connection. Blocking; use it from one thread. patience: seconds for one command."""

    def __init__(self, path: Path, patience: float) -> None:
        """Connect and negotiate. Raises QmpError."""
        self._patience = patience
        self._pending = b""
        self._number = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with self._in_time(""):
                self._socket.connect(str(path))
                if "QMP" not in self._message():
                    raise QmpError("it does not greet like QEMU")
            self.execute("qmp_capabilities")
        except QmpError:
            self.close()
            raise

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, fds: Sequence[int] = ()) -> Any:
        """Run one command and return what it returns. fds: sent along (SCM_RIGHTS). Raises QmpError."""
        self._number += 1
        request = {"execute": command, "id": self._number} | ({"arguments": dict(arguments)} if arguments else {})
        with self._in_time(f"{command}: "):
            # One byte of an ordinary message must carry the descriptors; a request is far below what one send takes.
            socket.send_fds(self._socket, [json.dumps(request).encode() + b"\n"], fds)
            while True:
                answer = self._message()
                if answer.get("id") != self._number:
                    continue  # an event, or the late answer to a command that was given up
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")

    def close(self) -> None:
        """Safe to call twice."""
        self._socket.close()

    @contextmanager
    def _in_time(self, what: str) -> Iterator[None]:
        """All of it within the patience. what: begins the message of what goes wrong."""
        self._deadline = time.monotonic() + self._patience
        self._socket.settimeout(self._patience)
        try:
            yield
        except TimeoutError:
            raise QmpError(f"{what}no answer within {self._patience:g} s") from None
        except OSError as error:
            raise QmpError(f"{what}{error.strerror or error}") from error

    def _message(self) -> dict[str, Any]:
        """The next message, an event as well."""
        while b"\n" not in self._pending:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(_READ)
            if not data:
                raise QmpError("it hung up")
            self._pending += data
            if len(self._pending) > _MESSAGE_MAX:
                raise QmpError(f"a message of more than {_MESSAGE_MAX} bytes")
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpError(f"not JSON: {line[:80]!r}") from error
        if not isinstance(message, dict):
            raise QmpError(f"not an object: {line[:80]!r}")
        return message
