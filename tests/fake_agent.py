"""An agent's control socket that answers what a test wants, for commands that ask an agent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remus_agent.protocol import control

Answers = Callable[[control.Request], list[bytes]]

STATUS: dict[str, Any] = {
    "domain": "redis1",
    "role": "primary",
    "state": "protected",
    "peer": "beta",
    "session": "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60",
    "generation": 3,
    "epoch": 42,
    "acked_epoch": 41,
    "committed_epoch": 41,
    "seeding": None,
    "held_bytes": 65536,
    "held_packets": 7,
    "dropped_packets": 0,
    "last_ack_age": 0.25,
    "interval_ms": 0,
    "pages_last": 120,
    "bytes_last": 491520,
    "down_ms_last": 2.5,
    "since": 75.0,
    "reason": None,
}


class FakeAgent:
    """Answers each request with what `answers` says, and notes the requests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[control.Request] = []
        self.answers: Answers = lambda request: [control.encode_result(request.id, STATUS)]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            with sock, sock.makefile("rb") as lines:
                for line in lines:
                    request = control.decode_request(line)
                    self.requests.append(request)
                    found = self.answers(request)
                    if not found:
                        break
                    sock.sendall(b"".join(found))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def fails(**facts: Any) -> Answers:
    """The same error to every request."""
    return lambda request: [control.encode_answer(control.Answer(id=request.id, error=control.Failure(**facts)))]


def gives(**result: Any) -> Answers:
    """The same result to every request."""
    return lambda request: [control.encode_result(request.id, result)]
