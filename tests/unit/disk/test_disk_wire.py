"""Extents there and back as bytes, and everything that is no such payload."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remus_agent.errors import ReplicationError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.wire import HEADER_BYTES, MAX_LENGTH, pack, parse

BLOCK = 512
SIZE = 64 * BLOCK


@st.composite
def extent(draw: st.DrawFn) -> Extent:
    op = draw(st.sampled_from(Op))
    first = draw(st.integers(0, SIZE // BLOCK - 1))
    length = draw(st.integers(1, min(4, SIZE // BLOCK - first))) * BLOCK
    data = bytes([draw(st.integers(0, 255))]) * length if op is Op.WRITE else b""
    return Extent(op, first * BLOCK, length, data)


extents = st.lists(extent(), max_size=6)


def joined(found: list[Extent]) -> bytes:
    return b"".join(pack(found))


@given(extents)
def test_there_and_back(found: list[Extent]) -> None:
    assert parse(joined(found), size=SIZE, block=BLOCK) == found


def test_the_bytes() -> None:
    found = [Extent(Op.ZERO, 1 << 40, 1024), Extent(Op.WRITE, 512, 512, b"a" * 512)]
    zero = bytes.fromhex("02 000000 00040000 0000000000010000")
    write = bytes.fromhex("01 000000 00020000 0002000000000000")
    assert joined(found) == zero + write + b"a" * 512


def test_data_is_never_copied() -> None:
    data = memoryview(bytearray(b"a" * 512))
    assert pack([Extent(Op.WRITE, 0, 512, data)])[1] is data
    payload = joined([Extent(Op.WRITE, 0, 512, data)])
    (found,) = parse(payload, size=SIZE, block=BLOCK)
    assert isinstance(found.data, memoryview)
    assert found.data.obj is payload


@given(extents.filter(bool), st.data())
def test_every_truncation_is_named(found: list[Extent], data: st.DataObject) -> None:
    payload = joined(found)
    ends = {len(joined(found[:count])) for count in range(len(found) + 1)}
    cut = data.draw(st.integers(0, len(payload) - 1).filter(lambda at: at not in ends))
    start = max(end for end in ends if end < cut)
    if cut - start < HEADER_BYTES:
        expected = f"byte {start}: expected a header of 16 bytes, found {cut - start} bytes"
    else:
        length = found[sorted(ends).index(start)].length
        expected = (
            f"byte {start + HEADER_BYTES}: expected {length} bytes of data, found {cut - start - HEADER_BYTES} bytes"
        )
    with pytest.raises(ReplicationError, match=re.escape(expected)):
        parse(payload[:cut], size=SIZE, block=BLOCK)


@settings(max_examples=300)
@given(extents.filter(bool), st.data())
def test_a_flipped_bit_of_a_header_is_an_error_or_another_extent(found: list[Extent], data: st.DataObject) -> None:
    """What the format can't see, the digest of the epoch does; but nothing that is outside the disk comes through."""
    index = data.draw(st.integers(0, len(found) - 1))
    bit = data.draw(st.integers(0, HEADER_BYTES * 8 - 1))
    payload = bytearray(joined(found))
    start = len(joined(found[:index]))
    payload[start + bit // 8] ^= 1 << (bit % 8)
    try:
        other = parse(payload, size=SIZE, block=BLOCK)
    except ReplicationError as error:
        assert re.search(r"byte \d+: expected .+, found .+", str(error))
        assert int(re.search(r"byte (\d+)", str(error))[1]) >= start  # type: ignore[index]
        return
    assert other != found
    assert bit // 8 not in {1, 2, 3}
    assert all(0 <= e.offset < e.end <= SIZE and (e.offset | e.length) % BLOCK == 0 for e in other)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((0, b"\0\0\0", 512, 0), "byte 0: expected an operation from 1 to 3, found 0"),
        ((4, b"\0\0\0", 512, 0), "byte 0: expected an operation from 1 to 3, found 4"),
        ((2, b"\0\1\0", 512, 0), "byte 1: expected three zero bytes, found 000100"),
        ((2, b"\0\0\0", 0, 0), "byte 4: expected a length from 512 to 2147483648 in multiples of 512, found 0"),
        ((2, b"\0\0\0", 100, 0), "found 100"),
        ((2, b"\0\0\0", MAX_LENGTH + 512, 0), "byte 4: expected a length"),
        ((2, b"\0\0\0", 512, 100), "byte 8: expected an offset that is a multiple of 512, found 100"),
        (
            (3, b"\0\0\0", 1024, SIZE - 512),
            f"byte 8: .* inside the disk of {SIZE} bytes, found its end at {SIZE + 512}",
        ),
        ((3, b"\0\0\0", 512, 2**64 - 512), "byte 8: .* inside the disk"),
    ],
)
def test_bad_headers(header: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ReplicationError, match=message):
        parse(struct.pack("<B3sIQ", *header) + bytes(512), size=SIZE, block=BLOCK)


@pytest.mark.parametrize(
    "bad",
    [
        Extent(Op.WRITE, 0, 512, bytes(511)),
        Extent(Op.ZERO, 0, 512, bytes(512)),
        Extent(Op.ZERO, 0, MAX_LENGTH + 512),
        Extent(Op.DISCARD, 0, 0),
    ],
    ids=str,
)
def test_what_has_no_bytes(bad: Extent) -> None:
    with pytest.raises(ReplicationError, match="expected"):
        pack([bad])


def test_more_extents_than_there_may_be_are_refused() -> None:
    payload = b"".join(pack([Extent(Op.DISCARD, 8192 * n, 4096) for n in range(3)]))
    assert len(parse(payload, size=1 << 20, block=512, most=3)) == 3
    with pytest.raises(ReplicationError, match="byte 32: expected at most 2 extents, found more"):
        parse(payload, size=1 << 20, block=512, most=2)
