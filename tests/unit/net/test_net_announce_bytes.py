"""Exact bytes of the frames that announce a guest."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from remus_agent.errors import ProtocolError
from remus_agent.protocol import announce

MAC_TEXT = "00:16:3e:77:00:64"
MAC = bytes.fromhex("00163e770064")
ALL = "ffffffffffff00163e770064"


def test_rarp_is_what_qemu_sends() -> None:
    expected = ALL + "8035000108000604000300163e7700640000000000163e77006400000000"
    assert announce.rarp(MAC).hex() == expected + "00" * 18


def test_gratuitous_arp_is_a_request_and_a_reply() -> None:
    head = ALL + "0806000108000604"
    request, reply = announce.gratuitous_arp(MAC, IPv4Address("10.77.0.100"))
    assert request.hex() == head + "000100163e7700640a4d00640000000000000a4d0064" + "00" * 18
    assert reply.hex() == head + "000200163e7700640a4d006400163e7700640a4d0064" + "00" * 18


def test_neighbour_advertisement() -> None:
    frame = announce.neighbour_advertisement(MAC, IPv6Address("fd77::100"))
    own = "fd770000000000000000000000000100"
    nodes = "ff020000000000000000000000000001"
    head = "33330000000100163e77006486dd6000000000203aff" + own + nodes
    assert frame[:56].hex() == head + "8800"
    assert frame[58:].hex() == "20000000" + own + "020100163e770064"


def test_the_checksum_of_the_advertisement_is_right() -> None:
    frame = announce.neighbour_advertisement(MAC, IPv6Address("fd77::100"))
    covered = frame[22:54] + struct.pack("!II", 32, 58) + frame[54:]
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_what_is_sent_follows_from_what_is_known() -> None:
    assert announce.announcements(MAC) == [announce.rarp(MAC)]
    known = (IPv4Address("10.77.0.100"), IPv6Address("fd77::100"))
    assert [frame[12:14].hex() for frame in announce.announcements(MAC, known)] == [
        "8035",
        "0806",
        "0806",
        "86dd",
    ]


def test_mac_addresses() -> None:
    assert announce.mac_bytes(MAC_TEXT) == MAC
    for wrong in (
        "",
        "00:16:3e:77:00",
        "00:16:3e:77:00:6",
        "01:16:3e:77:00:64",
        "00:16:3e:77:00:zz",
        "0016:3e:77:00:64",
    ):
        with pytest.raises(ProtocolError):
            announce.mac_bytes(wrong)
