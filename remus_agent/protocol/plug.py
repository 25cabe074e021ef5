"""The messages of the plug qdisc, and the kernel's answers to them, as bytes.

Source: Linux `net/sched/sch_plug.c`, `include/uapi/linux/pkt_sched.h` (`struct tc_plug_qopt`), rtnetlink(7).
A change is RTM_NEWQDISC on the root of an interface with the kind "plug" and the 8-byte option (action,
limit) as a plain payload, not as a nest. Numbers are in the byte order of the host.

    BUFFER              close the running epoch; frames that come from now on belong to the next one
    RELEASE_ONE         let the frames of the last closed epoch out
    RELEASE_INDEFINITE  let everything out, hold nothing until the next BUFFER
    LIMIT               set the bytes the plug may hold before it drops

BUFFER *overwrites* the count of the epoch that was closed before: with two of them and no RELEASE_ONE
between, frames stay held for longer than they should. So there is at most one closed epoch that is not
released.

A new plug holds from its first frame on. There is no "replace" here: on a plug that exists the kernel takes
CREATE|REPLACE for a change with the action BUFFER.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from remus_agent.errors import ProtocolError

RTM_NEWQDISC: Final = 36
NLMSG_ERROR: Final = 2
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200
TC_H_ROOT: Final = 0xFFFFFFFF
SEQUENCE_OFFSET: Final = 8
"""Where the sequence number (u32) of a netlink message lies."""

_HEADER = struct.Struct("=IHHII")
_BODY = struct.Struct("=BxHiIII HH8s HHiI")
_LENGTH: Final = _HEADER.size + _BODY.size
_PLAIN_ACK = struct.Struct("=IHHIIi")
_PLAIN_ACK_LENGTH: Final = _PLAIN_ACK.size + _HEADER.size
_TCA_KIND: Final = 1
_TCA_OPTIONS: Final = 2
_NLMSGERR_ATTR_MSG: Final = 1
_MAX_ERRNO: Final = 4095
_U32: Final = 0xFFFFFFFF


class PlugAction(IntEnum):
    """What a plug is told to do (TCQ_PLUG_*)."""

    BUFFER = 0
    RELEASE_ONE = 1
    RELEASE_INDEFINITE = 2
    LIMIT = 3


@dataclass(frozen=True, slots=True)
class Ack:
    """The kernel's answer to one request. errno: 0 when it was carried out. message: the kernel's own words,
    often empty."""

    sequence: int
    errno: int
    message: str = ""


def _message(ifindex: int, action: int, limit: int, flags: int, sequence: int) -> bytes:
    if not 0 < ifindex <= 0x7FFFFFFF:
        raise ProtocolError(f"{ifindex} is no interface index")
    if not 0 <= limit <= _U32:
        raise ProtocolError(f"a plug's limit of {limit} bytes does not fit in 32 bits")
    body = _BODY.pack(0, 0, ifindex, 0, TC_H_ROOT, 0, 9, _TCA_KIND, b"plug", 12, _TCA_OPTIONS, action, limit)
    return _HEADER.pack(_LENGTH, RTM_NEWQDISC, flags, sequence, 0) + body


def create(ifindex: int, limit: int, sequence: int = 0) -> bytes:
    """Put a plug on the root of an interface; it holds from the first frame on. Fails (EEXIST) where a qdisc
    is already.

    limit: bytes it may hold before it drops; the kernel's default is far too small for a guest, so 0 is
    refused.
    """
    if limit <= 0:
        raise ProtocolError(f"a plug needs a limit above 0 bytes, not {limit}")
    return _message(ifindex, PlugAction.BUFFER, limit, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sequence)


def change(ifindex: int, action: PlugAction | int, *, limit: int = 0, sequence: int = 0) -> bytes:
    """Tell the plug on the root of an interface what to do. Fails (ENOENT, EINVAL) where there is no plug.

    limit: bytes, only for LIMIT. Raises ProtocolError for an action that sch_plug does not have.
    """
    try:
        known = PlugAction(action)
    except ValueError:
        raise ProtocolError(f"sch_plug has no action {action!r}") from None
    if (known is PlugAction.LIMIT) != (limit > 0):
        raise ProtocolError(f"the action {known.name} with a limit of {limit} bytes")
    return _message(ifindex, known, limit, NLM_F_REQUEST | NLM_F_ACK, sequence)


def is_success(datagram: bytearray, size: int, sequence: int) -> bool:
    """Whether the first size bytes are one plain acknowledgement of that request, and nothing else: the
    quick check for the usual answer (NETLINK_CAP_ACK set). False says nothing; `parse_acks` then tells what
    the bytes are."""
    if size != _PLAIN_ACK_LENGTH:
        return False
    length, kind, _, answered, _, code = _PLAIN_ACK.unpack_from(datagram)
    return bool(length == size and kind == NLMSG_ERROR and answered == sequence and code == 0)


def parse_acks(datagram: bytes | bytearray | memoryview) -> list[Ack]:
    """The answers in one datagram of the kernel. Raises ProtocolError for anything that is not NLMSG_ERROR
    (which is also how success is told), for a length that does not fit and for an error code that is none."""
    acks = [_parse_ack(kind, flags, sequence, body) for kind, flags, sequence, body in split(datagram)]
    if not acks:
        raise ProtocolError("an empty answer from the kernel")
    return acks


def split(datagram: bytes | bytearray | memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """The netlink messages in a datagram: (type, flags, sequence, body)."""
    view = memoryview(datagram)
    while view:
        if len(view) < _HEADER.size:
            raise ProtocolError(f"{len(view)} bytes are left over in the kernel's answer")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(view)
        if not _HEADER.size <= length <= len(view):
            raise ProtocolError(f"a message of the kernel names a length of {length} with {len(view)} bytes there")
        yield kind, flags, sequence, view[_HEADER.size : length]
        view = view[(length + 3) & ~3 :]


def _parse_ack(kind: int, flags: int, sequence: int, body: memoryview) -> Ack:
    if kind != NLMSG_ERROR:
        raise ProtocolError(f"the kernel answered with message type {kind}, an acknowledgement was expected")
    if len(body) < 4 + _HEADER.size:
        raise ProtocolError(f"an acknowledgement of {len(body)} bytes is too short")
    (code,) = struct.unpack_from("=i", body)
    if not -_MAX_ERRNO <= code <= 0:
        raise ProtocolError(f"an acknowledgement with the unknown code {code}")
    message = ""
    if flags & NLM_F_ACK_TLVS:
        echoed = _HEADER.size
        if not flags & NLM_F_CAPPED:
            (echoed,) = struct.unpack_from("=I", body, 4)
        for attribute, value in attributes(body[4 + ((echoed + 3) & ~3) :]):
            if attribute == _NLMSGERR_ATTR_MSG:
                message = bytes(value).rstrip(b"\0").decode("utf-8", "replace")
    return Ack(sequence, -code, message)


def attributes(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in a run of bytes: (type without the nest flags, value)."""
    while len(view) >= 4:
        length, kind = struct.unpack_from("=HH", view)
        if not 4 <= length <= len(view):
            raise ProtocolError(f"an attribute names a length of {length}, {len(view)} bytes are there")
        yield kind & 0x3FFF, view[4:length]
        view = view[(length + 3) & ~3 :]
    if view:
        raise ProtocolError(f"{len(view)} bytes are left over behind an attribute")
