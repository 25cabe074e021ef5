"""The order of records as a table, and what each guest's records need of each other."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from streams import samples
from streams.samples import CHECKPOINT, CHECKPOINT_END, END, PLAIN_END

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import headers, order, records
from remus_agent.protocol.stream.order import ROWS, Order, Position, Stage
from remus_agent.protocol.stream.reader import StreamReader

DOCS = Path(__file__).parents[3] / "docs"
START = samples.start()
PV = samples.start(samples.PV)
P2M = samples.p2m_frames()
PAGES = samples.page_data([(0, 1)])
STATE = samples.hvm_state()
BASIC, EXTENDED, XSAVE, MSRS = samples.vcpu_records(0)
TSC, SHARED = samples.tsc_info(), samples.shared_info()
PV_START = PV + P2M + PAGES
EPOCH = STATE + CHECKPOINT + CHECKPOINT_END
EMULATOR = samples.emulator()


def test_every_stage_is_reached_left_and_explained() -> None:
    reached = {order.START} | {row.then for row in ROWS}
    assert reached == set(Stage)
    assert {row.stage for row in ROWS} == set(Stage) - {Stage.ENDED}
    assert all(row.comment.endswith(".") for row in ROWS)
    assert len({(row.stage, row.kind, row.colo) for row in ROWS}) == len(ROWS)


def test_the_documented_diagram_is_the_table() -> None:
    assert order.mermaid() in (DOCS / "protocol.md").read_text()


def test_every_position_is_one_of_a_stage() -> None:
    found = set()
    for stage in Stage:
        at = Order()
        at.enter(stage)
        found.add(at.position)
    assert found == set(Position)


@pytest.mark.parametrize("name", samples.WHOLE)
def test_whole_streams_are_read_to_their_end(name: str) -> None:
    reader = StreamReader()
    events = reader.feed(samples.WHOLE[name])
    reader.close()
    assert reader.position is Position.ENDED
    assert reader.records_read == sum(isinstance(event, records.Record) for event in events)


def test_a_stream_of_colo_is_read_as_such_only() -> None:
    reader = StreamReader(colo=True)
    stream = samples.colo()
    new = stream.index(struct.pack("<IIII", 5, 8, 0, 0))
    reader.feed(stream[:new])
    assert reader.position is Position.BETWEEN_EPOCHS
    reader.feed(stream[new:])
    assert reader.checkpoints == 2
    with pytest.raises(StreamError, match="CHECKPOINT_STATE records exist in streams of COLO only") as caught:
        StreamReader().feed(stream)
    assert caught.value.offset == new


def test_the_end_of_static_data_is_read_or_inferred() -> None:
    for version in (2, 3):
        reader = StreamReader()
        reader.feed(samples.start(samples.HVM, version)[: None if version == 2 else -8])
        assert (reader.static_data_end, reader.position) == (None, Position.STATIC)
        reader.feed(samples.page_data([(0, 1)]) if version == 2 else samples.pack_record(0x10))
        assert reader.static_data_end == len(samples.start(samples.HVM, version)) - (0 if version == 2 else 8)
        assert reader.position is Position.MEMORY


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # static data
        (START[:-8] + samples.policies(), "libxc's X86_CPUID_POLICY twice in a stream"),
        (samples.start(samples.PV, static=samples.pv_info() * 2), "libxc's X86_PV_INFO twice in a stream"),
        (samples.start(samples.PV, static=samples.pack_record(0x10)), "without its X86_PV_INFO"),
        (samples.start(samples.PV, 2, static=P2M), "without its X86_PV_INFO"),
        (PV + samples.pv_info(), "libxc's X86_PV_INFO twice in a stream"),
        (START + samples.pv_info(), "X86_PV_INFO in the stream of an HVM or PVH guest"),
        # memory
        (PV + PAGES, "PAGE_DATA without X86_PV_P2M_FRAMES before it"),
        (PV + samples.p2m_frames(0, 0x3FF, [7]), "wrong number of frames .* 0x0 to 0x3ff; expected 2, found 1"),
        (PV + samples.p2m_frames(0x200, 0x3FF), "pfns 0x200 to 0x3ff; expected 1, found 2"),
        (PV + P2M + samples.page_data([(0, 0x400)]), "pfn beyond the limit; expected at most 0x3ff, found 0x400"),
        (START + samples.pack_record(0xD) * 2, "libxc's VERIFY twice in a stream"),
        (START + samples.page_data([(4, 1)]), "only PV guests have page tables"),
        (START + STATE + samples.pack_record(0xD), "libxc's VERIFY after the first processor state"),
        # the state of PV guests
        (PV + P2M + BASIC, "X86_PV_VCPU_BASIC without PAGE_DATA before it"),
        (PV_START + SHARED + SHARED, "SHARED_INFO twice in an epoch"),
        (PV_START + TSC + BASIC + BASIC, "X86_PV_VCPU_BASIC of vcpu 0 twice in an epoch"),
        (PV_START + TSC + BASIC + PLAIN_END, "libxc's END without SHARED_INFO before it"),
        (PV_START + TSC + SHARED + PLAIN_END, "libxc's END without X86_PV_VCPU_BASIC of vcpu 0"),
        (PV_START + SHARED + BASIC + samples.vcpu(5, 3, b"x") + CHECKPOINT, "X86_PV_VCPU_BASIC of vcpu 3"),
        (PV_START + SHARED + samples.vcpu(4, 0, b"") + PLAIN_END, "without X86_PV_VCPU_BASIC of vcpu 0"),
        (PV_START + samples.vcpu(4, 0, bytes(2800)), "expected 5168 bytes for a guest of 64 bits, found 2800"),
        (PV_START + samples.pack_record(9, b"x"), "HVM_CONTEXT in the stream of a PV guest"),
        (PV_START + samples.pv_state() + CHECKPOINT + EMULATOR, "EMULATOR_XENSTORE_DATA in the stream of a PV guest"),
        # hand-over between the layers
        (START + EPOCH + CHECKPOINT, "libxc's CHECKPOINT without HVM_CONTEXT before it"),
        (START[:-8] + CHECKPOINT, "libxc's CHECKPOINT before STATIC_DATA_END"),
        (START[:-8] + PAGES, "libxc's PAGE_DATA before STATIC_DATA_END"),
        (START + EPOCH + TSC + CHECKPOINT, "libxc's CHECKPOINT without HVM_CONTEXT before it"),
        (START + EPOCH + PAGES + CHECKPOINT, "libxc's CHECKPOINT without HVM_CONTEXT before it"),
        (START + STATE + CHECKPOINT + END, "libxl's END inside a checkpoint"),
        (START + STATE + END + CHECKPOINT_END, "libxl's CHECKPOINT_END after libxc's END"),
        (START + STATE + CHECKPOINT + samples.pack_record(1), "libxl's LIBXC_CONTEXT inside a checkpoint"),
        (START + STATE + CHECKPOINT + EMULATOR * 2, "a second EMULATOR_XENSTORE_DATA of the same emulator"),
        (
            START + STATE + CHECKPOINT + b"".join(samples.emulator(index=n) for n in range(33)),
            "too many emulator records; expected at most 64",
        ),
        (START + STATE + PLAIN_END + b"xyz", "bytes after the end of the stream"),
    ],
)
def test_streams_that_are_refused(data: bytes, message: str) -> None:
    reader = StreamReader()
    with pytest.raises(StreamError, match=message) as caught:
        reader.feed(data)
    error = caught.value
    assert error.layer is not None
    assert error.ordinal == reader.records_read + 1
    assert error.expected
    assert error.found


def test_what_was_once_in_an_epoch_may_be_in_the_next_one() -> None:
    reader = StreamReader()
    state = samples.pv_state(2) + CHECKPOINT + CHECKPOINT_END
    reader.feed(PV_START + state + state)
    assert reader.checkpoints == 2


@pytest.mark.parametrize("state", [1, 2, 3])
def test_what_colos_secondary_sends_is_refused_in_the_stream_of_its_primary(state: int) -> None:
    reader = StreamReader(colo=True)
    with pytest.raises(StreamError, match="COLO's secondary sends this CHECKPOINT_STATE back"):
        reader.feed(START + STATE + CHECKPOINT + CHECKPOINT_END + samples.pack_record(5, struct.pack("<II", state, 0)))


def test_impossible_lengths_are_refused_before_the_body_comes() -> None:
    for layer_start, header, name in (
        (START, struct.pack("<II", 8, 1 << 20), "X86_TSC_INFO"),
        (START, struct.pack("<II", 1, 0xFFFFFFFF), r"too long; .* \(libxc record 5, PAGE_DATA from byte 204"),
        (START, struct.pack("<II", 0xA, 1 << 20), "HVM_PARAMS"),
        (START + STATE + CHECKPOINT, struct.pack("<II", 2, 2 << 20), "EMULATOR_XENSTORE_DATA"),
        (START + STATE + CHECKPOINT, struct.pack("<II", 4, 8), "CHECKPOINT_END"),
        (START, struct.pack("<II", 0x7F, 8), "0x7f"),
        (PV, struct.pack("<II", 1, 4096), "PAGE_DATA without X86_PV_P2M_FRAMES"),
    ):
        with pytest.raises(StreamError, match=name):
            StreamReader().feed(layer_start + header)


def test_views_are_of_the_callers_bytes_and_feed_copies() -> None:
    stream = bytearray(samples.pvh_checkpointed())
    viewed = [event for event in StreamReader().views(stream) if isinstance(event, records.Record)]
    copied = [event for event in StreamReader().feed(stream) if isinstance(event, records.Record)]
    at = viewed[4].offset + 100
    stream[at] ^= 1
    assert (viewed[4].raw[100], copied[4].raw[100]) == (stream[at], stream[at] ^ 1)
    assert viewed[4].raw.readonly
    assert copied[4].raw.readonly


def test_a_record_that_began_in_earlier_bytes_owns_its_bytes() -> None:
    stream = bytearray(START + PAGES)
    reader = StreamReader()
    cut = len(START) + 1000
    list(reader.views(stream[:cut]))
    (record,) = reader.views(memoryview(stream)[cut:])
    stream[cut:] = bytes(len(stream) - cut)
    assert isinstance(record, records.Record)
    assert bytes(record.raw) == PAGES


def test_events_that_are_left_behind_are_noticed() -> None:
    reader = StreamReader()
    iterator = reader.views(START)
    with pytest.raises(RuntimeError, match="not all taken"):
        reader.feed(b"x")
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="not all taken"):
        reader.feed(b"x")


def test_bytes_after_the_end_are_refused_alike_however_they_come() -> None:
    """Found by fuzzing: the error counted the bytes that were at hand."""
    stream = samples.pvh_checkpointed()
    texts = set()
    for chunks in ([stream + b"xyz"], [stream, b"x"], [stream[:-1], stream[-1:] + b"xy"]):
        reader = StreamReader()
        with pytest.raises(StreamError, match="bytes after the end") as caught:
            for chunk in chunks:
                reader.feed(chunk)
        texts.add(str(caught.value))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("marker", "name"),
    [
        (struct.pack("<Q", 0x40000), "a legacy image of a 64-bit toolstack"),
        (struct.pack("<II", 0x40000, 0xFFFFFFFF), "a legacy image of a 32-bit toolstack"),
        (struct.pack("<II", 0x40000, 1), "a legacy image, or not a libxc stream"),
    ],
)
def test_legacy_images_inside_a_new_header_are_named(marker: bytes, name: str) -> None:
    stream = samples.xl_header() + samples.libxl_header() + marker + bytes(16)
    with pytest.raises(StreamError, match=name) as caught:
        StreamReader().feed(stream)
    assert (caught.value.layer, caught.value.record) == ("libxc", "the libxc image header")


def test_configurations_of_xl_cfg_text() -> None:
    text = b"name = 'g'\n"
    for config in (text + b"\0", text):
        raw = struct.pack("<I", len(config)) + config
        head = samples.xl_header(b"", 2)[:44] + struct.pack("<I", len(raw))
        (header,) = StreamReader().feed(head + raw)
        assert (header.config, header.json) == (text, False)  # type: ignore[union-attr]
    assert StreamReader().feed(headers.pack_xl_header(text, json=False))[0].config == text  # type: ignore[union-attr]


def test_no_configuration_at_all() -> None:
    head = samples.xl_header(b"", 2)[:44]
    for raw in (b"", struct.pack("<I", 0)):
        reader = StreamReader()
        (header,) = reader.feed(head + struct.pack("<I", len(raw)) + raw)
        assert header.config == b""  # type: ignore[union-attr]
        assert len(reader.feed(samples.libxl_header())) == 2
    for flags, length in ((3, 0), (3, 4), (2, 3)):
        with pytest.raises(StreamError, match="wrong length of the configuration"):
            StreamReader().feed(head[:36] + struct.pack("<III", flags, 0, length))
