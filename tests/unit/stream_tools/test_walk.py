"""The walk: what stands where, and where a fault is."""

from __future__ import annotations

import struct

import pytest
from streams import builder
from streams.builder import Epoch

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.walk import (
    CutBetweenEpochs,
    CutInsideEpoch,
    DamagedStream,
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


def fault(stream: bytes) -> DamagedStream:
    walk, guest = StreamWalk(), Guest()
    with pytest.raises(DamagedStream) as caught:
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
    assert [(one.place.record, one.place.what, one.epoch) for one in found] == [
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
    assert [(one.place, bytes(one.raw), one.epoch) for one in whole] == [
        (one.place, bytes(one.raw), one.epoch) for one in cut
    ]


def test_version_2_begins_its_memory_without_static_data_end() -> None:
    start = builder.preamble().replace(b"XENF\0\0\0\x03", b"XENF\0\0\0\x02")[:-64]
    found = walked(start + builder.end(Epoch({1: 1})))
    assert [one.epoch for one in found] == [0] * 5 + [1] * 6


def test_what_stands_before_a_fault_in_the_same_piece_is_handed_out() -> None:
    walk = StreamWalk()
    seen = []
    with pytest.raises(DamagedStream):
        for structure in walk.feed(STREAM + writer.end_of_libxc()):
            seen.append(structure)
    assert b"".join(bytes(one.raw) for one in seen) == STREAM
    with pytest.raises(DamagedStream):
        list(walk.feed(b"x"))


def test_a_plain_stream_ends() -> None:
    walk = StreamWalk()
    found = list(walk.feed(builder.plain([Epoch({1: 1})])))
    walk.close()
    assert found[-1].completes
    assert {one.epoch for one in found} == {0, 1}


@pytest.mark.parametrize(
    ("stream", "record", "what", "length", "starts", "offset", "message"),
    [
        (STREAM[:START] + bytes(8), 5, "END", 0, START, START, "END without HVM_CONTEXT before it"),
        (STREAM[: START - 8] + writer.checkpoint(), 4, "CHECKPOINT", 0, START - 8, START - 8, "before STATIC_DATA_END"),
        (
            STREAM[:START] + struct.pack("<II", 1, 1 << 31),
            5,
            "PAGE_DATA",
            1 << 31,
            START,
            START + 4,
            "announces 2147483648 bytes",
        ),
        (
            STREAM[:START] + records.pack_record(1, struct.pack("<IIQ", 1, 0, 1)),
            5,
            "PAGE_DATA",
            16,
            START,
            START + 8,
            "must be 4112 bytes long, it is 16",
        ),
        (
            STREAM[:START] + Epoch(context=b"no save records").tail,
            6,
            "HVM_CONTEXT",
            15,
            START + 32,
            START + 40,
            "save record 28526 in HVM_CONTEXT has 543520353 bytes, 7 are left",
        ),
        (b"LinuxGuestRecord" + bytes(40), None, "the xl header", None, 0, 0, "xend"),
    ],
)
def test_a_fault_is_told_with_its_place(
    stream: bytes, record: int | None, what: str, length: int | None, starts: int, offset: int, message: str
) -> None:
    error = fault(stream)
    facts = error.as_dict()
    assert message in error.message
    assert error.message.count("at byte") == 1
    assert (facts.get("record"), facts["type"], facts.get("length")) == (record, what, length)
    assert (facts["starts"], facts["offset"]) == (starts, offset)
    assert facts["expected"]
    assert error.exit_code == 6


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
def test_where_a_stream_is_cut_off(size: int, kind: type[DamagedStream], epoch: int | None) -> None:
    error = fault(STREAM[:size])
    assert type(error) is kind
    assert error.epoch == epoch
    assert error.offset == size
    assert isinstance(error, StreamError)


def test_three_bytes_after_an_epoch_are_inside_the_next() -> None:
    error = fault(STREAM + b"abc")
    assert type(error) is CutInsideEpoch
    assert error.place.begins == b"abc".hex()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (builder.checkpointed([Epoch(emulator=b"x")]), "the guest is PVH: it has none"),
        (builder.checkpointed([Epoch()], builder.preamble(kind="pv")), "domain header says HVM, the configuration in"),
        (builder.checkpointed([Epoch()], builder.preamble([])), "not an object"),
        (builder.checkpointed([Epoch(context=builder.context()[:-8])]), "has no END record"),
        (builder.checkpointed([Epoch(context=builder.context()[32:])]), "does not begin with Xen's HEADER"),
        (builder.checkpointed([Epoch(context=builder.context().replace(b"\x86", b"\x87"))]), "expected is 86123854"),
        (
            builder.checkpointed([Epoch(context=b"\x02\0\0\0\xff\0\0\0")]),
            "CPU in HVM_CONTEXT has 255 bytes, 0 are left",
        ),
    ],
)
def test_what_only_a_receiver_would_refuse(stream: bytes, message: str) -> None:
    assert message in fault(stream).message


def test_a_configuration_that_is_not_json_is_refused_in_its_header() -> None:
    stream = writer.preamble("{", (4, 17), bytes(24), bytes(16))
    error = fault(stream)
    assert error.place.what == "the xl header"
    assert "not JSON" in error.message


@pytest.mark.parametrize(("kind", "shown"), [("pvh", "PVH"), ("hvm", "HVM"), ("other", "HVM or PVH")])
def test_the_guest_is_named(kind: str, shown: str) -> None:
    guest = Guest()
    for structure in walked(builder.preamble(kind=kind)):
        guest.take(structure)
    assert (guest.name, guest.kind, guest.version) == ("redis1", shown, 3)
