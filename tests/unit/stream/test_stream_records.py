"""Records and the writer, byte for byte from the specifications."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream.constants import REC_LENGTH_MAX, Layer, PageType
from remus_agent.protocol.stream.reader import iter_records

PAGE = bytes(range(256)) * 16
OTHER = bytes(reversed(range(256))) * 16


def entry(kind: int, pfn: int) -> bytes:
    return struct.pack("<Q", kind << 60 | pfn)


def page_record(count: int, entries: bytes, content: bytes, kind: int = 1) -> bytes:
    body = struct.pack("<II", count, 0) + entries + content
    return struct.pack("<II", kind, len(body)) + body


def only(raw: bytes, layer: Layer = Layer.LIBXC) -> records.Record:
    (record,) = iter_records(raw, layer=layer)
    return record


def test_page_data_bytes_and_slices_of_the_callers_memory() -> None:
    memory = bytearray(PAGE + OTHER)
    ((head, content),) = writer.page_data(np.array([5, 0xFEFFF], dtype=np.uint64), memoryview(memory))
    assert head + bytes(content) == page_record(2, entry(0, 5) + entry(0, 0xFEFFF), PAGE + OTHER)
    memory[0] = 0xAA
    assert content[0] == 0xAA, "the content was copied"


def test_page_data_takes_the_memory_of_a_numpy_array() -> None:
    staging = np.arange(3 * 512, dtype=np.uint64).reshape(3, 512)
    ((_, content),) = writer.page_data(np.arange(3, dtype=np.uint64), memoryview(staging))
    staging[2, 511] = 0x55
    assert bytes(content) == staging.tobytes()


def test_page_data_is_cut_into_records_of_1024_pages() -> None:
    pfns = np.arange(10, 10 + 2500, dtype=np.uint64)
    memory = memoryview(bytearray(2500 * 4096))
    parts = writer.page_data(pfns, memory)
    assert [len(content) // 4096 for _, content in parts] == [1024, 1024, 452]
    read = [records.parse_page_data(only(b"".join(part)).body, 8) for part in parts]
    assert np.array_equal(np.concatenate([page.pfns for page in read]), pfns)
    assert sum(page.pages for page in read) == 2500


def test_no_pages_need_no_record() -> None:
    nothing = np.array([], dtype=np.uint64)
    assert writer.page_data(nothing, memoryview(b"")) == []
    assert writer.page_data(nothing, memoryview(np.zeros((0, 4096), dtype=np.uint8))) == []
    assert writer.page_xalloc(nothing) == []


def test_xalloc_bytes() -> None:
    parts = writer.page_xalloc(np.arange(1025, dtype=np.uint64))
    assert [len(part) for part in parts] == [1, 1]
    assert parts[1] == [page_record(1, entry(0xE, 1024), b"")]


@pytest.mark.parametrize(
    ("pfns", "memory"),
    [
        (np.array([1], dtype=np.uint64), memoryview(bytes(4095))),
        (np.array([1 << 52], dtype=np.uint64), memoryview(bytes(4096))),
        (np.array([1], dtype=np.int64), memoryview(bytes(4096))),
        (np.array([[1]], dtype=np.uint64), memoryview(bytes(4096))),
        (np.array([1], dtype=np.uint64), memoryview(bytes(8192))[::2]),
    ],
)
def test_pages_that_cannot_be_written(pfns: np.ndarray, memory: memoryview) -> None:
    with pytest.raises(StreamError) as caught:
        writer.page_data(pfns, memory)
    assert caught.value.operation == "write the stream"


def test_small_records_bytes() -> None:
    assert writer.checkpoint() == b"\x0e\0\0\0\0\0\0\0"
    assert writer.checkpoint_end() == b"\x04\0\0\0\0\0\0\0"
    assert writer.end_of_libxc() == writer.end_of_libxl() == bytes(8)
    assert writer.hvm_context(b"abc") == b"\x09\0\0\0\x03\0\0\0abc\0\0\0\0\0"
    assert writer.emulator_context(b"QEVM") == b"\x03\0\0\0\x0c\0\0\0\x02\0\0\0\0\0\0\0QEVM\0\0\0\0"
    assert writer.tsc_info(1, 2_000_000, 1 << 40, 7) == (
        b"\x08\0\0\0\x18\0\0\0" + struct.pack("<IIQII", 1, 2_000_000, 1 << 40, 7, 0)
    )


def test_hvm_params_leave_out_zeros() -> None:
    raw = writer.hvm_params([(1, 0xFEFF8), (5, 0), (17, 1 << 63)])
    assert raw == b"\x0a\0\0\0\x28\0\0\0" + struct.pack("<IIQQQQ", 2, 0, 1, 0xFEFF8, 17, 1 << 63)
    assert records.parse_hvm_params(only(raw).body, 8) == [(1, 0xFEFF8), (17, 1 << 63)]
    assert records.parse_hvm_params(only(writer.hvm_params([])).body, 8) == []


@pytest.mark.parametrize("write", [writer.hvm_context, writer.emulator_context])
def test_an_empty_state_is_not_written(write: Callable[[bytes], bytes]) -> None:
    with pytest.raises(StreamError, match="empty"):
        write(b"")


def test_page_data_with_all_types_is_read() -> None:
    kinds = list(PageType)
    entries = b"".join(entry(kind, 100 + kind) for kind in kinds)
    raw = page_record(len(kinds), entries, PAGE * 9)
    page = records.parse_page_data(only(raw).body, 8, hvm=False)
    assert page.types.tolist() == kinds
    assert page.pfns.tolist() == [100 + kind for kind in kinds]
    assert page.has_content.tolist() == [kind < PageType.BROKEN for kind in kinds]
    assert page.pages == 9
    assert page.content == PAGE * 9


@pytest.mark.parametrize("hvm", [True, False])
def test_of_an_entry_only_type_and_pfn_may_be_set(*, hvm: bool) -> None:
    """Every value of the upper 12 bits: a type that the guest has, and no reserved bit."""
    full = {0} if hvm else {0, 1, 2, 3, 4, 9, 0xA, 0xB, 0xC}
    for top in range(1 << 12):
        kind, reserved = divmod(top, 1 << 8)
        content = PAGE if kind in full else b""
        body = only(page_record(1, struct.pack("<Q", top << 52 | 7), content)).body
        if reserved or kind not in full | {0xD, 0xE, 0xF}:
            with pytest.raises(StreamError, match="reserved bits" if reserved else "bad page type"):
                records.parse_page_data(body, 8, hvm=hvm)
        else:
            page = records.parse_page_data(body, 8, hvm=hvm)
            assert (page.pfns.tolist(), page.types.tolist(), page.content) == ([7], [kind], content)


@pytest.mark.parametrize(
    ("raw", "message", "offset"),
    [
        (page_record(0, b"", b""), "without pfns", 8),
        (page_record(1, entry(0, 1), b""), "1 pfns and 1 pages; expected 4112 bytes, found 16", 8),
        (page_record(1, entry(0, 1), PAGE + PAGE), "expected 4112 bytes, found 8208", 8),
        (page_record(1, entry(0xF, 1), PAGE), "expected 16 bytes, found 4112", 8),
        (page_record(3, entry(0, 1), b""), "no room for its 3 pfns", 8),
        (page_record(0xFFFFFFFF, entry(0, 1), b""), "no room for its 4294967295 pfns", 8),
        (page_record(2, entry(0, 1) + entry(5, 2), PAGE * 2), "bad page type in PAGE_DATA; .* found 0x5", 24),
        (page_record(2, entry(0, 1) + entry(8, 2), PAGE * 2), "bad page type in PAGE_DATA; .* found 0x8", 24),
        (page_record(1, entry(1, 1), PAGE), "only PV guests", 16),
        (page_record(1, entry(0, 1 << 52), PAGE), "reserved bits", 16),
        (page_record(1, entry(0, 1 << 59), PAGE), "reserved bits", 16),
        (
            page_record(2, entry(0, 0x8000) + entry(0xE, 0x8001), PAGE),
            "pfn beyond the limit; expected at most 0x8000, found 0x8001",
            24,
        ),
        (b"\x01\0\0\0\x04\0\0\0\x01\0\0\0\0\0\0\0", "no room for its count", 8),
        (b"\x01\0\0\0\x08\0\0\0\x01\0\0\0\x01\0\0\0", "reserved field", 12),
    ],
)
def test_page_data_that_is_refused(raw: bytes, message: str, offset: int) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        records.parse_page_data(only(raw).body, 8, max_pfn=0x8000 if "beyond" in message else (1 << 52) - 1)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (writer.hvm_context(b"abc")[:-1] + b"\x01", "padding of HVM_CONTEXT"),
        (records.pack_record(0x13), "unknown mandatory libxc record 0x13"),
        (records.pack_record(0x0B), "TOOLSTACK"),
        (records.pack_record(0x0F), "CHECKPOINT_DIRTY_PFN_LIST"),
        (records.pack_record(0x0E, b"x"), "wrong length of CHECKPOINT; expected none, found 1 bytes"),
        (records.pack_record(0x10, b"x"), "wrong length of STATIC_DATA_END; expected none"),
        (records.pack_record(0x11, bytes(23)), "expected at least 24 bytes in steps of 24, found 23"),
        (records.pack_record(0x11), "X86_CPUID_POLICY; .*, found 0 bytes"),
        (records.pack_record(0x12, bytes(24)), "expected at least 16 bytes in steps of 16, found 24"),
        (records.pack_record(0x08, bytes(23)), "wrong length of X86_TSC_INFO; expected 24 bytes, found 23"),
        (
            records.pack_record(0x08, bytes(20) + b"\x01\0\0\0"),
            "reserved field of X86_TSC_INFO is set; expected 0, found 0x1",
        ),
        (records.pack_record(0x09), "HVM_CONTEXT"),
        (records.pack_record(0x0A, bytes(7)), "wrong length of HVM_PARAMS; expected 8 to 16392 bytes in steps of 16"),
        (records.pack_record(0x0A, b"\x01" + bytes(7)), "HVM_PARAMS with 1 entries; expected 24 bytes, found 8"),
        (records.pack_record(0x0A, bytes(4) + b"\x01\0\0\0"), "reserved field of HVM_PARAMS"),
        (records.pack_record(0x07, bytes(4096)), "SHARED_INFO in the stream of an HVM or PVH guest"),
        (records.pack_record(0x02, bytes(8)), "X86_PV_INFO in the stream of an HVM or PVH guest"),
    ],
)
def test_libxc_records_that_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        records.check_record(only(raw))


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (6, b"", "unknown mandatory libxl record 0x6"),
        (5, bytes(8), "COLO"),
        (0, b"x", "wrong length of END; expected none"),
        (4, b"x", "wrong length of CHECKPOINT_END"),
        (3, bytes(4), "wrong length of EMULATOR_CONTEXT; expected at least 8 bytes, found 4"),
    ],
)
def test_libxl_records_that_are_refused(kind: int, body: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        records.check_record(only(records.pack_record(kind, body), Layer.LIBXL))


def test_pv_records_are_known_in_pv_streams_only() -> None:
    info = only(records.pack_record(0x02, b"\x08\x04" + bytes(6)))
    records.check_record(info, hvm=False)
    records.check_record(only(records.pack_record(0x04, bytes(5176))), hvm=False)
    with pytest.raises(StreamError, match="wrong length of X86_PV_INFO; expected 8 bytes, found 9"):
        records.check_record(only(records.pack_record(0x02, bytes(9))), hvm=False)
    with pytest.raises(StreamError, match="HVM_CONTEXT in the stream of a PV guest"):
        records.check_record(only(writer.hvm_context(b"x")), hvm=False)


def test_policies_belong_to_version_3() -> None:
    with pytest.raises(StreamError, match="X86_CPUID_POLICY in a libxc stream of version 2"):
        records.check_record(only(records.pack_record(0x11, bytes(24))), 2)


def test_a_record_longer_than_any_reader_takes_is_not_written() -> None:
    with pytest.raises(StreamError, match="134217729 bytes is longer than the limit"):
        records.pack_record(3, memoryview(np.empty(REC_LENGTH_MAX + 1, dtype=np.uint8)))


def test_unknown_optional_records_pass() -> None:
    record = only(records.pack_record(0x80000077, b"future"))
    records.check_record(record)
    assert record.optional
    assert record.name == "optional libxc record 0x80000077"


def test_iter_records_follows_the_layers_and_views_the_buffer() -> None:
    raw = bytearray(writer.hvm_context(b"abc") + writer.checkpoint() + writer.checkpoint_end() + writer.checkpoint())
    found = list(iter_records(raw, offset=1000))
    assert [(r.layer.value, r.name, r.offset) for r in found] == [
        ("libxc", "HVM_CONTEXT", 1000),
        ("libxc", "CHECKPOINT", 1016),
        ("libxl", "CHECKPOINT_END", 1024),
        ("libxc", "CHECKPOINT", 1032),
    ]
    raw[8] = ord("z")
    assert bytes(found[0].body) == b"zbc"


@pytest.mark.parametrize(
    ("raw", "message", "offset"),
    [
        (writer.checkpoint()[:5], "a record header: 3 of its 8 bytes are missing", 5),
        (writer.hvm_context(b"abc")[:11], "record HVM_CONTEXT: 5 of its 16 bytes are missing", 11),
        (
            struct.pack("<II", 1, REC_LENGTH_MAX + 1),
            "PAGE_DATA is too long; expected at most 134217728 bytes, found 134217729",
            4,
        ),
    ],
)
def test_iter_records_refuses_what_is_cut_off_or_too_long(raw: bytes, message: str, offset: int) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        list(iter_records(raw))
    assert caught.value.offset == offset


def test_grouped_cuts_at_record_boundaries_without_copying() -> None:
    memory = memoryview(bytearray(2048 * 4096))
    flat = [b for part in writer.page_data(np.arange(2048, dtype=np.uint64), memory) for b in part]
    tail = writer.tsc_info(0, 1, 2, 3) + writer.hvm_context(b"abc")
    flat += [tail, writer.checkpoint()]
    groups = list(writer.grouped(flat, 8 << 20))
    assert [sum(len(b) for b in group) for group in groups] == [8 + 8 + 8192 + 4194304, 4202512 + 32 + 16 + 8]
    assert b"".join(b"".join(group) for group in groups) == b"".join(flat)
    memory[0] = 1
    assert groups[0][1][0] == 1


@pytest.mark.parametrize(
    ("buffers", "limit", "message"),
    [
        ([writer.tsc_info(0, 0, 0, 0)], 31, "longer than the limit of 31"),
        ([writer.hvm_context(b"abc")[:-1]], 100, "lacks 1 of its 16 bytes"),
        ([b"\0" * 4, b"\0" * 4], 100, "split over buffers"),
    ],
)
def test_grouped_refuses(buffers: list[bytes], limit: int, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        list(writer.grouped(buffers, limit))
