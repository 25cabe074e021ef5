"""Frames survive any chunking; what is not a frame sequence is never taken for one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from remus_agent.errors import ReplicationError
from remus_agent.protocol.replication import message_frames, messages
from remus_agent.protocol.replication.digest import EpochDigest
from remus_agent.protocol.replication.frames import (
    FLAG_LAST,
    HEADER_BYTES,
    Frame,
    FrameDecoder,
    FrameType,
    encode,
)

Plain = tuple[FrameType, int, int, bytes]

payloads = st.lists(st.binary(max_size=200) | st.integers(0, 9000).map(lambda n: bytes(range(256)) * (n // 256)))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(FrameType))
    flags = draw(st.sampled_from((0, FLAG_LAST))) if kind is FrameType.EPOCH_END else 0
    parts = draw(payloads)
    while sum(map(len, parts)) > 64 * 1024:
        parts.pop()
    return Frame(kind, draw(st.integers(0, 2**64 - 1)), flags, parts)


def plain(sequence: Sequence[Frame]) -> list[Plain]:
    return [(f.type, f.epoch, f.flags, f.joined()) for f in sequence]


def wire(sequence: Sequence[Frame]) -> bytes:
    return b"".join(b"".join(encode(frame)) for frame in sequence)


def decode(data: bytes, sizes: Sequence[int]) -> tuple[list[Frame], FrameDecoder]:
    """Through get_buffer and buffer_updated, as a transport that receives at most sizes[i] bytes at a
    time."""
    decoder = FrameDecoder()
    found: list[Frame] = []
    view, turn = memoryview(data), 0
    while view.nbytes and decoder.failed is None:
        room = decoder.get_buffer(-1)
        assert len(room) > 0
        count = min(len(room), len(view), sizes[turn % len(sizes)])
        room[:count] = view[:count]
        view, turn = view[count:], turn + 1
        try:
            found += decoder.buffer_updated(count)
        except ReplicationError:
            assert decoder.failed is not None
    return found, decoder


chunk_sizes = st.lists(st.integers(1, 70000) | st.integers(1, 40), min_size=1, max_size=20)


@given(st.lists(frames(), max_size=6), chunk_sizes)
def test_any_chunking_gives_the_same_frames(sequence: list[Frame], sizes: list[int]) -> None:
    found, decoder = decode(wire(sequence), sizes)
    assert plain(found) == plain(sequence)
    assert decoder.failed is None
    assert decoder.pending == 0


@given(st.lists(frames(), min_size=1, max_size=4), chunk_sizes, st.data())
def test_truncation_gives_whole_frames_and_shows_the_rest(
    sequence: list[Frame], sizes: list[int], data: st.DataObject
) -> None:
    whole = wire(sequence)
    cut = data.draw(st.integers(0, len(whole) - 1))
    found, decoder = decode(whole[:cut], sizes)
    complete, used = 0, 0
    for frame in sequence:
        size = HEADER_BYTES + frame.payload_bytes
        if used + size > cut:
            break
        complete, used = complete + 1, used + size
    assert plain(found) == plain(sequence[:complete])
    assert decoder.failed is None
    assert decoder.pending == cut - used


@given(st.lists(frames(), min_size=1, max_size=4), chunk_sizes, st.data())
def test_a_flipped_bit_is_noticed(sequence: list[Frame], sizes: list[int], data: st.DataObject) -> None:
    whole = bytearray(wire(sequence))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    found, decoder = decode(bytes(whole), sizes)
    hit, used = 0, 0
    for hit, frame in enumerate(sequence):  # noqa: B007 - the frame that was hit is wanted after the loop
        size = HEADER_BYTES + frame.payload_bytes
        if at < used + size:
            break
        used += size
    assert plain(found[:hit]) == plain(sequence[:hit])
    in_stream_payload = sequence[hit].type in {FrameType.STREAM, FrameType.DISK_DATA} and at >= used + HEADER_BYTES
    if in_stream_payload:
        # Framing stays intact; the digest of the epoch covers these bytes.
        assert decoder.failed is None
        sent, received = EpochDigest(), EpochDigest()
        sent.update_all(sequence[hit].payload)
        received.update_all(found[hit].payload)
        assert sent.digest() != received.digest()
    else:
        # Noticed at once, or the decoder still waits for the bytes of a length that grew: a truncation.
        assert len(found) == hit
        assert decoder.failed is not None or decoder.pending > 0


@given(st.binary(max_size=400), chunk_sizes)
def test_any_bytes_end_in_frames_or_an_error(data: bytes, sizes: list[int]) -> None:
    assume(not data.startswith(b"RMUS"))
    found, decoder = decode(data, sizes)
    assert found == []
    assert (decoder.failed is not None) == (len(data) >= HEADER_BYTES)


@given(st.lists(frames(), min_size=1, max_size=3), chunk_sizes, st.binary(min_size=HEADER_BYTES, max_size=200))
def test_frames_before_bad_bytes_do_not_depend_on_the_chunking(
    sequence: list[Frame], sizes: list[int], garbage: bytes
) -> None:
    assume(not garbage.startswith(b"RMUS"))
    found, decoder = decode(wire(sequence) + garbage, sizes)
    assert plain(found) == plain(sequence)
    assert decoder.failed is not None
    with pytest.raises(ReplicationError):
        decoder.get_buffer(-1)
    with pytest.raises(ReplicationError):
        decoder.buffer_updated(1)


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(1, 64), min_size=1))
def test_the_digest_does_not_depend_on_how_bytes_are_cut(parts: list[bytes], sizes: list[int]) -> None:
    data = b"".join(parts)
    one, other = EpochDigest(), EpochDigest()
    one.update_all(parts)
    view, turn = memoryview(data), 0
    while view.nbytes:
        other.update(view[: sizes[turn % len(sizes)]])
        view, turn = view[sizes[turn % len(sizes)] :], turn + 1
    assert one.digest() == other.digest()
    assert one.stream_bytes == other.stream_bytes == len(data)


@given(
    st.sampled_from([k for k in FrameType if k not in {FrameType.STREAM, FrameType.PREAMBLE, FrameType.DISK_DATA}]),
    st.binary(max_size=200),
)
def test_any_payload_is_a_message_or_an_error(kind: FrameType, payload: bytes) -> None:
    frame = Frame(kind, 1, 0, (memoryview(payload),) if payload else ())
    try:
        message = message_frames.decode(frame)
    except ReplicationError:
        return
    assert message_frames.encode(message).joined() == payload


vdevs = st.from_regex(r"[a-z][a-z0-9]{0,31}", fullmatch=True)
sectors = st.integers(1, 128).map(lambda n: n * 512)
digests = st.binary(min_size=16, max_size=16)
epoch_numbers = st.integers(1, 2**64 - 1)
disk_messages = st.one_of(
    st.builds(
        messages.DiskHello,
        session=st.uuids().map(str),
        domain=st.just("web1"),
        vdev=vdevs,
        size=st.integers(1, 2**54 - 1).map(lambda n: n * 512),
        block=sectors,
        map_id=st.uuids().map(str),
    ),
    st.builds(messages.DiskWelcome, session=st.uuids().map(str), vdev=vdevs, same_base=st.booleans()),
    st.builds(
        messages.DiskEpochEnd,
        epoch=epoch_numbers,
        data_bytes=st.integers(0, 2**64 - 1),
        extents=st.integers(0, 2**64 - 1),
        digest=digests,
    ),
    st.builds(messages.DiskAck, epoch=epoch_numbers, digest=digests),
    st.builds(messages.DiskAsk, offset=st.integers(0, 2**64 - 1), length=st.integers(1, messages.MAX_ASKED_BYTES)),
    st.builds(messages.DiskDigests, digests=st.integers(1, 4096).map(lambda n: bytes(16 * n))),
)


@given(st.lists(disk_messages, max_size=6), chunk_sizes)
def test_messages_of_disks_survive_any_chunking(sent: list[messages.Message], sizes: list[int]) -> None:
    found, decoder = decode(wire([message_frames.encode(message) for message in sent]), sizes)
    assert decoder.failed is None
    assert [message_frames.decode(frame) for frame in found] == sent
