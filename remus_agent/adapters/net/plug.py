"""The socket that commands the plugs of one guest: the only part of the output buffer that runs while the
guest is down.

The messages are made beforehand; a command is one send that carries the message for every plug, and one
receive a plug for the kernel's answers. Each command is acknowledged before the call returns.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from remus_agent.adapters.net.netlink import NetlinkError, open_route_socket
from remus_agent.errors import OutputBufferError, ProtocolError
from remus_agent.protocol import plug
from remus_agent.protocol.plug import PlugAction

_RECEIVE_SIZE: Final = 4096
_SEQUENCE = struct.Struct("=I")
_NO_PLUG: Final = {errno.ENOENT, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class PlugDevice:
    """An interface whose root qdisc is a plug. name: as in `ip link`."""

    ifindex: int
    name: str


class PlugSocket:
    """Commands to a fixed set of plugs. A command that fails on one plug is still given to the others, then
    raises OutputBufferError with the operation, the device and the next step."""

    def __init__(self, devices: Sequence[PlugDevice]) -> None:
        self._devices = tuple(devices)
        self._messages = {
            action: bytearray().join(plug.change(device.ifindex, action) for device in self._devices)
            for action in (PlugAction.BUFFER, PlugAction.RELEASE_ONE, PlugAction.RELEASE_INDEFINITE)
        }
        self._length = len(self._messages[PlugAction.BUFFER]) // max(1, len(self._devices))
        self._answer = bytearray(_RECEIVE_SIZE)
        self._next = 1
        self._lock = threading.Lock()
        self._socket = open_route_socket()

    @property
    def devices(self) -> tuple[PlugDevice, ...]:
        """The plugs that this socket commands."""
        return self._devices

    def close(self) -> None:
        """Let go of the socket; the plugs stay as they are. Safe to call twice."""
        self._socket.close()

    def buffer(self) -> None:
        """Close the running epoch on every plug."""
        self._command(PlugAction.BUFFER)

    def release_one(self) -> None:
        """Let the last closed epoch out on every plug."""
        self._command(PlugAction.RELEASE_ONE)

    def release_indefinite(self) -> None:
        """Let everything out on every plug and hold nothing any more."""
        self._command(PlugAction.RELEASE_INDEFINITE)

    def _command(self, action: PlugAction) -> None:
        if not self._devices:
            return
        with self._lock:
            first = self._stamp(self._messages[action])
            try:
                self._socket.send(self._messages[action])
                failures = self._receive(first)
            except OSError as error:
                raise self._failed(action, "all plugs", error.errno or errno.EIO, "") from error
            except ProtocolError as error:
                raise self._failed(action, "all plugs", errno.EPROTO, error.message) from error
        for device, answer in failures:
            raise self._failed(action, device.name, answer.errno, answer.message)

    def _stamp(self, message: bytearray) -> int:
        count = len(self._devices)
        if self._next + count > 0xFFFFFFFF:
            self._next = 1
        first = self._next
        for number in range(count):
            _SEQUENCE.pack_into(message, number * self._length + plug.SEQUENCE_OFFSET, first + number)
        self._next = first + count
        return first

    def _receive(self, first: int) -> list[tuple[PlugDevice, plug.Ack]]:
        """Take in the answer for every plug; the devices whose answer is no."""
        failures: list[tuple[PlugDevice, plug.Ack]] = []
        expected, end = first, first + len(self._devices)
        while expected < end:
            size = self._socket.recv_into(self._answer)
            if plug.is_success(self._answer, size, expected):
                expected += 1
                continue
            for ack in plug.parse_acks(self._answer[:size]):
                if ack.sequence < first:
                    continue  # belongs to a command that failed half-way
                if ack.sequence != expected:
                    raise ProtocolError(f"the kernel answered number {ack.sequence}, not {expected}")
                if ack.errno:
                    failures.append((self._devices[expected - first], ack))
                expected += 1
        return failures

    @staticmethod
    def _failed(action: PlugAction, device: str, code: int, said: str) -> OutputBufferError:
        hint = None
        if code in _NO_PLUG:
            hint = f"see `tc qdisc show dev {device}`: its plug is gone; protect the guest again"
        elif code == errno.EAGAIN:
            said = "no answer from the kernel in 5 s"
        return NetlinkError(f"plug {action.name}", device, code, said, hint=hint)
