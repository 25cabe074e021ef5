"""The frames that tell switches and neighbours where a guest is now, as bytes.

RARP announces the MAC alone, so that switches learn its port anew (QEMU's `announce_self` sends the same,
net/announce.c). Gratuitous ARP (RFC 5227 section 3, request and reply) and unsolicited neighbour
advertisements (RFC 4861 section 7.2.6) refresh the caches of neighbours, for addresses that are known.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from remus_agent.errors import ProtocolError

_BROADCAST: Final = b"\xff" * 6
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_ALL_NODES: Final = IPv6Address("ff02::1").packed
_ETHERTYPE_ARP: Final = 0x0806
_ETHERTYPE_RARP: Final = 0x8035
_ETHERTYPE_IPV6: Final = 0x86DD
_ARP_REQUEST: Final = 1
_ARP_REPLY: Final = 2
_RARP_REQUEST: Final = 3
_ICMPV6: Final = 58
_NEIGHBOUR_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x20000000
_TARGET_LINK_ADDRESS: Final = 2
_MIN_FRAME: Final = 60


def mac_bytes(text: str) -> bytes:
    """Six bytes of `00:16:3e:77:00:64`. Raises ProtocolError for anything else and for group addresses."""
    parts = text.split(":")
    try:
        raw = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        raw = b""
    if len(raw) != 6 or len(parts) != 6 or raw[0] & 1:
        raise ProtocolError(f"{text!r} is no MAC address of an interface")
    return raw


def _frame(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    return (destination + source + struct.pack("!H", ethertype) + payload).ljust(_MIN_FRAME, b"\0")


def _arp(mac: bytes, operation: int, addresses: bytes, ethertype: int = _ETHERTYPE_ARP) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return _frame(_BROADCAST, mac, ethertype, head + mac + addresses)


def rarp(mac: bytes) -> bytes:
    """A RARP request for the MAC's own address."""
    return _arp(mac, _RARP_REQUEST, bytes(4) + mac + bytes(4), _ETHERTYPE_RARP)


def gratuitous_arp(mac: bytes, address: IPv4Address) -> tuple[bytes, bytes]:
    """The announcement as a request and as a reply: some stacks heed only one of the two."""
    own = address.packed
    return (
        _arp(mac, _ARP_REQUEST, own + bytes(6) + own),
        _arp(mac, _ARP_REPLY, own + mac + own),
    )


def neighbour_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """An unsolicited advertisement to all nodes, with the override flag."""
    own = address.packed
    body = own + bytes((_TARGET_LINK_ADDRESS, 1)) + mac

    def icmp(checksum: int) -> bytes:
        return struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, checksum, _OVERRIDE) + body

    pseudo = own + _ALL_NODES + struct.pack("!II", len(icmp(0)), _ICMPV6)
    checked = icmp(_checksum(pseudo + icmp(0)))
    header = struct.pack("!IHBB", 6 << 28, len(checked), _ICMPV6, 255) + own + _ALL_NODES
    return _frame(_ALL_NODES_MAC, mac, _ETHERTYPE_IPV6, header + checked)


def announcements(mac: bytes, addresses: tuple[IPv4Address | IPv6Address, ...] = ()) -> list[bytes]:
    """All frames of one round: the RARP first, then what the known addresses allow."""
    frames = [rarp(mac)]
    for address in addresses:
        if isinstance(address, IPv4Address):
            frames.extend(gratuitous_arp(mac, address))
        else:
            frames.append(neighbour_advertisement(mac, address))
    return frames


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
