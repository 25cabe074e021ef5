"""The device below DRBD on the backup, as an agent would serve it for ADR 0007: writes are staged until a marker block ends their
epoch, and only then applied.

    python3 drbd_stage.py FILE FOLDER

FILE: the disk. The last 4 KiB of it are the marker: MAGIC and an epoch. One JSON object a line on standard input, one on
standard output: {"ok": result}; the first one is the nbd device. Runs with the package's folder on PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from remus_agent.adapters.disk import nbd_device
from remus_agent.protocol.disk.extents import ExtentMap
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.nbd.messages import (
    Disconnect,
    Export,
    Flush,
    Read,
    Request,
    Send,
    Trim,
    Write,
    WriteZeroes,
    read_reply,
    reply,
)
from remus_agent.protocol.nbd.server import NbdServer

MAGIC = 0x52454D5553454E44
TAG = struct.Struct("<QQ")
"""First in each block of 4 KiB: the marker's MAGIC and epoch, or a write's number and its block."""
BLOCK = 4096
NAME = "stage"


class Stage:
    """The disk. committed: the last epoch that was applied. arrived: number and epoch of each tagged block, in order."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.lock = threading.Lock()
        self.committed = 0
        self.arrived: list[tuple[int, int]] = []
        self.staging = True
        self._file = os.open(path, os.O_RDWR)
        self._staged = ExtentMap()

    def serve(self, client: socket.socket) -> None:
        """One client to its end."""
        server = NbdServer(Export(NAME, self.size, 512))
        client.sendall(server.greeting)
        while count := client.recv_into(server.get_buffer()):
            answers = bytearray()
            for event in server.buffer_updated(count):
                if isinstance(event, Disconnect):
                    return
                answers += event.data if isinstance(event, Send) else self._carry_out(event)
            client.sendall(answers)

    def answer(self, what: str) -> Any:
        """One command."""
        with self.lock:
            match what:
                case "committed":
                    return self.committed
                case "drop":
                    dropped = [extent.offset for extent in self._staged]
                    self._staged = ExtentMap()
                    return {"committed": self.committed, "dropped": dropped, "arrived": self.arrived}
                case "through":  # what comes from now on is applied as it comes
                    self._apply()
                    self.staging = False
                    return None
                case _:
                    raise ValueError(what)

    def _carry_out(self, request: Request) -> bytes:
        with self.lock:
            match request:
                case Write():
                    self._change(Extent(Op.WRITE, request.offset, request.length, request.data))
                case WriteZeroes() | Trim():
                    self._change(Extent(Op.ZERO, request.offset, request.length))
                case Read():
                    return b"".join(bytes(part) for part in read_reply(request, self._read(request)))
                case Flush():
                    pass
        return reply(request.handle) if not isinstance(request, Disconnect) else b""

    def _change(self, extent: Extent) -> None:
        self._staged.add(extent)
        if not self.staging:
            self._apply()
            return
        for at in range(0, len(extent.data) - BLOCK + 1, BLOCK):
            first, second = TAG.unpack_from(extent.data, at)
            if first == MAGIC and extent.offset + at == self.size - BLOCK:
                self._apply()
                self.committed = second
            elif first:
                self.arrived.append((first, self.committed + 1))

    def _apply(self) -> None:
        for extent in self._staged.pop_all():
            os.pwrite(self._file, extent.data if extent.op is Op.WRITE else bytes(extent.length), extent.offset)

    def _read(self, request: Read) -> bytearray:
        data = bytearray(os.pread(self._file, request.length, request.offset))
        end = request.offset + request.length
        for extent in self._staged:
            start, stop = max(extent.offset, request.offset), min(extent.end, end)
            if start < stop:
                piece = extent.part(start, stop)
                content = piece.data if piece.op is Op.WRITE else bytes(piece.length)
                data[start - request.offset : stop - request.offset] = content
        return data


def _listen(listener: socket.socket, stage: Stage) -> None:
    client, _ = listener.accept()
    with client:
        stage.serve(client)


def _say(what: Any) -> None:
    print(json.dumps({"ok": what}), flush=True)


def main(file: str, folder: str) -> None:
    """Run from the command line."""
    stage, path = Stage(Path(file)), Path(folder) / "stage.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        threading.Thread(target=_listen, args=(listener, stage), daemon=True).start()
        device = asyncio.run(nbd_device.connect(path, NAME, 512, 60))
        owner = nbd_device.owner(device)
        _say(str(device))
        while line := sys.stdin.readline():
            _say(stage.answer(json.loads(line)["do"]))
        if owner is not None:
            asyncio.run(nbd_device.disconnect(device, owner))


if __name__ == "__main__":
    main(*sys.argv[1:3])
