"""Messages of the save helper survive any chunking; whatever else comes ends in one clear error."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from remus_agent.errors import ProtocolError
from remus_agent.protocol.save_helper import Callback, Complete, Decoder, Log, Message, Progress, SwitchQemuLogDirty

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
u32 = st.integers(0, 2**32 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
u64 = st.integers(0, 2**64 - 1)
messages = st.lists(
    st.sampled_from(Callback)
    | st.builds(Log, u32, i32, words, words)
    | st.builds(Progress, words, words, u64, u64)
    | st.builds(SwitchQemuLogDirty, u32, st.booleans())
    | st.builds(Complete, i32, i32),
    max_size=8,
)


def text(value: str) -> bytes:
    raw = value.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw


def wire(message: Message) -> bytes:
    match message:
        case Callback():
            body = struct.pack("<H", message)
        case Log():
            body = struct.pack("<HIi", 1, message.level, message.error) + text(message.context) + text(message.text)
        case Progress():
            numbers = struct.pack("<QQ", message.done, message.total)
            body = b"\x02\0" + text(message.context) + text(message.doing) + numbers
        case SwitchQemuLogDirty():
            body = struct.pack("<HII", 7, message.domid, message.enable)
        case Complete():
            body = struct.pack("<Hii", 10, message.status, message.error)
    return struct.pack("<H", len(body)) + body


@settings(deadline=None)
@given(messages, st.lists(st.integers(1, 700), min_size=1, max_size=20))
def test_any_chunking_gives_the_same_messages(sent: list[Message], sizes: list[int]) -> None:
    data = b"".join(map(wire, sent))
    decoder, found, at, turn = Decoder(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += decoder.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == sent
    assert not decoder.inside


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_messages_or_one_error(data: bytes) -> None:
    whole, pieces = Decoder(), Decoder()
    expected: list[Message] | str
    try:
        expected = whole.feed(data)
    except ProtocolError as error:
        expected = str(error)
    try:
        found = [message for byte in data for message in pieces.feed(bytes([byte]))]
    except ProtocolError as error:
        assert str(error) == expected
    else:
        assert found == expected
