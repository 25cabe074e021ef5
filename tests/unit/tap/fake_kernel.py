"""The kernel's side of a tap: an nbd client on a real socket, and layers of device-mapper that are only words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

from remus_agent.adapters.disk.mapper import RaidStatus
from remus_agent.adapters.disk.tap_worker import TapWorker
from remus_agent.errors import DiskError, LocalDiskFailed
from tests import nbd_client


class Client:
    """One connection, through with the handshake."""

    def __init__(self, path: Path, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._exactly(18)
        self._socket.sendall(nbd_client.go(name))
        kind = 0
        while kind != nbd_client.ACK:
            _, _, kind, length = struct.unpack(">QIII", self._exactly(20))
            assert kind < 1 << 31
            self._exactly(length)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> tuple[int, int]:
        """Handle and error of the next reply."""
        return nbd_client.simple_replies(self._exactly(16))[0]

    def ask(self, data: bytes) -> int:
        """Send one request; the error of its reply."""
        self.send(data)
        return self.reply()[1]

    def write(self, offset: int, data: bytes, flag: int = 0) -> None:
        assert self.ask(nbd_client.write(1, offset, data, flag)) == 0

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        self._socket.settimeout(seconds)
        try:
            return not self._socket.recv(1, socket.MSG_PEEK) and False
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(60)

    def shut(self) -> None:
        """The kernel gives up: its end is closed before what is under way fails."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def ended(self) -> bool:
        """Whether the server has closed the connection, and said nothing before."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            part = self._socket.recv(count - len(got))
            assert part, "the server has closed the connection"
            got += part
        return got


class ThreadedTap:
    """The process of a tap, as a thread of this one."""

    pid = 0

    def __init__(self, ends: tuple[socket.socket, ...]) -> None:
        self._ends = tuple(end.dup() for end in ends)
        self.worker = TapWorker(*self._ends)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)

    async def wait(self) -> int:
        await asyncio.to_thread(self._thread.join)
        return 0

    def _run(self) -> None:
        self.worker.run()
        self.worker._hush()  # as the end of a process does
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class FakeKernel:
    """In the place of Layers, of nbd_device's functions and of the reader of the local device. kind: of the guest's device.
    state: legs of the raid. action: what md does. fails: operations that fail. content: of the local device. reads: (offset,
    length) of each."""

    kind: str | None = "linear"
    state: str = "AA"
    action: str = "idle"
    fails: set[str] = field(default_factory=set)
    content: bytearray = field(default_factory=bytearray)
    reads: list[tuple[int, int]] = field(default_factory=list)
    devices: dict[Path, Client] = field(default_factory=dict)
    tap: Path | None = None
    cycles: int = 0
    processes: list[ThreadedTap] = field(default_factory=list)

    async def spawn(self, name: str, ends: tuple[socket.socket, ...]) -> ThreadedTap:
        """In the place of `tap_process.spawn`."""
        self._may("spawn")
        self.processes.append(ThreadedTap(ends))
        return self.processes[-1]

    @property
    def worker(self) -> TapWorker:
        """What is in the newest process."""
        return self.processes[-1].worker

    @property
    def client(self) -> Client:
        """That of the device behind the tap."""
        assert self.tap is not None
        return self.devices[self.tap]

    async def target(self) -> str | None:
        return self.kind

    async def nbd(self) -> Path | None:
        return self.tap

    async def protect(self, nbd: Path) -> None:
        self._may("protect")
        self.kind, self.tap = "raid", nbd
        self._may("accept")

    async def linear(self) -> None:
        self._may("linear")
        if self.kind == "raid":
            await self.require_local()
        self.kind = "linear"
        tap, self.tap = self.tap, None
        if tap in self.devices:
            self.devices.pop(tap).close()

    async def nowhere(self) -> None:
        self.state = "AA"
        await self.linear()
        self.kind = "error"

    async def require_local(self) -> str:
        if self.state.startswith("D"):
            raise LocalDiskFailed("the local device has failed", operation="test")
        return self.state

    async def require_device(self) -> None:
        self._may("device")

    async def raid(self) -> RaidStatus:
        return RaidStatus(self.state, self.action, 0, 0)

    async def cycle(self, name: str) -> None:
        self.cycles += 1

    async def connect(self, server: Path, export: str, block: int, timeout: int) -> Path:
        self._may("connect")
        device = Path(f"/dev/nbd{len(self.devices)}-{id(self)}")
        while device in self.devices:
            device = device.with_name(device.name + "x")
        self.devices[device] = Client(server, export)
        return device

    async def disconnect(self, device: Path, expected: str) -> None:
        if self.owner(device) == expected:
            self.devices.pop(device).close()

    def owner(self, device: Path) -> str | None:
        return str(id(self.devices[device])) if device in self.devices else None

    def read(self, offset: int, length: int) -> memoryview:
        self.reads.append((offset, length))
        return memoryview(bytes(self.content[offset : offset + length]))

    def close(self) -> None:
        """Of the reader."""

    def _may(self, what: str) -> None:
        if what in self.fails:
            raise DiskError(f"{what} has failed", operation="test")
