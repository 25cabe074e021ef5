"""The walk: what stands where, and where a fault is."""

from __future__ import annotations

import pytest
from streams import builder, samples
from streams.builder import Epoch

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import writer
from remus_agent.protocol.stream.records import Record
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.walk import (
    CutBetweenEpochs,
    CutInsideEpoch,
    StreamWalk,
    Structure,
)

STREAM = builder.checkpointed(
    [Epoch({1: 1}, zeros=[2]), Epoch({3: 3}, emulator=b"model")], builder.preamble(kind="hvm")
)
START = len(builder.preamble(kind="hvm"))


def walked(stream: bytes, piece: int = 1 << 20) -> list[Structure]:
    walk = StreamWalk()
    found = []
    for at in range(0, len(stream), piece):
        found += walk.feed(stream[at : at + piece])
    return found


def fault(stream: bytes) -> StreamError:
    walk, guest = StreamWalk(), Guest()
    with pytest.raises(StreamError) as caught:
        for structure in walk.feed(stream):
            guest.take(structure)
            guest.check(structure)
        walk.close()
    return caught.value


def test_everything_is_found_with_its_place_and_its_bytes() -> None:
    found = walked(STREAM)
    assert b"".join(bytes(one.raw) for one in found) == STREAM
    assert [one.offset for one in found] == [
        sum(len(before.raw) for before in found[:number]) for number in range(len(found))
    ]
    numbers = [one.event.ordinal if isinstance(one.event, Record) else None for one in found]
    assert [(number, one.name, one.epoch) for number, one in zip(numbers, found, strict=True)] == [
        (None, "the xl header", 0),
        (None, "the libxl header", 0),
        (1, "LIBXC_CONTEXT", 0),
        (None, "the libxc image header", 0),
        (None, "the libxc domain header", 0),
        (2, "X86_CPUID_POLICY", 0),
        (3, "X86_MSR_POLICY", 0),
        (4, "STATIC_DATA_END", 0),
        (5, "PAGE_DATA", 1),
        (6, "PAGE_DATA", 1),
        (7, "X86_TSC_INFO", 1),
        (8, "HVM_CONTEXT", 1),
        (9, "HVM_PARAMS", 1),
        (10, "CHECKPOINT", 1),
        (11, "CHECKPOINT_END", 1),
        (12, "PAGE_DATA", 2),
        (13, "X86_TSC_INFO", 2),
        (14, "HVM_CONTEXT", 2),
        (15, "HVM_PARAMS", 2),
        (16, "CHECKPOINT", 2),
        (17, "EMULATOR_CONTEXT", 2),
        (18, "CHECKPOINT_END", 2),
    ]


@pytest.mark.parametrize("piece", [1, 7, 4096, 5000])
def test_pieces_of_any_size_give_the_same(piece: int) -> None:
    whole, cut = walked(STREAM), walked(STREAM, piece)
    assert [(one.offset, one.name, bytes(one.raw), one.epoch) for one in whole] == [
        (one.offset, one.name, bytes(one.raw), one.epoch) for one in cut
    ]


def test_version_2_begins_its_memory_without_static_data_end() -> None:
    start = builder.preamble().replace(b"XENF\0\0\0\x03", b"XENF\0\0\0\x02")[:-64]
    found = walked(start + builder.end(Epoch({1: 1})))
    assert [one.epoch for one in found] == [0] * 5 + [1] * 6


def test_what_stands_before_a_fault_in_the_same_piece_is_handed_out() -> None:
    walk = StreamWalk()
    seen = []
    with pytest.raises(StreamError):
        for structure in walk.feed(STREAM + writer.end_of_libxc()):
            seen.append(structure)
    assert b"".join(bytes(one.raw) for one in seen) == STREAM
    with pytest.raises(StreamError):
        list(walk.feed(b"x"))


def test_a_plain_stream_ends() -> None:
    walk = StreamWalk()
    found = list(walk.feed(builder.plain([Epoch({1: 1})])))
    walk.close()
    assert found[-1].completes
    assert {one.epoch for one in found} == {0, 1}


@pytest.mark.parametrize(
    ("stream", "ordinal", "record", "start", "offset", "epoch", "message"),
    [
        (STREAM[:START] + bytes(8), 5, "END", START, START, 1, "wrong order: libxc's END "),
        (
            STREAM[: START - 8] + writer.checkpoint(),
            4,
            "CHECKPOINT",
            START - 8,
            START - 8,
            None,
            "libxc's CHECKPOINT ",
        ),
        (
            STREAM[:START] + Epoch(context=b"no save records").tail,
            6,
            "HVM_CONTEXT",
            START + 32,
            START + 40,
            1,
            "beyond",
        ),
        (b"LinuxGuestRecord" + bytes(40), None, "the xl header", 0, 0, None, "xend"),
    ],
)
def test_a_fault_is_told_with_its_place(
    stream: bytes, ordinal: int | None, record: str, start: int, offset: int, epoch: int | None, message: str
) -> None:
    error = fault(stream)
    assert message in error.message
    assert (error.ordinal, error.record, error.start) == (ordinal, record, start)
    assert (error.offset, error.epoch, error.exit_code) == (offset, epoch, 6)
    assert error.expected
    assert error.found


@pytest.mark.parametrize(
    ("size", "kind", "epoch"),
    [
        (0, CutInsideEpoch, None),
        (47, CutInsideEpoch, None),
        (START - 4, CutInsideEpoch, None),
        (START, CutInsideEpoch, 1),
        (START + 100, CutInsideEpoch, 1),
        (len(STREAM) - 8, CutInsideEpoch, 2),
        (len(STREAM), CutBetweenEpochs, 3),
    ],
)
def test_where_a_stream_is_cut_off(size: int, kind: type[StreamError], epoch: int | None) -> None:
    error = fault(STREAM[:size])
    assert type(error) is kind
    assert error.epoch == epoch
    assert error.offset == size
    assert error.as_dict()["code"] == kind.code


def test_three_bytes_after_an_epoch_are_inside_the_next() -> None:
    error = fault(STREAM + b"abc")
    assert type(error) is CutInsideEpoch
    assert error.record == "a record header"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (builder.checkpointed([Epoch(emulator=b"x")]), "expected a record of a PVH guest, found EMULATOR_CONTEXT"),
        (
            builder.checkpointed([Epoch()], builder.preamble(kind="pv")),
            "type of guest; expected PV, found HVM",
        ),
        (builder.checkpointed([Epoch()], builder.preamble([])), "expected an object, found list"),
        (builder.checkpointed([Epoch(context=samples.context()[:-8])]), "cut off before its END"),
        (
            builder.checkpointed([Epoch(context=samples.context()[32:])]),
            "expected type 1, magic 0x54381286, found type 2",
        ),
        (
            builder.checkpointed([Epoch(context=samples.context().replace(b"\x86", b"\x87"))]),
            "found type 1, magic 0x54381287",
        ),
        (
            builder.checkpointed([Epoch(context=b"\x02\0\0\0\xff\0\0\0")]),
            "expected at most 0 bytes, found 255",
        ),
    ],
)
def test_what_only_a_receiver_would_refuse(stream: bytes, message: str) -> None:
    assert message in fault(stream).message


def test_a_configuration_that_is_not_json_is_refused_in_its_header() -> None:
    stream = writer.preamble("{", (4, 17), bytes(24), bytes(16))
    error = fault(stream)
    assert error.record == "the xl header"
    assert "not JSON" in error.message


@pytest.mark.parametrize(("kind", "shown"), [("pvh", "PVH"), ("hvm", "HVM"), ("other", "HVM or PVH")])
def test_the_guest_is_named(kind: str, shown: str) -> None:
    guest = Guest()
    for structure in walked(builder.preamble(kind=kind)):
        guest.take(structure)
    assert (guest.name, guest.kind, guest.version) == ("redis1", shown, 3)
