"""Exact bytes of the plug messages and of the kernel's answers (little-endian hosts; x86-64 is the only one
Xen guests run on here)."""

from __future__ import annotations

import struct
import sys

import pytest

from remus_agent.errors import ProtocolError
from remus_agent.protocol import plug
from remus_agent.protocol.plug import Ack, PlugAction

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian")

HEAD = "3c000000240005000700000000000000"  # length 60, RTM_NEWQDISC, REQUEST|ACK, sequence 7, port 0
TCMSG = "000000000900000000000000ffffffff00000000"  # ifindex 9, handle 0, parent root, info 0
KIND = "09000100706c756700000000"  # TCA_KIND "plug", padded


@pytest.mark.parametrize(
    ("action", "limit", "option"),
    [
        (PlugAction.BUFFER, 0, "0000000000000000"),
        (PlugAction.RELEASE_ONE, 0, "0100000000000000"),
        (PlugAction.RELEASE_INDEFINITE, 0, "0200000000000000"),
        (PlugAction.LIMIT, 0x04000000, "0300000000000004"),
    ],
)
def test_change(action: PlugAction, limit: int, option: str) -> None:
    message = plug.change(9, action, limit=limit, sequence=7)
    assert message.hex() == HEAD + TCMSG + KIND + "0c000200" + option
    assert plug.change(9, int(action), limit=limit, sequence=7) == message


def test_create_asks_for_an_exclusive_new_one() -> None:
    head = HEAD.replace("0500", "0506", 1)
    assert plug.create(9, 65536, 7).hex() == head + TCMSG + KIND + "0c0002000000000000000100"


@pytest.mark.parametrize("action", [4, -1, 255])
def test_an_unknown_action_is_refused(action: int) -> None:
    with pytest.raises(ProtocolError, match=f"no action {action}"):
        plug.change(9, action)


@pytest.mark.parametrize(
    ("ifindex", "action", "limit"),
    [
        (0, PlugAction.BUFFER, 0),
        (-1, PlugAction.BUFFER, 0),
        (1 << 31, PlugAction.BUFFER, 0),
        (9, PlugAction.BUFFER, 1),
        (9, PlugAction.LIMIT, 0),
        (9, PlugAction.LIMIT, 1 << 32),
    ],
)
def test_a_wrong_interface_or_limit_is_refused(ifindex: int, action: PlugAction, limit: int) -> None:
    with pytest.raises(ProtocolError):
        plug.change(ifindex, action, limit=limit)


@pytest.mark.parametrize("limit", [0, -1, 1 << 32])
def test_a_plug_is_not_made_without_a_limit(limit: int) -> None:
    with pytest.raises(ProtocolError):
        plug.create(9, limit)


def answer(code: int, sequence: int = 7, kind: int = 2, flags: int = 0x100, rest: bytes = b"") -> bytes:
    body = struct.pack("=i", code) + plug.change(9, PlugAction.BUFFER, sequence=sequence)[:16] + rest
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 4711) + body


def test_success_and_failure_are_told_apart() -> None:
    assert plug.parse_acks(answer(0)) == [Ack(7, 0)]
    assert plug.parse_acks(answer(-2) + answer(0, 8)) == [Ack(7, 2), Ack(8, 0)]


def test_the_quick_check_knows_only_the_plain_acknowledgement() -> None:
    plain = bytearray(answer(0)) + bytes(100)
    assert plug.is_success(plain, 36, 7)
    assert not plug.is_success(plain, 36, 8)
    assert not plug.is_success(plain, 37, 7)
    for other in (answer(-2), answer(1), answer(0, kind=3)):
        assert not plug.is_success(bytearray(other), len(other), 7)
    assert not plug.is_success(bytearray(answer(0) + answer(0, 8)), 72, 7)


def test_the_kernels_words_are_kept() -> None:
    text = b"Specified qdisc kind is unknown.\0"
    words = struct.pack("=HH", 4 + len(text), 1) + text + bytes(-len(text) % 4)
    assert plug.parse_acks(answer(-2, flags=0x300, rest=words)) == [Ack(7, 2, "Specified qdisc kind is unknown.")]
    echo = plug.change(9, PlugAction.BUFFER, sequence=7)[16:]
    assert plug.parse_acks(answer(-2, flags=0x200, rest=echo + words))[0].message == text[:-1].decode()


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0" * 15,
        answer(0)[:-1],
        answer(0) + b"\0" * 8,
        answer(0, kind=3),
        answer(0, kind=36),
        answer(1),
        answer(-4096),
        struct.pack("=IHHII", 20, 2, 0, 7, 0) + bytes(4),
        struct.pack("=IHHII", 8, 2, 0, 7, 0),
        answer(-2, flags=0x300, rest=b"\xff\xff\x01\x00"),
    ],
)
def test_an_answer_that_is_none_is_refused(datagram: bytes) -> None:
    with pytest.raises(ProtocolError):
        plug.parse_acks(datagram)
