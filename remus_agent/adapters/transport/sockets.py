"""Parts of the TCP transport: socket options, how frames are cut for writing, and errors."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Final

from remus_agent.adapters.transport.tls_errors import explain
from remus_agent.addresses import Address
from remus_agent.errors import ConnectionLost, PeerTimeout, RemusError, ReplicationError
from remus_agent.protocol.replication.frames import Buffer

log = logging.getLogger(__name__)

SOCKET_BUFFER_BYTES: Final = 8 * 1024 * 1024
SMALL_BYTES: Final = 64 * 1024
"""Buffers up to here are joined before they are written; larger ones are written as they are."""
PIECE_BYTES: Final = 1024 * 1024
_STARTS_TLS: Final = re.compile("frame starts with 1[56]03")
"""What the decoder says of a TLS handshake or alert."""
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33


def pieces(parts: Sequence[Buffer]) -> Iterator[Buffer]:
    """The same bytes in pieces for single writes: small neighbours joined, large buffers cut without a
    copy."""
    small: list[Buffer] = []
    size = 0
    for part in parts:
        if len(part) > SMALL_BYTES or size + len(part) > SMALL_BYTES:
            if small:
                yield b"".join(small)
            small, size = [], 0
        if len(part) > SMALL_BYTES:
            view = memoryview(part)
            for start in range(0, len(view), PIECE_BYTES):
                yield view[start : start + PIECE_BYTES]
        else:
            small.append(part)
            size += len(part)
    if small:
        yield b"".join(small)


def tune(sock: socket.socket, silence: float) -> None:
    """Options of a replication socket. silence: seconds without an answer of the other kernel until it is
    given up."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    step = max(1, int(silence / 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, step)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, step)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(silence * 1000)))
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        except PermissionError:
            # Without CAP_NET_ADMIN the kernel's own tuning allows more than SO_SNDBUF would.
            log.debug("socket buffers stay as the kernel tunes them")


def peer_name(name: object) -> str:
    """`ADDRESS:PORT` of what getpeername() gave, IPv4 also where the socket is IPv6."""
    if not (isinstance(name, tuple) and len(name) >= 2):
        return "unknown peer"
    ip = ipaddress.ip_address(str(name[0]).partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(Address(str(mapped or ip), int(name[1])))


def translate(cause: RemusError | OSError | str, peer: str, operation: str) -> RemusError:
    """The error to raise: it names the peer and is new each time."""
    if isinstance(cause, ReplicationError):
        text, hint = f"malformed bytes from {peer}: {cause.message}", None
        if _STARTS_TLS.match(cause.message):
            text = f"{peer} speaks TLS, this host does not"
            hint = "add the section [tls] to the configuration of this agent too, or take it from the other one"
        return ReplicationError(text, operation=operation, epoch=cause.epoch, hint=hint)
    if isinstance(cause, ssl.SSLError):
        what, next_step = explain(cause)
        return ConnectionLost(f"TLS with {peer} failed: {what}", operation=operation, hint=next_step)
    if isinstance(cause, TimeoutError):
        return PeerTimeout(f"{peer} stopped answering", operation=operation)
    if isinstance(cause, OSError):
        hint = {
            errno.ECONNREFUSED: "see whether the agent runs there",
            errno.EADDRNOTAVAIL: "see replication.listen in the configuration",
        }.get(cause.errno or 0)
        text = os.strerror(cause.errno) if cause.errno else str(cause)
        return ConnectionLost(f"connection with {peer}: {text}", operation=operation, hint=hint)
    return ConnectionLost(f"connection with {peer}: {cause}", operation=operation)
