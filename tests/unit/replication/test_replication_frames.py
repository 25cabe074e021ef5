from __future__ import annotations

import struct
from zlib import crc32

import numpy as np
import pytest

from remus_agent.errors import ReplicationError
from remus_agent.protocol.replication.digest import EpochDigest, commit_digest
from remus_agent.protocol.replication.frames import (
    FLAG_LAST,
    HEADER_BYTES,
    Frame,
    FrameDecoder,
    FrameType,
    encode,
    payload_limit,
)


def header(kind: int, length: int, *, flags: int = 0, member: int = 0, epoch: int = 0, payload: bytes = b"") -> bytes:
    start = struct.pack("<4sBBHQI", b"RMUS", kind, flags, member, epoch, length)
    return start + struct.pack(
        "<I", crc32(start) ^ (crc32(payload) if kind not in {FrameType.STREAM, FrameType.DISK_DATA} else 0)
    )


def test_the_bytes_of_a_frame() -> None:
    frame = Frame(FrameType.MEMORY_ACK, 7, 0, (b"ab", b"cd"))
    assert b"".join(encode(frame)) == header(7, 4, epoch=7, payload=b"abcd") + b"abcd"


def test_a_stream_header_is_checked_without_its_payload() -> None:
    assert encode(Frame(FrameType.STREAM, 7, 0, (b"abcd",)))[0] == header(5, 4, epoch=7)
    assert encode(Frame(FrameType.DISK_DATA, 7, 0, (b"abcd",)))[0] == header(14, 4, epoch=7)


def test_large_buffers_are_passed_on_and_not_copied() -> None:
    pages = memoryview(bytearray(8192))
    parts = encode(Frame(FrameType.STREAM, 1, 0, (b"head", pages)))
    assert parts[2] is pages


def test_buffers_of_wider_items_are_counted_in_bytes() -> None:
    pfns = memoryview(np.arange(4, dtype=np.uint64))
    parts = encode(Frame(FrameType.STREAM, 1, 0, (pfns,)))
    assert parts[0] == header(5, 32, epoch=1)
    assert len(parts[1]) == 32


def test_a_received_payload_is_one_read_only_view() -> None:
    data = b"".join(encode(Frame(FrameType.STREAM, 1, 0, (b"x" * 100_000,))))
    (frame,) = FrameDecoder().feed(data)
    (view,) = frame.payload
    assert isinstance(view, memoryview)
    assert view.readonly
    assert view == b"x" * 100_000


def test_large_payloads_are_received_in_the_place_where_they_stay() -> None:
    decoder = FrameDecoder()
    data = b"".join(encode(Frame(FrameType.STREAM, 1, 0, (b"y" * 1_000_000,))))
    room = decoder.get_buffer(-1)
    room[:HEADER_BYTES] = data[:HEADER_BYTES]
    assert decoder.buffer_updated(HEADER_BYTES) == []
    room = decoder.get_buffer(-1)
    assert len(room) == 1_000_000
    room[:] = data[HEADER_BYTES:]
    (frame,) = decoder.buffer_updated(1_000_000)
    payload = frame.payload[0]
    assert isinstance(payload, memoryview)
    assert payload.obj is room.obj


@pytest.mark.parametrize("kind", FrameType)
def test_the_limit_is_checked_before_anything_is_allocated(kind: FrameType) -> None:
    decoder = FrameDecoder()
    with pytest.raises(ReplicationError, match="the limit is"):
        decoder.feed(header(kind, payload_limit(kind) + 1))
    decoder = FrameDecoder()
    decoder.feed(header(kind, payload_limit(kind)))
    assert len(decoder.get_buffer(-1)) == payload_limit(kind)


def test_limits() -> None:
    assert payload_limit(FrameType.STREAM) == 8 << 20
    assert payload_limit(FrameType.PREAMBLE) == 16 << 20
    assert payload_limit(FrameType.DISK_DATA) == 8 << 20
    assert {payload_limit(k) for k in FrameType if k.name not in {"STREAM", "PREAMBLE", "DISK_DATA"}} == {64 << 10}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP" + bytes(20), "starts with 48545450"),
        (header(22, 0), "unknown frame type 22"),
        (header(0, 0), "unknown frame type 0"),
        (header(9, 0, member=1), "HEARTBEAT is of no member"),
        (header(6, 1, member=1), "EPOCH_END is of no member"),
        (header(9, 0, flags=1), "unknown flags"),
        (header(6, 0, flags=2), "unknown flags"),
        (header(9, 2, payload=b"ab") + b"ac", "check of HEARTBEAT"),
        (header(5, 2)[:-1] + b"\x00ab", "header check of STREAM"),
        (header(14, 2)[:-1] + b"\x00ab", "header check of DISK_DATA"),
        (header(15, 2, payload=b"ab") + b"ac", "check of DISK_END"),
    ],
)
def test_bad_bytes(data: bytes, message: str) -> None:
    decoder = FrameDecoder()
    with pytest.raises(ReplicationError, match=message):
        decoder.feed(data)
    with pytest.raises(ReplicationError, match=message):
        decoder.get_buffer(-1)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameType.HEARTBEAT, 0, 1),
        Frame(FrameType.EPOCH_END, 1, 2),
        Frame(FrameType.STREAM, -1),
        Frame(FrameType.STREAM, 2**64),
        Frame(FrameType.HELLO, 0, 0, (bytes(64 * 1024 + 1),)),
        Frame(FrameType.STREAM, 1, 0, (memoryview(bytes(100))[::2],)),
    ],
)
def test_what_the_other_side_would_refuse_is_not_sent(frame: Frame) -> None:
    with pytest.raises(ReplicationError):
        encode(frame)


def test_last_flag() -> None:
    (frame,) = FrameDecoder().feed(b"".join(encode(Frame(FrameType.EPOCH_END, 3, FLAG_LAST))))
    assert frame.last
    assert not Frame(FrameType.EPOCH_END, 3).last


def test_digest_is_xxh3_128() -> None:
    # Known value of the empty input, from the xxHash specification.
    assert EpochDigest().digest().hex() == "99aa06d3014798d86001c324468d497f"


def test_a_commit_record_covers_every_disk_in_the_order_of_their_names() -> None:
    memory, one, two = b"m" * 16, b"1" * 16, b"2" * 16
    assert commit_digest(memory, {}) == memory
    both = commit_digest(memory, {"xvdb": two, "xvda": one})
    expected = EpochDigest()
    expected.update_all((memory, one, two))
    assert both == expected.digest()
    assert both != commit_digest(memory, {"xvda": two, "xvdb": one})
