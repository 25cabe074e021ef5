"""The netlink messages that lay the plumbing of an output buffer, and the answers that describe it, as bytes.

Requests are made without a sequence number; `stamped` puts one in. Source: Linux
`include/uapi/linux/rtnetlink.h`, `if_link.h`, `pkt_sched.h`, `pkt_cls.h`, `tc_act/tc_mirred.h`,
`neighbour.h`; rtnetlink(7), tc-mirred(8), tc-matchall(8).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from remus_agent.errors import ProtocolError
from remus_agent.protocol.plug import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTM_NEWQDISC,
    SEQUENCE_OFFSET,
    TC_H_ROOT,
    attributes,
)

ETH_P_ALL: Final = 0x0003
ETH_P_IP: Final = 0x0800

NLM_F_REPLACE: Final = 0x100
NLM_F_DUMP: Final = 0x300
NLM_F_ECHO: Final = 0x8
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWNEIGH: Final = 28
RTM_DELQDISC: Final = 37
RTM_GETQDISC: Final = 38
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45
RTM_GETTFILTER: Final = 46

TC_H_CLSACT: Final = 0xFFFFFFF1
TC_H_CLSACT_EGRESS: Final = 0xFFFFFFF3
TC_H_CLSACT_INGRESS: Final = 0xFFFFFFF2
_CLSACT_HANDLE: Final = 0xFFFF0000
_TC_ACT_STOLEN: Final = 4
_TCA_EGRESS_REDIR: Final = 1
_IFF_UP: Final = 1
_AF_BRIDGE: Final = 7
_AF_INET6: Final = 10
_NUD_REACHABLE: Final = 2
_NTF_MASTER: Final = 4
_ADDR_GEN_MODE_NONE: Final = 1
_IFB_QUEUE_LENGTH: Final = 1000

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_TC = struct.Struct("=BxHiIII")
_MIRRED = struct.Struct("=IIiiiiI")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. received/sent/dropped: for an IFB the packets that left its qdisc, those it gave
    back to the interface they came from, and those it threw away (its rx and tx counters)."""

    index: int
    name: str
    kind: str
    up: bool
    received: int
    sent: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter on the ingress of an interface. redirect_to: the ifindex it redirects to, 0 if it does not.
    protocol: ethertype."""

    priority: int
    protocol: int
    kind: str
    redirect_to: int


@dataclass(frozen=True, slots=True)
class QdiscStats:
    """What a qdisc holds. held_bytes wraps at 32 bits in the kernel."""

    kind: str
    held_bytes: int
    held_packets: int
    dropped_packets: int


def _attribute(kind: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _name(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode("ascii") + b"\0")


def _request(kind: int, flags: int, *parts: bytes) -> bytearray:
    body = b"".join(parts)
    return bytearray(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body)


def stamped(request: bytearray, sequence: int) -> bytearray:
    """The same message with its sequence number set."""
    struct.pack_into("=I", request, SEQUENCE_OFFSET, sequence)
    return request


def ifb_add(name: str) -> bytearray:
    """Make an IFB (one queue, down)."""
    if not 0 < len(name) < 16:
        raise ProtocolError(f"an interface's name has 1 to 15 characters: {name!r}")
    return _request(
        RTM_NEWLINK,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        _LINK.pack(0, 0, 0, 0, 0),
        _name(3, name),
        _attribute(13, struct.pack("=I", _IFB_QUEUE_LENGTH)),
        _attribute(31, struct.pack("=I", 1)),
        _attribute(32, struct.pack("=I", 1)),
        _attribute(18, _name(1, "ifb")),
    )


def link_without_ipv6_address(ifindex: int) -> bytearray:
    """Keep dom0 from speaking IPv6 on the interface by itself: such frames would be held and counted with the
    guest's."""
    mode = _attribute(8, bytes((_ADDR_GEN_MODE_NONE,)))
    return _request(
        RTM_NEWLINK, NLM_F_ACK, _LINK.pack(0, 0, ifindex, 0, 0), _attribute(26, _attribute(_AF_INET6, mode))
    )


def link_up(ifindex: int) -> bytearray:
    """Set an interface up."""
    return _request(RTM_NEWLINK, NLM_F_ACK, _LINK.pack(0, 0, ifindex, _IFF_UP, _IFF_UP))


def link_delete(ifindex: int) -> bytearray:
    """Delete an interface with all that is on it."""
    return _request(RTM_DELLINK, NLM_F_ACK, _LINK.pack(0, 0, ifindex, 0, 0))


def link_get(ifindex: int) -> bytearray:
    """Ask for one interface."""
    return _request(RTM_GETLINK, NLM_F_ACK, _LINK.pack(0, 0, ifindex, 0, 0))


def link_find(name: str) -> bytearray:
    """Ask for the interface of a name. ENODEV: there is none."""
    text = name.encode("utf-8", "surrogateescape")
    return _request(RTM_GETLINK, NLM_F_ACK, _LINK.pack(0, 0, 0, 0, 0), _attribute(3, text + b"\0"))


def links_dump() -> bytearray:
    """Ask for all interfaces."""
    return _request(RTM_GETLINK, NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0))


def clsact_add(ifindex: int) -> bytearray:
    """Give an interface the qdisc that carries ingress filters. EEXIST: it has one."""
    return _request(
        RTM_NEWQDISC,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        _TC.pack(0, 0, ifindex, _CLSACT_HANDLE, TC_H_CLSACT, 0),
        _name(1, "clsact"),
    )


def clsact_delete(ifindex: int) -> bytearray:
    """Take that qdisc away, with all filters on it."""
    return _request(RTM_DELQDISC, NLM_F_ACK, _TC.pack(0, 0, ifindex, _CLSACT_HANDLE, TC_H_CLSACT, 0))


def _filter_head(ifindex: int, priority: int, protocol: int) -> bytes:
    if not 0 < priority <= 0xFFFF:
        raise ProtocolError(f"a filter's priority lies between 1 and 65535, not at {priority}")
    info = priority << 16 | int.from_bytes(protocol.to_bytes(2, "big"), _NATIVE)
    return _TC.pack(0, 0, ifindex, 0, TC_H_CLSACT_INGRESS, info)


_NATIVE: Final = "little" if struct.pack("=H", 1)[0] else "big"


def redirect_add(ifindex: int, priority: int, protocol: int, target: int) -> bytearray:
    """Redirect what comes in on an interface to the egress of another one (matchall, mirred). protocol: an
    ethertype or ETH_P_ALL. Where two filters match, the one with the lower priority number wins; matchall
    cannot be changed in place."""
    parameters = _MIRRED.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, target)
    action = _attribute(1, _name(1, "mirred"), _attribute(2, _attribute(2, parameters)))
    return _request(
        RTM_NEWTFILTER,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        _filter_head(ifindex, priority, protocol),
        _name(1, "matchall"),
        _attribute(2, _attribute(2, action)),
    )


def filter_delete(ifindex: int, priority: int, protocol: int) -> bytearray:
    """Delete the filter of a priority on the ingress of an interface."""
    return _request(RTM_DELTFILTER, NLM_F_ACK, _filter_head(ifindex, priority, protocol))


def filters_dump(ifindex: int, *, egress: bool = False) -> bytearray:
    """Ask for the ingress (egress) filters of an interface."""
    parent = TC_H_CLSACT_EGRESS if egress else TC_H_CLSACT_INGRESS
    return _request(RTM_GETTFILTER, NLM_F_DUMP, _TC.pack(0, 0, ifindex, 0, parent, 0))


def qdisc_get(ifindex: int) -> bytearray:
    """Ask for the root qdisc of an interface. Kernels before 6.7 answer the asker only when ECHO is set."""
    return _request(RTM_GETQDISC, NLM_F_ACK | NLM_F_ECHO, _TC.pack(0, 0, ifindex, 0, TC_H_ROOT, 0))


def fdb_learn(ifindex: int, mac: bytes) -> bytearray:
    """Make the bridge that an interface belongs to look for a MAC behind that interface, as if it had learnt
    it."""
    head = struct.pack("=BxHiHBB", _AF_BRIDGE, 0, ifindex, _NUD_REACHABLE, _NTF_MASTER, 0)
    return _request(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, head, _attribute(2, mac))


def _text(value: memoryview | None) -> str:
    return "" if value is None else bytes(value).rstrip(b"\0").decode("ascii", "replace")


def _fixed(body: memoryview, layout: struct.Struct) -> tuple[tuple[int, ...], dict[int, memoryview]]:
    if len(body) < layout.size:
        raise ProtocolError(f"a message of {len(body)} bytes from the kernel is too short")
    return layout.unpack_from(body), dict(attributes(body[layout.size :]))


def parse_link(body: memoryview) -> Link:
    """The body of RTM_NEWLINK."""
    (_, _, index, flags, _), found = _fixed(body, _LINK)
    info = dict(attributes(found[18])) if 18 in found else {}
    counters = (0,) * 8
    if 23 in found and len(found[23]) >= 64:
        counters = struct.unpack_from("=8Q", found[23])
    return Link(
        index=index,
        name=_text(found.get(3)),
        kind=_text(info.get(1)),
        up=bool(flags & _IFF_UP),
        received=counters[0],
        sent=counters[1],
        dropped=counters[6],
    )


def parse_filter(body: memoryview) -> Filter | None:
    """The body of RTM_NEWTFILTER; None for a message that shows a chain's head and no filter of its own."""
    (_, _, _, handle, _, info), found = _fixed(body, _TC)
    if not handle and 2 not in found:
        return None
    protocol = int.from_bytes((info & 0xFFFF).to_bytes(2, _NATIVE), "big")
    kind = _text(found.get(1))
    redirect_to = _redirect_target(found[2]) if kind == "matchall" and 2 in found else 0
    return Filter(info >> 16, protocol, kind, redirect_to)


def _redirect_target(options: memoryview) -> int:
    for _, action in attributes(dict(attributes(options)).get(2, memoryview(b""))):
        fields = dict(attributes(action))
        if _text(fields.get(1)) == "mirred" and 2 in fields:
            parameters = dict(attributes(fields[2])).get(2)
            if parameters is not None and len(parameters) >= _MIRRED.size:
                *_, direction, target = _MIRRED.unpack_from(parameters)
                return int(target) if direction == _TCA_EGRESS_REDIR else 0
    return 0


def parse_qdisc(body: memoryview) -> QdiscStats:
    """The body of RTM_NEWQDISC with its statistics (TCA_STATS2)."""
    _, found = _fixed(body, _TC)
    queue = dict(attributes(found[7])).get(3) if 7 in found else None
    if queue is None or len(queue) < 12:
        raise ProtocolError("the kernel shows a qdisc without its queue statistics")
    packets, held, drops = struct.unpack_from("=III", queue)
    return QdiscStats(_text(found.get(1)), held, packets, drops)
