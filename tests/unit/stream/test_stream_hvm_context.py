"""Xen's save records inside HVM_CONTEXT."""

from __future__ import annotations

import struct

import pytest
from streams.samples import hvm_blob, save_record

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import hvm_context

HEADER = hvm_blob()[:32]
END = save_record(0, 0, b"")


def walked(blob: bytes) -> list[hvm_context.SaveRecord]:
    return hvm_context.walk(memoryview(blob), 500)


def test_records_are_walked_and_named() -> None:
    found = walked(hvm_blob())
    assert [(record.name, record.instance, len(record.body)) for record in found] == [
        ("HEADER", 0, 24),
        ("CPU", 0, 1032),
        ("TSC_ADJUST", 0, 8),
        ("type 77", 1, 5),
    ]
    assert [record.offset for record in found] == [500, 532, 1572, 1588]


def test_registers_are_named_so_that_two_checkpoints_can_be_compared() -> None:
    before, after = (hvm_context.values(walked(hvm_blob(rip=rip))[1]) for rip in (0x1000, 0x1003))
    assert {name for name in before if before[name] != after[name]} == {"rip"}
    assert after["rip"] == 0x1003
    assert len(before) == 81
    assert len(before["fpu_regs"] if isinstance(before["fpu_regs"], bytes) else b"") == 512


@pytest.mark.parametrize(
    ("kind", "size", "names"),
    [
        (1, 24, "magic version changeset cpuid gtsc_khz"),
        (2, 1032, "msr_tsc_aux tsc pending_event error_code flags pad0"),
        (2, 1024, "msr_tsc_aux tsc pending_event error_code"),
        (2, 1016, "tsc pending_event error_code"),
        (5, 24, "apic_base_msr disabled timer_divisor tdt_msr"),
        (5, 32, "apic_base_msr disabled timer_divisor tdt_msr pending_esr pad0"),
        (7, 16, "wires_0 wires_1"),
        (8, 8, "wires"),
        (9, 8, "route_0 route_1 route_2 route_3 pad0"),
        (11, 24, "cmos_data cmos_index pad0 rtc_offset"),
        (13, 8, "tmr_val pm1a_sts pm1a_en"),
        (14, 240, "msr_mtrr_cap msr_mtrr_def_type"),
        (15, 32, "hypercall_gpa guest_os_id time_ref_count reference_tsc"),
        (18, 32, "caps mci_ctl2_bank0 mci_ctl2_bank1 mcg_ext_ctl"),
        (19, 8, "tsc_adjust"),
        (2, 1031, ""),
        (6, 1024, ""),
        (77, 8, ""),
    ],
)
def test_layouts_end_where_xens_structures_end(kind: int, size: int, names: str) -> None:
    record = hvm_context.SaveRecord(kind, 0, 0, memoryview(bytes(size)))
    found = hvm_context.fields(record)
    assert [field.name for field in found][-len(names.split()) or len(found) :] == names.split()
    assert sum(field.size for field in found) == (size if names else 0)


def test_msrs_are_named_by_their_index() -> None:
    body = struct.pack("<QIIQIIQ", 2, 0xC0000103, 0, 5, 0x48, 0, 6)
    record = hvm_context.SaveRecord(20, 0, 0, memoryview(body))
    assert hvm_context.values(record) == {"msr_c0000103": 5, "msr_00000048": 6}
    assert hvm_context.values(hvm_context.SaveRecord(20, 0, 0, memoryview(body[:-1]))) == {}
    assert hvm_context.values(hvm_context.SaveRecord(20, 0, 0, memoryview(b""))) == {}


@pytest.mark.parametrize(
    ("blob", "message", "offset"),
    [
        (b"", "cut off before its END; expected a descriptor of 8 bytes, found 0 bytes", 500),
        (HEADER, "cut off before its END", 532),
        (HEADER + END[:5], "found 5 bytes", 532),
        (HEADER + save_record(2, 0, bytes(9))[:-1], r"save record 2 of HVM_CONTEXT \(type 2\) reaches beyond", 532),
        (HEADER + struct.pack("<HHI", 2, 0, 0xFFFFFFFF), "expected at most 0 bytes, found 4294967295", 532),
        (END, "does not begin with Xen's HEADER", 500),
        (save_record(1, 0, bytes(24)) + END, "expected type 1, magic 0x54381286, found type 1, magic 0x0", 500),
        (HEADER + END + b"x", "the END of HVM_CONTEXT is not its end", 532),
        (HEADER + save_record(0, 0, b"x"), "the END of HVM_CONTEXT is not its end", 532),
    ],
)
def test_contexts_that_are_refused(blob: bytes, message: str, offset: int) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        walked(blob)
    assert caught.value.offset == offset
