"""What holds of every stream: round trip, chunking, truncation, mutation."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import headers, records, writer
from remus_agent.protocol.stream.constants import PageType
from remus_agent.protocol.stream.epoch import parse_epoch
from remus_agent.protocol.stream.preamble import parse_preamble, renamed
from remus_agent.protocol.stream.reader import Event, StreamReader, iter_records

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
PFNS = st.lists(st.integers(0, (1 << 52) - 1), max_size=5)
NAMES = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="/"), min_size=1, max_size=20).filter(
    str.isprintable
)


@dataclass(frozen=True)
class Epoch:
    """Facts of one epoch, and the bytes the writer makes of them."""

    pfns: list[int]
    fill: bytes
    xalloc: list[int]
    tsc: tuple[int, int, int, int]
    context: bytes
    params: list[tuple[int, int]]

    @property
    def content(self) -> bytes:
        return b"".join(bytes([b]) * 4096 for b in self.fill[: len(self.pfns)])

    @property
    def memory(self) -> list[bytes]:
        parts = writer.page_data(np.array(self.pfns, dtype=np.uint64), memoryview(self.content))
        parts += writer.page_xalloc(np.array(self.xalloc, dtype=np.uint64))
        return [b"".join(part) for part in parts]

    @property
    def tail(self) -> list[bytes]:
        return [writer.tsc_info(*self.tsc), writer.hvm_context(self.context), writer.hvm_params(self.params)]

    @property
    def raw(self) -> bytes:
        return b"".join([*self.memory, *self.tail, writer.checkpoint(), writer.checkpoint_end()])


EPOCHS = st.builds(
    Epoch,
    PFNS,
    st.binary(min_size=5, max_size=5),
    PFNS,
    st.tuples(U32, U32, U64, U32),
    st.binary(min_size=1, max_size=100),
    st.lists(st.tuples(U64, U64), max_size=4),
)
CONFIGS = st.dictionaries(
    st.text(max_size=8),
    st.one_of(st.text(max_size=8), st.integers(), st.none(), st.lists(st.booleans())),
    max_size=4,
)


@st.composite
def preambles(draw: st.DrawFn) -> bytes:
    config = draw(CONFIGS) | {"c_info": draw(CONFIGS) | {"name": draw(NAMES)}}
    text = json.dumps(config, indent=draw(st.sampled_from([None, 2])), ensure_ascii=draw(st.booleans()))
    policies = [bytes(size * draw(st.integers(1, 3))) for size in (24, 16)]
    return writer.preamble(text.replace("\x7f", ""), (draw(U32), draw(U32)), policies[0], policies[1])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A complete stream, plain or with checkpoints before its end."""
    epochs = draw(st.lists(EPOCHS, max_size=2))
    last = draw(EPOCHS)
    end = [*last.memory, *last.tail, writer.end_of_libxc(), writer.end_of_libxl()]
    return draw(preambles()) + b"".join(epoch.raw for epoch in epochs) + b"".join(end)


def events_of(chunks: list[bytes]) -> list[Event]:
    reader = StreamReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    reader.close()
    return events


def rebuilt(events: list[Event]) -> bytes:
    """The stream again from what was read."""
    out = bytearray()
    for event in events:
        match event:
            case headers.XlHeader():
                out += headers.pack_xl_header(event.config)
            case headers.LibxlHeader():
                out += headers.pack_libxl_header()
            case headers.ImageHeader():
                out += headers.pack_image_header(event.version)
            case headers.DomainHeader():
                out += headers.pack_domain_header(event.xen, event.type)
            case records.Record():
                out += event.raw
    return bytes(out)


@given(streams())
def test_what_is_read_is_what_was_written(stream: bytes) -> None:
    assert rebuilt(events_of([stream])) == stream


@given(streams(), st.data())
def test_any_chunking_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert events_of(chunks) == events_of([stream])


@settings(max_examples=10)  # thousands of calls
@given(streams())
def test_single_bytes_give_the_same_events(stream: bytes) -> None:
    assert events_of([stream[i : i + 1] for i in range(len(stream))]) == events_of([stream])


@given(streams(), st.data())
def test_every_truncation_is_an_error(stream: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(stream) - 1))
    reader = StreamReader()
    reader.feed(stream[:length])
    with pytest.raises(StreamError, match="truncated") as caught:
        reader.close()
    assert caught.value.offset == length
    assert caught.value.left is not None


@st.composite
def damage(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes changed, removed, doubled or put in, more often near the start where the headers are."""
    out = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(len(out), 300)), st.integers(0, len(out))))
        size = draw(st.integers(0, 16))
        out[at : at + size] = draw(st.one_of(st.binary(max_size=16), st.just(bytes(out[at : at + size]) * 2)))
    return bytes(out)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_stream_parses_or_raises_stream_error(data: st.DataObject) -> None:
    damaged = data.draw(damage(data.draw(streams())))
    try:
        events = events_of([damaged])
    except StreamError as error:
        assert 0 <= error.offset <= len(damaged)
        return
    assert any(isinstance(event, headers.DomainHeader) for event in events)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_preamble_parses_or_raises_stream_error(data: st.DataObject) -> None:
    damaged = data.draw(damage(data.draw(preambles())))
    try:
        preamble = parse_preamble(damaged)
    except StreamError:
        return
    try:
        assert parse_preamble(renamed(damaged, "other")).config["c_info"] == preamble.config["c_info"] | {
            "name": "other"
        }
    except StreamError as error:
        assert "members" in error.message


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_epoch_parses_or_raises_stream_error(data: st.DataObject) -> None:
    damaged = data.draw(damage(data.draw(EPOCHS).raw))
    try:
        epoch = parse_epoch([damaged], (1 << 52) - 1)
    except StreamError as error:
        assert 0 <= error.offset <= len(damaged)
        return
    assert len(epoch.tail) == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_an_error(raw: bytes) -> None:
    try:
        found = list(iter_records(raw))
    except StreamError:
        return
    assert b"".join(record.raw for record in found) == raw


@given(EPOCHS, st.data())
def test_an_epoch_is_read_as_it_was_written_however_its_records_are_grouped(epoch: Epoch, data: st.DataObject) -> None:
    limit = data.draw(st.integers(max(len(r.raw) for r in iter_records(epoch.raw)), len(epoch.raw)))
    views = [b"".join(group) for group in writer.grouped([epoch.raw], limit)]
    assert all(len(view) <= limit for view in views)
    staged = parse_epoch(views, (1 << 52) - 1)
    assert staged.page_records == epoch.memory
    assert staged.tail == epoch.tail
    assert staged.pages == len(epoch.pfns)
    tsc, _, params = (record for view in staged.tail for record in iter_records(view))
    assert records.parse_tsc_info(tsc.body, 0) == records.TscInfo(*epoch.tsc)
    assert records.parse_hvm_params(params.body, 0) == [pair for pair in epoch.params if pair[1]]


@given(EPOCHS, st.integers(0, (1 << 52) - 1))
def test_the_limit_of_pfns_is_kept(epoch: Epoch, limit: int) -> None:
    beyond = any(pfn > limit for pfn in epoch.pfns + epoch.xalloc)
    try:
        parse_epoch([epoch.raw], limit)
    except StreamError as error:
        assert beyond
        assert "beyond the limit" in error.message
    else:
        assert not beyond


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, (1 << 52) - 1)), min_size=1, max_size=40),
    st.integers(-1, 1),
)
def test_page_data_agrees_with_a_plain_reading_of_the_specification(
    entries: list[tuple[int, int]], surplus: int
) -> None:
    known = all(kind in tuple(PageType) for kind, _ in entries)
    pages = sum(kind < 0xD for kind, _ in entries)
    body = b"".join(
        [
            len(entries).to_bytes(4, "little"),
            bytes(4),
            *((kind << 60 | pfn).to_bytes(8, "little") for kind, pfn in entries),
            bytes(max(0, pages + surplus) * 4096),
        ]
    )
    right = known and max(0, pages + surplus) == pages
    try:
        page = records.parse_page_data(memoryview(body), 0, hvm=False)
    except StreamError:
        assert not right
    else:
        assert right
        assert list(zip(page.types.tolist(), page.pfns.tolist(), strict=True)) == entries
        assert page.pages == pages


@given(preambles(), NAMES)
def test_renaming_is_undone_by_renaming_back(preamble: bytes, name: str) -> None:
    before = parse_preamble(preamble)
    changed = renamed(preamble, name)
    after = parse_preamble(changed)
    assert after.name == name
    assert after.config == before.config | {"c_info": before.config["c_info"] | {"name": name}}
    assert (after.xen, after.cpuid, after.msr) == (before.xen, before.cpuid, before.msr)
    assert parse_preamble(renamed(changed, before.name)) == before
