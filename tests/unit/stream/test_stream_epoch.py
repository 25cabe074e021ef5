"""One epoch: order, limits, no copies."""

from __future__ import annotations

import numpy as np
import pytest
from streams import samples

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream.constants import GuestType, Layer
from remus_agent.protocol.stream.epoch import EpochParser, parse_epoch
from remus_agent.protocol.stream.reader import iter_records

TSC = writer.tsc_info(0, 2_000_000, 5, 1)
CONTEXT = writer.hvm_context(b"context")
PARAMS = writer.hvm_params([(1, 2)])
END = writer.checkpoint() + writer.checkpoint_end()
PAGES = b"".join(writer.page_data(np.array([3, 9], dtype=np.uint64), memoryview(bytes(8192)))[0])
XALLOC = b"".join(writer.page_xalloc(np.array([4], dtype=np.uint64))[0])


def test_an_epoch_is_sorted_into_memory_and_tail() -> None:
    epoch = parse_epoch([PAGES + XALLOC, PAGES + TSC, CONTEXT, PARAMS + END[:8], END[8:]], max_pfn=9)
    assert epoch.page_records == [PAGES, XALLOC, PAGES]
    assert epoch.tail == [TSC, CONTEXT, PARAMS]
    assert epoch.pages == 4


def test_an_epoch_without_dirty_pages_is_whole() -> None:
    epoch = parse_epoch([TSC + CONTEXT + PARAMS + END], max_pfn=0)
    assert (epoch.page_records, epoch.pages) == ([], 0)


def test_records_are_views_of_the_received_buffers() -> None:
    received = bytearray(PAGES + TSC + CONTEXT + PARAMS + END)
    epoch = parse_epoch([memoryview(received)], max_pfn=9)
    received[40] = 0x77
    assert epoch.page_records[0][40] == 0x77


def test_optional_records_are_dropped() -> None:
    extra = records.pack_record(0x80000001, b"x")
    epoch = parse_epoch([extra + TSC + extra + CONTEXT + PARAMS + END], max_pfn=0)
    assert epoch.tail == [TSC, CONTEXT, PARAMS]


@pytest.mark.parametrize(
    ("views", "message", "offset"),
    [
        ([TSC, PAGES], "wrong order: PAGE_DATA where HVM_CONTEXT belongs", 32),
        ([CONTEXT], "wrong order: HVM_CONTEXT where X86_TSC_INFO belongs", 0),
        ([TSC, PARAMS], "wrong order: HVM_PARAMS where HVM_CONTEXT belongs", 32),
        ([TSC, CONTEXT, END], "wrong order: CHECKPOINT where HVM_PARAMS belongs", 48),
        ([writer.checkpoint()], "wrong order: CHECKPOINT where X86_TSC_INFO belongs", 0),
        ([writer.end_of_libxc()], "wrong order: END where X86_TSC_INFO belongs", 0),
        ([TSC, CONTEXT, PARAMS, END[:8], bytes(8)], "wrong order: END where CHECKPOINT_END belongs", 88),
        ([TSC, CONTEXT, PARAMS, END, PAGES], "wrong order: PAGE_DATA after the end", 96),
        ([TSC, CONTEXT, PARAMS], "truncated inside an epoch: CHECKPOINT is missing", 80),
        ([TSC, CONTEXT, PARAMS, END[:8]], "truncated inside an epoch: CHECKPOINT_END is missing", 88),
        ([], "truncated inside an epoch: X86_TSC_INFO is missing", 0),
        ([PAGES[:-1]], "truncated in record PAGE_DATA: 1 of its 8224 bytes are missing", 8223),
        ([TSC, CONTEXT, PAGES.replace(b"\x09", b"\x0a", 1)], "wrong order", 48),
        (
            [XALLOC, PAGES.replace(b"\x09", b"\x0a", 1)],
            "pfn beyond the limit; expected at most 0x9, found 0xa",
            24 + 24,
        ),
        ([records.pack_record(0x20)], "unknown mandatory libxc record 0x20", 0),
        ([records.pack_record(0x10)], "wrong order: STATIC_DATA_END", 0),
    ],
)
def test_epochs_that_are_refused(views: list[bytes], message: str, offset: int) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        parse_epoch(views, max_pfn=9)
    assert caught.value.offset == offset


def test_a_parser_stays_dead_after_an_error() -> None:
    parser = EpochParser(9)
    with pytest.raises(StreamError):
        parser.feed(CONTEXT)
    with pytest.raises(StreamError, match="HVM_CONTEXT"):
        parser.feed(TSC)
    with pytest.raises(StreamError, match="HVM_CONTEXT"):
        parser.finish()


def test_pages_can_be_taken_while_seeding() -> None:
    parser = EpochParser(9)
    parser.feed(PAGES)
    assert parser.take_pages() == [PAGES]
    parser.feed(XALLOC + TSC)
    assert parser.take_pages() == [XALLOC]
    assert not parser.complete
    parser.feed(CONTEXT + PARAMS + END)
    assert parser.complete
    assert parser.finish().page_records == []
    assert parser.finish().pages == 2


EMULATOR = list(iter_records(samples.emulator(), layer=Layer.LIBXL))
BASIC, EXTENDED, XSAVE, MSRS = samples.vcpu_records(0)
SECOND = b"".join(samples.vcpu_records(1))
SHARED = samples.shared_info()


def test_an_epoch_of_an_hvm_guest_keeps_its_device_model_apart() -> None:
    state = TSC + CONTEXT + PARAMS + writer.checkpoint()
    epoch = parse_epoch([PAGES + state, samples.emulator(), writer.checkpoint_end()], 9, GuestType.HVM)
    assert epoch.tail == [TSC, CONTEXT, PARAMS]
    assert epoch.emulator == [record.raw for record in EMULATOR]
    only_context = parse_epoch([state, EMULATOR[1].raw, writer.checkpoint_end()], 9, GuestType.HVM)
    assert only_context.emulator == [EMULATOR[1].raw]
    assert parse_epoch([state + writer.checkpoint_end()], 9, GuestType.HVM).emulator == []


def test_an_epoch_of_a_pv_guest_has_the_state_of_each_vcpu_in_its_tail() -> None:
    tables = samples.page_data([(0x9, 3), (0, 4)])
    epoch = parse_epoch([tables, TSC + SHARED, BASIC + EXTENDED + XSAVE, MSRS + SECOND + END], 9, GuestType.PV)
    assert epoch.page_records == [tables]
    assert epoch.tail[:3] == [TSC, SHARED, BASIC]
    assert len(epoch.tail) == 10
    bare = parse_epoch([TSC + SHARED + BASIC + samples.vcpu_records(3)[0] + END], 9, GuestType.PV)
    assert len(bare.tail) == 4


def test_the_first_epoch_of_a_pv_guest_may_begin_with_its_p2m_frames() -> None:
    p2m = samples.p2m_frames()
    pages = samples.page_data([(0, 3)])
    epoch = parse_epoch([p2m + pages + TSC + SHARED + BASIC + END], 9, GuestType.PV)
    assert epoch.page_records == [p2m, pages]


def test_vcpu_records_without_content_have_no_order() -> None:
    empty = samples.vcpu(6, 0, b"")
    epoch = parse_epoch([TSC + SHARED + BASIC + MSRS + empty + END], 9, GuestType.PV)
    assert len(epoch.tail) == 5


@pytest.mark.parametrize(
    ("guest", "views", "message"),
    [
        (GuestType.PVH, [TSC, CONTEXT, PARAMS, END[:8], samples.emulator()], "where CHECKPOINT_END belongs"),
        (GuestType.HVM, [TSC, CONTEXT, PARAMS, samples.emulator()], "wrong order: X86_PV_INFO|in the stream of"),
        (
            GuestType.HVM,
            [TSC, CONTEXT, PARAMS, END[:8], EMULATOR[1].raw, EMULATOR[0].raw],
            "EMULATOR_XENSTORE_DATA where CHECKPOINT_END belongs",
        ),
        (
            GuestType.HVM,
            [TSC, CONTEXT, PARAMS, END[:8], EMULATOR[1].raw, EMULATOR[1].raw],
            "EMULATOR_CONTEXT where CHECKPOINT_END belongs",
        ),
        (GuestType.HVM, [TSC, CONTEXT, PARAMS, END[:8], EMULATOR[0].raw], "truncated .* CHECKPOINT_END is missing"),
        (GuestType.PV, [TSC, CONTEXT], "HVM_CONTEXT in the stream of a PV guest"),
        (GuestType.PV, [TSC, BASIC], "X86_PV_VCPU_BASIC where SHARED_INFO belongs"),
        (GuestType.PV, [TSC, SHARED, END], "CHECKPOINT where X86_PV_VCPU_BASIC or X86_PV_VCPU_EXTENDED"),
        (GuestType.PV, [TSC, SHARED, EXTENDED], "X86_PV_VCPU_EXTENDED of vcpu 0"),
        (GuestType.PV, [TSC, SHARED, BASIC, XSAVE, EXTENDED], "X86_PV_VCPU_EXTENDED of vcpu 0"),
        (GuestType.PV, [TSC, SHARED, BASIC, BASIC], "X86_PV_VCPU_BASIC of vcpu 0"),
        (GuestType.PV, [TSC, SHARED, SECOND, BASIC], "X86_PV_VCPU_BASIC of vcpu 0"),
        (GuestType.PV, [PAGES, samples.p2m_frames()], "X86_PV_P2M_FRAMES where X86_TSC_INFO belongs"),
        (GuestType.PVH, [samples.page_data([(1, 3)])], "only PV guests have page tables"),
        (GuestType.PVH, [TSC, SHARED], "SHARED_INFO in the stream of an HVM or PVH guest"),
    ],
)
def test_epochs_of_other_guests_that_are_refused(guest: GuestType, views: list[bytes], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        parse_epoch(views, 9, guest)


def test_an_error_counts_the_records_of_its_epoch() -> None:
    parser = EpochParser(9)
    parser.feed(PAGES + XALLOC)
    with pytest.raises(StreamError, match="libxc record 4, HVM_PARAMS from byte 8280") as caught:
        parser.feed(TSC + PARAMS)
    assert (caught.value.ordinal, caught.value.start) == (4, len(PAGES + XALLOC + TSC))


def test_guests_are_protected_as_pvh_unless_said_otherwise() -> None:
    assert parse_epoch([TSC + CONTEXT + PARAMS + END], 9) == parse_epoch(
        [TSC + CONTEXT + PARAMS + END], 9, GuestType.PVH
    )
