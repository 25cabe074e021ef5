"""The incremental reader: order, positions, truncation and limits."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import headers, records, writer
from remus_agent.protocol.stream.constants import REC_LENGTH_MAX
from remus_agent.protocol.stream.reader import Position, StreamReader

PREAMBLE = writer.preamble('{"c_info":{"name":"g"}}', (4, 20), bytes(24), bytes(16))
LIBXC = PREAMBLE.index(b"\xff" * 8)
PAGES = b"".join(writer.page_data(np.array([1], dtype=np.uint64), memoryview(bytes(4096)))[0])
TSC = writer.tsc_info(0, 1, 2, 3)
CONTEXT = writer.hvm_context(b"context")
PARAMS = writer.hvm_params([(1, 2)])
TAIL = TSC + CONTEXT + PARAMS
CHECKPOINT = writer.checkpoint() + writer.checkpoint_end()
PLAIN_END = writer.end_of_libxc() + writer.end_of_libxl()
EMULATOR = records.pack_record(3, struct.pack("<II", 2, 0) + b"qemu")


def read(data: bytes) -> list[str]:
    """The names of all records of a complete stream."""
    reader = StreamReader()
    events = reader.feed(data)
    reader.close()
    return [event.name for event in events if isinstance(event, records.Record)]


def version_2() -> bytes:
    start = PREAMBLE[: LIBXC + 12] + b"\0\0\0\x02" + PREAMBLE[LIBXC + 16 : LIBXC + 40]
    return start + PAGES + TAIL + PLAIN_END


def test_a_plain_stream() -> None:
    reader = StreamReader()
    events = reader.feed(PREAMBLE + PAGES + PAGES + TAIL + PLAIN_END)
    reader.close()
    assert reader.position is Position.ENDED
    assert [type(event) for event in events[:5]] == [
        headers.XlHeader, headers.LibxlHeader, records.Record, headers.ImageHeader, headers.DomainHeader
    ]  # fmt: skip
    names = [event.name for event in events[5:] if isinstance(event, records.Record)]
    assert names[:5] == ["X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END", "PAGE_DATA", "PAGE_DATA"]
    assert names[5:] == ["X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS", "END", "END"]


def test_a_checkpointed_stream_with_an_emulator_as_xl_remus_writes_it() -> None:
    epoch = PAGES + TAIL + writer.checkpoint() + EMULATOR + writer.checkpoint_end()
    reader = StreamReader()
    reader.feed(PREAMBLE + PAGES + epoch)
    assert (reader.position, reader.checkpoints) == (Position.BETWEEN_EPOCHS, 1)
    reader.feed(epoch + PAGES[:1])
    assert (reader.position, reader.checkpoints) == (Position.INSIDE_EPOCH, 2)


def test_a_stream_of_version_2_has_no_static_data_end() -> None:
    assert read(version_2()) == (
        ["LIBXC_CONTEXT", "PAGE_DATA", "X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS", "END", "END"]
    )


def test_params_may_precede_the_context_as_the_specification_says() -> None:
    read(PREAMBLE + PAGES + TSC + PARAMS + CONTEXT + PLAIN_END)


def test_emulator_records_of_a_plain_stream() -> None:
    assert read(PREAMBLE + TAIL + PLAIN_END[:8] + EMULATOR + PLAIN_END[8:])[-2:] == [
        "EMULATOR_CONTEXT",
        "END",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PREAMBLE[:-8] + PAGES, "libxc's PAGE_DATA before STATIC_DATA_END"),
        (PREAMBLE + PREAMBLE[-8:], "libxc's STATIC_DATA_END after STATIC_DATA_END"),
        (PREAMBLE + TSC + PAGES, "libxc's PAGE_DATA after the first processor state"),
        (PREAMBLE + TAIL + CHECKPOINT + TSC + PAGES, "libxc's PAGE_DATA after the processor state of its epoch"),
        (PREAMBLE + TSC + TSC, "X86_TSC_INFO twice in an epoch"),
        (PREAMBLE + TSC + CHECKPOINT, "CHECKPOINT without HVM_CONTEXT"),
        (PREAMBLE + TAIL + CHECKPOINT + CHECKPOINT, "CHECKPOINT without HVM_CONTEXT"),
        (PREAMBLE + TAIL + CHECKPOINT + TSC + CHECKPOINT, "CHECKPOINT without HVM_CONTEXT"),
        (PREAMBLE + PLAIN_END, "END without HVM_CONTEXT"),
        (PREAMBLE + TSC + PLAIN_END, "END without HVM_CONTEXT"),
        (PREAMBLE + TAIL + CHECKPOINT[:8] + PLAIN_END, "libxl's END inside a checkpoint"),
        (PREAMBLE + TAIL + PLAIN_END[:8] + CHECKPOINT[8:], "libxl's CHECKPOINT_END after libxc's END"),
        (PREAMBLE + TAIL + PLAIN_END[:8] + records.pack_record(1), "LIBXC_CONTEXT after libxc's END"),
        (PREAMBLE + TAIL + PLAIN_END + b"\0", "bytes after the end"),
        (PREAMBLE[: LIBXC - 8] + PLAIN_END, "libxl's END before LIBXC_CONTEXT"),
        (PREAMBLE[: LIBXC - 8] + records.pack_record(9), "unknown mandatory libxl record 0x9"),
        (PREAMBLE + records.pack_record(0x13), "unknown mandatory libxc record 0x13"),
        (version_2()[: LIBXC + 40] + PREAMBLE[-8:], "STATIC_DATA_END in a libxc stream of version 2"),
        (
            PREAMBLE + struct.pack("<II", 1, REC_LENGTH_MAX + 1),
            "too long; expected at most 134217728 bytes, found 134217729",
        ),
    ],
)
def test_streams_that_are_refused(data: bytes, message: str) -> None:
    reader = StreamReader()
    with pytest.raises(StreamError, match=message):
        reader.feed(data)
    with pytest.raises(StreamError, match=message):
        reader.feed(b"")
    with pytest.raises(StreamError, match=message):
        reader.close()


@pytest.mark.parametrize(
    ("data", "message", "left"),
    [
        (b"", "the xl header: 48 of its 48 bytes", "in the headers, 0 checkpoints complete"),
        (PREAMBLE[: LIBXC - 8], "a record header: 8 of its 8 bytes", "in the headers"),
        (PREAMBLE[: LIBXC + 5], "the libxc image header: 19 of its 24 bytes", "in the headers"),
        (PREAMBLE[: LIBXC + 40], "truncated before memory: no END record", "before memory"),
        (PREAMBLE + PAGES, "no END record", "in the first copy of memory"),
        (PREAMBLE + PAGES[:24], "record PAGE_DATA: 4096 of its 4120 bytes", "in the first copy of memory"),
        (PREAMBLE + TAIL + CHECKPOINT, "between epochs: no END", "between epochs, 1 checkpoints complete"),
        (
            PREAMBLE + TAIL + CHECKPOINT + b"\x01",
            "7 of its 8 bytes",
            "inside an epoch, 1 checkpoints complete",
        ),
        (PREAMBLE + TAIL + CHECKPOINT + TSC, "inside an epoch: no END", "inside an epoch, 1"),
        (PREAMBLE + TAIL + CHECKPOINT[:8], "inside an epoch", "inside an epoch, 0"),
        (PREAMBLE + TAIL + PLAIN_END[:8], "truncated after memory", "after memory"),
    ],
)
def test_close_tells_what_was_cut_off_and_where(data: bytes, message: str, left: str) -> None:
    reader = StreamReader()
    reader.feed(data)
    with pytest.raises(StreamError, match=message) as caught:
        reader.close()
    assert caught.value.left is not None
    assert caught.value.left.startswith(left)
    assert caught.value.offset == len(data)


def test_events_own_their_bytes() -> None:
    chunk = bytearray(PREAMBLE + CONTEXT.join((PAGES, b"")))
    reader = StreamReader()
    record = reader.feed(chunk)[-1]
    chunk[-16:] = bytes(16)
    assert isinstance(record, records.Record)
    assert record.body == b"context"
    assert record.body.readonly


def test_an_announced_length_is_not_allocated() -> None:
    reader = StreamReader()
    reader.feed(PREAMBLE + struct.pack("<II", 1, REC_LENGTH_MAX))
    assert reader._held.nbytes == 8 << 20, "more than any ordinary record needs was reserved"
    reader.feed(bytes(9 << 20))
    assert reader._held.nbytes == 16 << 20, "reserved memory follows what has arrived"
