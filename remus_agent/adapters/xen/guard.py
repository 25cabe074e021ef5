"""The agent's line to the supervisor (`remus_agent.supervisor`), which resumes a guest that a killed agent
left suspended, or that goes down when its agent has stopped waiting for it.

One JSON object a line: `{"watch": domid, "uuid": uuid}` or `{"unwatch": domid}`, each answered by `{"ok":
true}` or `{"ok": false, "error": text}`. What a connection watches is what the supervisor looks after when
the connection ends."""

from __future__ import annotations

import json
import logging
import select
import socket
import time
from pathlib import Path
from typing import Any, Final

from remus_agent.errors import HypervisorError, RefusedError

log = logging.getLogger(__name__)

_ANSWER: Final = 5.0
"""Seconds for an answer."""
_AGAIN: Final = 3.0
"""Seconds to reach a supervisor that is being restarted."""


def is_there(path: Path) -> bool:
    """Whether a supervisor takes connections at this socket. Returns at once: one that takes none counts as away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as line:
        try:
            line.connect(str(path))
        except OSError:
            return False
    return True


class Guard:
    """One watched domain on one connection. Blocking; use it from the thread that suspends the domain."""

    def __init__(self, path: Path, domid: int, uuid: str, name: str) -> None:
        self._path, self._domid, self._uuid, self._name = path, domid, uuid, name
        self._socket: socket.socket | None = None

    def watch(self) -> None:
        """Put the domain under the supervisor's care. Raises RefusedError when there is no supervisor."""
        try:
            self._watch()
        except (OSError, ValueError) as error:
            raise RefusedError(
                f"the supervisor cannot be reached at {self._path}: {error}",
                operation="guard the guest",
                domain=self._name,
                hint="start remus-supervisor.service; without it a killed agent could leave the guest suspended",
            ) from error

    def ensure(self) -> None:
        """Before each suspend: the line is still there, or is made again (the supervisor was restarted).
        Raises HypervisorError when it stays away."""
        if self._alive():
            return
        deadline = time.monotonic() + _AGAIN
        while True:
            try:
                self._watch()
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise HypervisorError(
                        f"the supervisor went away: {error}",
                        operation="guard the guest",
                        domain=self._name,
                        left="the guest runs; it is not suspended without a supervisor",
                        hint="start remus-supervisor.service",
                    ) from error
                time.sleep(0.1)
            else:
                return

    def leave_down(self) -> None:
        """The guest is to stay down, also when this process dies: end the supervisor's care, for sure. Raises
        HypervisorError; then the care goes on."""
        self.ensure()
        line = self._socket
        try:
            if line is None:
                raise ValueError("there is no line")
            self._ask(line, {"unwatch": self._domid})
        except (OSError, ValueError) as error:
            raise HypervisorError(
                f"the supervisor cannot be told to leave the guest down: {error}",
                operation="switchover",
                domain=self._name,
                hint="see `journalctl -u remus-supervisor`",
            ) from error

    def hang_up(self) -> None:
        """End the line without a word: the supervisor looks after the domain for a while, as if this process had died. Safe to
        call twice."""
        line, self._socket = self._socket, None
        if line is not None:
            line.close()

    def unwatch(self) -> None:
        """End the supervisor's care and the line. Safe to call twice, and without a supervisor: then one
        that comes back looks after the domain once this process has ended, which does no harm."""
        line, self._socket = self._socket, None
        if line is None:
            return
        with line:
            try:
                self._ask(line, {"unwatch": self._domid})
            except (OSError, ValueError) as error:
                log.warning("%s: the supervisor was not told that its care may end: %s", self._name, error)

    def _watch(self) -> None:
        if self._socket is not None:
            self._socket.close()
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = line
        line.settimeout(_ANSWER)
        line.connect(str(self._path))
        self._ask(line, {"watch": self._domid, "uuid": self._uuid})

    def _alive(self) -> bool:
        if self._socket is None:
            return False
        # The supervisor says nothing unasked: readable means that it hung up.
        readable, _, _ = select.select([self._socket], [], [], 0)
        return not readable

    @staticmethod
    def _ask(line: socket.socket, request: dict[str, Any]) -> None:
        line.sendall(json.dumps(request).encode() + b"\n")
        with line.makefile("rb") as answers:
            answer = json.loads(answers.readline(65536) or b'{"error": "it closed the connection"}')
        if answer.get("ok") is not True:
            raise ValueError(answer.get("error", "it refused"))
