"""What holds of the streams of every guest type: round trip, chunks and views, each truncation, mutation."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import samples
from streams.samples import CHECKPOINT, CHECKPOINT_END, PLAIN_END

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import bodies, records
from remus_agent.protocol.stream.constants import EmulatorId, GuestType, Layer
from remus_agent.protocol.stream.epoch import parse_epoch
from remus_agent.protocol.stream.reader import Event, Position, StreamReader, iter_records

STREAMS = {**samples.WHOLE, **samples.OPEN}
LEFT = {position.value for position in Position}
PV_PFNS = st.lists(st.integers(0, 0x3FF), min_size=1, max_size=4)
PV_TYPES = st.sampled_from([0, 1, 2, 3, 4, 9, 0xA, 0xB, 0xC, 0xD, 0xE, 0xF])
HVM_TYPES = st.sampled_from([0, 0xD, 0xE, 0xF])
KEYS = st.text("abcXYZ019/_@-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)


@st.composite
def pv_states(draw: st.DrawFn) -> bytes:
    """The state of a PV guest: some vcpus are offline, not every record is written."""
    out = [samples.tsc_info(), samples.shared_info()]
    for vcpu in draw(st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True).map(sorted)):
        basic, *more = samples.vcpu_records(vcpu)
        out += [basic, *(record for record in more if draw(st.booleans()))]
        out += draw(st.lists(st.sampled_from([samples.vcpu(6, vcpu, b""), samples.vcpu(0xC, vcpu, b"")]), max_size=1))
    return b"".join(out)


@st.composite
def guests(draw: st.DrawFn) -> bytes:
    """A whole stream of any guest: some epochs, optional records anywhere, ended by its sender."""
    pv = draw(st.booleans())
    kinds = PV_TYPES if pv else HVM_TYPES
    emulator = b"" if pv else draw(st.sampled_from([b"", samples.emulator()]))
    optional = st.sampled_from([b"", b"", records.pack_record(0x80000013, b"later")])

    def memory() -> bytes:
        return samples.page_data([(draw(kinds), pfn) for pfn in draw(PV_PFNS)], draw(st.integers(0, 255)))

    def state() -> bytes:
        return draw(pv_states()) if pv else samples.hvm_state(draw(st.binary(min_size=1, max_size=40)))

    version = draw(st.sampled_from([2, 3]))
    out = [samples.start(samples.PV if pv else samples.HVM, version), draw(optional)]
    out += [samples.p2m_frames() if pv else b"", memory(), draw(optional)]
    for _ in range(draw(st.integers(0, 2))):
        out += [memory() if draw(st.booleans()) else b"", state(), CHECKPOINT, emulator, draw(optional), CHECKPOINT_END]
    return b"".join([*out, state(), PLAIN_END[:8], emulator, draw(optional), PLAIN_END[8:]])


def read(chunks: list[bytes], *, own: bool = True) -> list[Event]:
    """All events of a stream that must be whole."""
    reader = StreamReader()
    events = [event for chunk in chunks for event in (reader.feed(chunk) if own else reader.views(chunk))]
    reader.close()
    return events


@settings(max_examples=60)
@given(guests(), st.data())
def test_every_guests_stream_is_read_alike_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    events = read([stream])
    found = [event for event in events if isinstance(event, records.Record)]
    assert b"".join(bytes(record.raw) for record in found[1:]) == stream[found[1].offset :]
    assert [record.ordinal for record in found] == list(range(1, len(found) + 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    assert read(chunks) == read(chunks, own=False) == events


@pytest.mark.parametrize("name", STREAMS)
def test_every_truncation_point_gives_one_defined_error(name: str) -> None:
    """Each end of record and the bytes around it, and some inside; `left` tells an epoch's inside from between."""
    stream = STREAMS[name]
    whole = StreamReader()
    ends = [event.offset + len(event.raw) for event in whole.feed(stream) if isinstance(event, records.Record)]
    points = {at + step for at in [0, 48, *ends] for step in (-1, 0, 1)} | set(range(3, len(stream), 997))
    reader, fed = StreamReader(), 0
    for point in sorted(point for point in points if 0 <= point < len(stream)):
        reader.feed(stream[fed:point])
        fed = point
        copy = StreamReader()
        copy.feed(stream[:point])
        with pytest.raises(StreamError, match="truncated") as caught:
            copy.close()
        error = caught.value
        assert error.offset == point
        assert error.left == f"{reader.position.value}, {reader.checkpoints} checkpoints complete"
        assert None not in (error.layer, error.record, error.expected, error.found)
        with pytest.raises(StreamError) as again:
            copy.close()
        assert again.value is error


@settings(max_examples=200)
@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_mutated_streams_are_read_or_refused_with_a_place(name: str, data: st.DataObject) -> None:
    stream = bytearray(STREAMS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 400), st.integers(0, len(stream) - 1))) % len(stream)
        stream[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 5, 0x10, 0x80, 0xFF])))
    reader = StreamReader()
    try:
        list(reader.views(bytes(stream)))
        reader.close()
    except StreamError as error:
        assert 0 <= error.offset <= len(stream)
        assert None not in (error.layer, error.record, error.start, error.expected, error.found)
        assert str(error).endswith(")") or error.left or error.hint


@given(
    st.sampled_from([GuestType.PVH, GuestType.HVM, GuestType.PV]),
    pv_states(),
    st.booleans(),
    st.data(),
)
def test_an_epoch_of_any_guest_is_sorted_without_loss(
    guest: GuestType, pv_state: bytes, device_model: bool, data: st.DataObject
) -> None:
    pages = [samples.page_data([(0, pfn)]) for pfn in data.draw(PV_PFNS)]
    state = pv_state if guest is GuestType.PV else samples.hvm_state()
    emulator = samples.emulator() if guest is GuestType.HVM and device_model else b""
    whole = b"".join([*pages, state, CHECKPOINT, emulator, CHECKPOINT_END])
    views = [record.raw for record in iter_records(whole)]
    cut = data.draw(st.integers(0, len(views)))
    epoch = parse_epoch([b"".join(views[:cut]), b"".join(views[cut:])], 0x3FF, guest)
    assert b"".join(epoch.page_records) == b"".join(pages)
    assert b"".join(epoch.tail) == state
    assert b"".join(epoch.emulator) == emulator
    assert epoch.pages == len(pages)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=6), st.integers(0, 2), st.integers(0, (1 << 32) - 1))
def test_xenstore_pairs_come_back(pairs: list[tuple[str, str]], emulator: int, index: int) -> None:
    text = "".join(f"{key}\0{value}\0" for key, value in pairs).encode()
    body = memoryview(struct.pack("<II", emulator, index) + text)
    assert bodies.parse_emulator_xenstore_data(body, 0) == bodies.EmulatorXenstoreData(
        EmulatorId(emulator), index, tuple(pairs)
    )


@given(st.sampled_from(list(Layer)), st.integers(0, 0x14), st.binary(max_size=120), st.booleans())
def test_any_body_is_typed_or_refused(layer: Layer, kind: int, body: bytes, hvm: bool) -> None:
    (record,) = iter_records(records.pack_record(kind, body), layer=layer)
    checks: tuple[Callable[[], object], ...] = (
        lambda: records.check_record(record, hvm=hvm, colo=True),
        lambda: records.parse_body(record, hvm=hvm),
    )
    for check in checks:
        try:
            typed = check()
        except StreamError as error:
            assert 0 <= error.offset <= 8 + len(body)
            continue
        if isinstance(typed, np.ndarray):
            assert typed.nbytes == len(body)
