"""A supervisor that only notes what it is told."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Self


class Watcher:
    """Listens on path. `watched` is what it was asked to watch and not to unwatch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watched: dict[int, str] = {}
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen()
        self._lines: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for line in self._lines:
            line.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self.path.unlink()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self._lines.append(line)
            threading.Thread(target=self._read, args=(line,), daemon=True).start()

    def _read(self, line: socket.socket) -> None:
        with line.makefile("rwb") as stream:
            for request in map(json.loads, stream):
                if "watch" in request:
                    self.watched[request["watch"]] = request["uuid"]
                else:
                    self.watched.pop(request["unwatch"], None)
                stream.write(b'{"ok": true}\n')
                stream.flush()
