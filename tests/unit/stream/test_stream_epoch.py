"""One epoch: order, limits, no copies."""

from __future__ import annotations

import numpy as np
import pytest

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream.epoch import EpochParser, parse_epoch

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
