"""What differs between two streams."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from streams import builder, samples
from streams.builder import Epoch

from remus_agent.errors import RefusedError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream_tools.difference import Change, MemoryDifference, changes, memory_difference
from remus_agent.protocol.stream_tools.state import StateReader
from remus_agent.protocol.stream_tools.walk import StreamWalk

FIRST = Epoch({1: 1, 2: 2, 3: 3, 8: 8})


def read(stream: bytes, epoch: int | None = None) -> StateReader:
    reader = StateReader(epoch)
    for structure in StreamWalk().feed(stream):
        reader.take(structure)
        if reader.done:
            break
    return reader


def compared(a: bytes, b: bytes, epochs: tuple[int | None, int | None] = (None, None)) -> tuple[Any, list[Change]]:
    one, other = read(a, epochs[0]), read(b, epochs[1])
    memory = memory_difference(one.finish(), other.finish())
    return memory, list(changes(one.guest, one.finish(), other.guest, other.finish()))


def test_a_stream_does_not_differ_from_itself_nor_from_the_same_state_sent_otherwise() -> None:
    a = builder.checkpointed([FIRST, Epoch({2: 9}, zeros=[3], without=[8])])
    b = builder.plain([Epoch({2: 9, 3: 0, 1: 1, 8: 8})])
    for one, other in ((a, a), (a, b)):
        memory, found = compared(one, other)
        assert memory.same
        assert found == []


def test_pages_that_differ() -> None:
    a = builder.checkpointed([FIRST])
    b = builder.checkpointed([FIRST, Epoch({2: 0, 3: 4, 100: 1}, zeros=[1])])
    memory, found = compared(a, b)
    assert memory == MemoryDifference(4, 5, differ=[(1, 3)], only_a=[], only_b=[(100, 100)])
    assert compared(b, a)[0] == MemoryDifference(5, 4, differ=[(1, 3)], only_a=[(100, 100)], only_b=[])
    assert found == []


def test_two_epochs_of_one_stream() -> None:
    stream = builder.checkpointed([FIRST, Epoch({2: 7}, rip=0x2000, nsec=6), Epoch({3: 7})])
    memory, found = compared(stream, stream, (1, 2))
    assert memory.differ == [(2, 2)]
    assert found == [Change("tsc", "nsec", 5, 6), Change("hvm", "CPU 0 rip", "0x1000", "0x2000")]


def test_what_came_after_the_last_complete_epoch_does_not_count() -> None:
    whole = builder.checkpointed([FIRST])
    assert compared(whole, whole + Epoch({1: 9}).memory)[0].same


def test_pages_after_verify_are_compared_by_a_receiver_and_not_applied() -> None:
    verify = records.pack_record(0x0D)
    other = Epoch({1: 9}).memory
    stream = builder.preamble() + FIRST.memory + verify + other + FIRST.tail + bytes(16)
    assert compared(builder.plain([FIRST]), stream)[0].same


def test_configuration_parameters_and_policies() -> None:
    config: dict[str, Any] = {"c_info": {"type": "pvh", "name": "other"}, "b_info": {"max_memkb": 131072, "x": [1, {}]}}
    start = writer.preamble(
        str(config).replace("'", '"'),
        (4, 20),
        struct.pack("<6I", 1, 0xFFFFFFFF, 1, 2, 3, 4),
        struct.pack("<IIQ", 0xCE, 0, 7),
    )
    b = builder.checkpointed([Epoch(params=[(1, 0xFEFFC), (17, 0xFEFFF), (99, 1)])], start)
    _, found = compared(builder.checkpointed([Epoch()]), b)
    assert found == [
        Change("header", "Xen version", "4.17", "4.20"),
        Change("configuration", "c_info.name", "redis1", "other"),
        Change("configuration", "b_info.x[0]", None, 1),
        Change("configuration", "b_info.x[1]", None, "{}"),
        Change("static", "cpuid 0x0/0x0", "00000000 00000000 00000000 00000000", None),
        Change("static", "cpuid 0x1", None, "00000001 00000002 00000003 00000004"),
        Change("static", "msr 0x0", "0x0", None),
        Change("static", "msr 0xce", None, "0x7"),
        Change("params", "CONSOLE_PFN", None, "0xfefff"),
        Change("params", "param 99", None, "0x1"),
    ]


def test_save_records_with_and_without_known_fields() -> None:
    lapic = bytearray(1024)
    lapic[0x390] = 1
    msrs = struct.pack("<IIIIQ", 1, 0, 0xC0000103, 0, 5)
    a = samples.context(vcpus=2, more=samples.save_record(6, 0, bytes(1024)) + samples.save_record(20, 1, msrs))
    b = samples.context(
        more=samples.save_record(6, 0, bytes(lapic))
        + samples.save_record(20, 1, msrs[:-8] + struct.pack("<Q", 6))
        + samples.save_record(77, 0, b"new")
    )
    _, found = compared(builder.checkpointed([Epoch(context=a)]), builder.checkpointed([Epoch(context=b)]))
    assert found == [
        Change("hvm", "CPU 1", "1032 bytes", None),
        Change("hvm", "LAPIC_REGS 0 bytes 0x390-0x390", "00", "01"),
        Change("hvm", "CPU_MSR 1 msr_c0000103", "0x5", "0x6"),
        Change("hvm", "type 77 0", None, "3 bytes"),
    ]


def test_device_model_and_records_of_pv_guests() -> None:
    start = builder.preamble(kind="hvm")
    a = builder.checkpointed([Epoch(emulator=b"a" * 100)], start)
    b = builder.checkpointed([Epoch(emulator=b"b" + b"a" * 50)], start)
    _, found = compared(a, b)
    assert found == [
        Change("record", "EMULATOR_CONTEXT 2.0 length", 108, 59),
        Change("record", "EMULATOR_CONTEXT 2.0 bytes 0x8-0x8", "61", "62"),
    ]
    old = samples.pv_plain()
    _, found = compared(old, old[:-100] + b"\x01" + old[-99:])
    assert [change.name for change in found] == ["X86_PV_VCPU_XSAVE 1 bytes 0x34-0x34"]


def test_many_runs_of_bytes_are_not_all_listed() -> None:
    start = builder.preamble(kind="hvm")
    a = builder.checkpointed([Epoch(emulator=bytes(4000))], start)
    b = builder.checkpointed([Epoch(emulator=(b"x" + bytes(19)) * 200)], start)
    _, found = compared(a, b)
    assert len(found) == 17
    assert found[-1].name == "EMULATOR_CONTEXT 2.0, 184 more runs of bytes"


def test_the_type_of_a_page_counts() -> None:
    stream = samples.pv_plain()
    at = stream.index(struct.pack("<Q", 9 << 60 | 2)) + 7
    assert compared(stream, stream[:at] + b"\x20" + stream[at + 1 :])[0].differ == [(2, 2)]


@pytest.mark.parametrize("epoch", [None, 1, 5])
def test_epochs_that_are_not_there(epoch: int | None) -> None:
    with pytest.raises(RefusedError, match="no complete epoch"):
        read(builder.preamble(), epoch).finish()
