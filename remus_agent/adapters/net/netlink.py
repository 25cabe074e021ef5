"""A netlink socket that is asked and answers, one request at a time.

The kernel carries an rtnetlink request out inside the send, so its answer is there when the send returns; the
receive time-out only guards against a kernel that does not keep to that. Safe to use from several threads.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from itertools import count
from typing import Final

from remus_agent.errors import OutputBufferError, ProtocolError
from remus_agent.protocol import plug, rtnl

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NLMSG_DONE: Final = 3
_RECEIVE_SIZE: Final = 1 << 17
_TIMEOUT: Final = struct.pack("@ll", 5, 0)

_HINTS: Final = {
    errno.EPERM: "run the agent as root, or give it CAP_NET_ADMIN",
    errno.ENODEV: "see `ip link`: the interface is gone; the guest was probably shut down",
    errno.ENOBUFS: "free memory in dom0",
    errno.ENOMEM: "free memory in dom0",
    errno.EBUSY: "see `tc qdisc show` and `tc filter show`: another program changes the same interface",
}


class NetlinkError(OutputBufferError):
    """The kernel refused a request. errno: its code; said: its own words, often empty."""

    def __init__(self, operation: str, device: str, code: int, said: str = "", *, hint: str | None = None) -> None:
        words = f"{os.strerror(code)} ({errno.errorcode.get(code, code)}){f': {said}' if said else ''}"
        super().__init__(f"{device}: {words}", operation=operation, hint=hint or _HINTS.get(code))
        self.errno = code
        self.said = said
        self.device = device


def open_route_socket() -> socket.socket:
    """A bound NETLINK_ROUTE socket with the kernel's own error words switched on."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:
        raise _os_error("open a netlink socket", "netlink", error) from error
    try:
        sock.bind((0, 0))
        sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    except OSError as error:
        sock.close()
        raise _os_error("open a netlink socket", "netlink", error) from error
    return sock


def _os_error(operation: str, device: str, error: OSError) -> NetlinkError:
    said = "no answer from the kernel in 5 s" if error.errno == errno.EAGAIN else ""
    return NetlinkError(operation, device, error.errno or errno.EIO, said)


class Netlink:
    """Requests to rtnetlink. Every method names the operation and the device for the error it may raise
    (NetlinkError)."""

    def __init__(self) -> None:
        self._socket = open_route_socket()
        self._sequence = count(1)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Safe to call twice."""
        self._socket.close()

    def do(self, request: bytearray, operation: str, device: str) -> None:
        """Send a request and wait until the kernel has carried it out."""
        self._exchange(request, operation, device)

    def ask(self, request: bytearray, kind: int, operation: str, device: str) -> list[memoryview]:
        """Send a request; the bodies of all answers of the given message type."""
        return [body for found, body in self._exchange(request, operation, device) if found == kind]

    def _exchange(self, request: bytearray, operation: str, device: str) -> list[tuple[int, memoryview]]:
        try:
            with self._lock:
                sequence = next(self._sequence) & 0xFFFFFFFF
                self._socket.send(rtnl.stamped(request, sequence))
                return self._answers(sequence, operation, device)
        except OSError as error:
            raise _os_error(operation, device, error) from error
        except ProtocolError as error:
            raise NetlinkError(operation, device, errno.EPROTO, error.message) from error

    def _answers(self, sequence: int, operation: str, device: str) -> list[tuple[int, memoryview]]:
        answers: list[tuple[int, memoryview]] = []
        while True:
            datagram = self._socket.recv(_RECEIVE_SIZE)
            for kind, _, answered, body in plug.split(datagram):
                if answered != sequence:
                    continue  # the rest of an answer that timed out before
                if kind == plug.NLMSG_ERROR:
                    (ack,) = (ack for ack in plug.parse_acks(datagram) if ack.sequence == sequence)
                    if ack.errno:
                        raise NetlinkError(operation, device, ack.errno, ack.message)
                    return answers
                if kind == _NLMSG_DONE:
                    return answers
                answers.append((kind, body))
