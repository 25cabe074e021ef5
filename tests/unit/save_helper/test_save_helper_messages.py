"""Messages of Xen's save helper, byte by byte."""

from __future__ import annotations

import struct

import pytest

from remus_agent.errors import ProtocolError
from remus_agent.protocol import save_helper
from remus_agent.protocol.save_helper import Callback, Complete, Decoder, Log, Message, Progress, SwitchQemuLogDirty


def framed(body: bytes) -> bytes:
    return struct.pack("<H", len(body)) + body


def text(value: bytes) -> bytes:
    return struct.pack("<I", len(value) + 1) + value + b"\0"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("0200 0300", Callback.SUSPEND),
        ("0200 0400", Callback.POSTCOPY),
        ("0200 0500", Callback.CHECKPOINT),
        ("0200 0600", Callback.WAIT_CHECKPOINT),
        ("0a00 0700 07000000 01000000", SwitchQemuLogDirty(7, True)),
        ("0a00 0a00 ffffffff 16000000", Complete(-1, 22)),
        ("1900 0100 01000000 ffffffff 03000000 786300 04000000 61626300", Log(1, -1, "xc", "abc")),
        (
            "1f00 0200 03000000 786300 02000000 4600 0500000000000000 0900000000000000",
            Progress("xc", "F", 5, 9),
        ),
    ],
)
def test_each_message(raw: str, message: Message) -> None:
    assert Decoder().feed(bytes.fromhex(raw)) == [message]


def test_a_message_may_come_in_pieces() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x02") == []
    assert decoder.inside
    assert decoder.feed(b"\0\x03\0\x02\0\x05") == [Callback.SUSPEND]
    assert decoder.feed(b"\0") == [Callback.CHECKPOINT]
    assert not decoder.inside


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends inside a number"),
        (b"\x03", "ends inside a number"),
        (b"\x03\0\0", "1 bytes follow the arguments"),
        (b"\x08\0\0\0\0\0", "message 8 is none"),
        (b"\x0b\0", "message 11 is none"),
        (b"\x0a\0\0\0\0\0", "ends inside a number"),
        (b"\x01\0" + bytes(8) + struct.pack("<I", 0) + text(b"x"), "a string of 0 bytes"),
        (b"\x01\0" + bytes(8) + struct.pack("<I", 2) + b"xy" + text(b"x"), "has no NUL"),
        (b"\x01\0" + bytes(8) + text(b"xc") + struct.pack("<I", 2**32 - 1) + b"x\0", "cut off"),
    ],
)
def test_what_is_no_message_is_refused_for_good(body: bytes, reason: str) -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match=reason):
        decoder.feed(framed(body))
    with pytest.raises(ProtocolError, match=reason):
        decoder.feed(framed(b"\x03\0"))


def test_how_the_helper_is_started_and_answered() -> None:
    assert save_helper.arguments(9, 7) == ["--save-domain", "9", "-1", "7", "1", "184", "1"]
    assert save_helper.reply(save_helper.CONTINUE) == b"\x01\0\0\0"
    assert save_helper.reply(-1) == b"\xff\xff\xff\xff"
