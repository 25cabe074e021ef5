"""A device model that speaks QMP on a Unix socket in a thread: one client at a time, as QEMU does."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []}}


class FakeQemu:
    """state: what it saves next. deaf: commands that get no answer. refuses: commands that get an error."""

    def __init__(self, path: Path) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.state = b"QEVM" + bytes(100)
        self.running = True
        self.deaf: set[str] = set()
        self.refuses: set[str] = set()
        self._fds: dict[str, int] = {}
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeQemu:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)
        for fd in self._fds.values():
            os.close(fd)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.commands]

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client:
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        client.sendall(json.dumps(GREETING).encode() + b"\r\n")
        pending, received = b"", array.array("i")
        while True:
            data, ancillary, _, _ = client.recvmsg(65536, socket.CMSG_LEN(16))
            if not data:
                return
            for _, _, fds in ancillary:
                received.frombytes(fds)
            pending += data
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                request = json.loads(line)
                answer = self._obey(request["execute"], request.get("arguments", {}), received)
                if answer is not None:
                    client.sendall(json.dumps(answer | {"id": request.get("id")}).encode() + b"\r\n")

    def _obey(self, name: str, arguments: dict[str, Any], received: array.array[int]) -> dict[str, Any] | None:
        if name != "qmp_capabilities":
            self.commands.append((name, arguments))
        if name in self.deaf:
            return None
        if name in self.refuses:
            return {"error": {"class": "GenericError", "desc": f"{name} does not work today"}}
        match name:
            case "stop":
                self.running = False
            case "cont":
                self.running = True
            case "add-fd":
                old = self._fds.pop(f"/dev/fdset/{arguments['fdset-id']}", None)
                if old is not None:
                    os.close(old)
                self._fds[f"/dev/fdset/{arguments['fdset-id']}"] = received.pop()
            case "xen-save-devices-state":
                os.write(self._fds[arguments["filename"]], self.state)
        return {"return": {}}
