"""HVM_CONTEXT: Xen's own save records inside one record of libxc, walked and, where it helps, with named fields.

    descriptor u16 type, u16 instance, u32 length, then `length` bytes; HEADER first, END last, no padding

For libxc the blob is opaque, so a StreamReader does not look inside; tools that compare two checkpoints do. Sources
in Xen: xen/include/public/hvm/save.h, xen/include/public/arch-x86/hvm/save.h, hvm/save.c (hvm_load).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from remus_agent.protocol.stream.framing import refused

DESCRIPTOR: Final = struct.Struct("<HHI")
MAGIC: Final = 0x54381286


class SaveType(IntEnum):
    """Types of Xen's HVM save records."""

    END = 0
    HEADER = 1
    CPU = 2
    PIC = 3
    IOAPIC = 4
    LAPIC = 5
    LAPIC_REGS = 6
    PCI_IRQ = 7
    ISA_IRQ = 8
    PCI_LINK = 9
    PIT = 10
    RTC = 11
    HPET = 12
    PMTIMER = 13
    MTRR = 14
    VIRIDIAN_DOMAIN = 15
    CPU_XSAVE = 16
    VIRIDIAN_VCPU = 17
    VMCE_VCPU = 18
    TSC_ADJUST = 19
    CPU_MSR = 20


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """One save record. instance: which vcpu or device. offset: of its descriptor in the stream. body: a view."""

    type: int
    instance: int
    offset: int
    body: memoryview

    @property
    def name(self) -> str:
        """The type as Xen names it, or its number."""
        return SaveType(self.type).name if self.type in _KNOWN else f"type {self.type}"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a save record. start, size: in bytes within its body."""

    name: str
    start: int
    size: int


def walk(body: memoryview, offset: int = 0) -> list[SaveRecord]:
    """The save records of an HVM_CONTEXT, END excluded. offset: of the body in the stream, for messages.

    Types that are not known are returned too. Raises StreamError: no HEADER at the front, no END, a record that
    reaches beyond the blob, bytes after END."""
    found: list[SaveRecord] = []
    at = 0
    while True:
        if len(body) - at < DESCRIPTOR.size:
            raise refused(
                "HVM_CONTEXT is cut off before its END",
                offset + at,
                expected=f"a descriptor of {DESCRIPTOR.size} bytes",
                found=f"{len(body) - at} bytes",
            )
        kind, instance, length = DESCRIPTOR.unpack_from(body, at)
        start = at + DESCRIPTOR.size
        if length > len(body) - start:
            raise refused(
                f"save record {len(found) + 1} of HVM_CONTEXT (type {kind}) reaches beyond it",
                offset + at,
                expected=f"at most {len(body) - start} bytes",
                found=f"{length}",
            )
        if not found:
            _check_header(kind, body[start : start + length], offset + at)
        if kind == SaveType.END:
            if length or start != len(body):
                raise refused(
                    "the END of HVM_CONTEXT is not its end",
                    offset + at,
                    expected="no bytes",
                    found=f"{len(body) - start} bytes",
                )
            return found
        found.append(SaveRecord(kind, instance, offset + at, body[start : start + length]))
        at = start + length


def fields(record: SaveRecord) -> tuple[Field, ...]:
    """The layout of a save record's body: names, places and sizes; empty where this module does not know it, or
    where the length is that of another Xen."""
    if record.type == SaveType.CPU_MSR:
        return _msr_fields(record.body)
    for layout in _LAYOUTS.get(record.type, ()):
        if layout[-1].start + layout[-1].size == len(record.body):
            return layout
    return ()


def values(record: SaveRecord) -> dict[str, int | bytes]:
    """The fields of a save record: little-endian numbers up to 8 bytes, longer ones as bytes."""
    out: dict[str, int | bytes] = {}
    for field in fields(record):
        raw = bytes(record.body[field.start : field.start + field.size])
        out[field.name] = int.from_bytes(raw, "little") if field.size <= 8 else raw
    return out


def _check_header(kind: int, body: memoryview, offset: int) -> None:
    magic = int.from_bytes(body[:4], "little")
    if kind != SaveType.HEADER or magic != MAGIC:
        raise refused(
            "HVM_CONTEXT does not begin with Xen's HEADER",
            offset,
            expected=f"type {SaveType.HEADER.value}, magic {MAGIC:#x}",
            found=f"type {kind}, magic {magic:#x}",
        )


def _msr_fields(body: memoryview) -> tuple[Field, ...]:
    """CPU_MSR: u64 count, then u32 index, u32 reserved, u64 value for each; named by their index."""
    if len(body) != 8 + 16 * int.from_bytes(body[:8], "little"):
        return ()
    entries = range(8, len(body), 16)
    return tuple(Field(f"msr_{int.from_bytes(body[at : at + 4], 'little'):08x}", at + 8, 8) for at in entries)


def _layout(*groups: tuple[int, str]) -> tuple[Field, ...]:
    """Fields one after the other, from (size, names) groups."""
    out: list[Field] = []
    start = 0
    for size, names in groups:
        for name in names.split():
            out.append(Field(name, start, size))
            start += size
    return tuple(out)


def _numbered(name: str, count: int) -> str:
    return " ".join(f"{name}_{number}" for number in range(count))


_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
_KNOWN: Final = frozenset(int(kind) for kind in SaveType)
_CPU: Final = (
    (512, "fpu_regs"),
    (8, "rax rbx rcx rdx rbp rsi rdi rsp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"),
    (8, "cr0 cr2 cr3 cr4 dr0 dr1 dr2 dr3 dr6 dr7"),
    (4, " ".join(f"{segment}_sel" for segment in _SEGMENTS)),
    (4, " ".join(f"{segment}_limit" for segment in (*_SEGMENTS, "idtr", "gdtr"))),
    (8, " ".join(f"{segment}_base" for segment in (*_SEGMENTS, "idtr", "gdtr"))),
    (4, " ".join(f"{segment}_arbytes" for segment in _SEGMENTS)),
    (8, "sysenter_cs sysenter_esp sysenter_eip shadow_gs"),
    (8, "msr_flags msr_lstar msr_star msr_cstar msr_syscall_mask msr_efer"),
)
_EVENT: Final = (4, "pending_event error_code")
_LAPIC: Final = ((8, "apic_base_msr"), (4, "disabled timer_divisor"), (8, "tdt_msr"))
_LAYOUTS: Final[dict[int, tuple[tuple[Field, ...], ...]]] = {
    SaveType.HEADER: (_layout((4, "magic version"), (8, "changeset"), (4, "cpuid gtsc_khz")),),
    SaveType.CPU: (
        _layout(*_CPU, (8, "msr_tsc_aux tsc"), _EVENT, (4, "flags pad0")),
        _layout(*_CPU, (8, "msr_tsc_aux tsc"), _EVENT),
        _layout(*_CPU, (8, "tsc"), _EVENT),
    ),
    SaveType.LAPIC: (_layout(*_LAPIC, (4, "pending_esr pad0")), _layout(*_LAPIC)),
    SaveType.PCI_IRQ: (_layout((8, _numbered("wires", 2))),),
    SaveType.ISA_IRQ: (_layout((8, "wires")),),
    SaveType.PCI_LINK: (_layout((1, _numbered("route", 4)), (4, "pad0")),),
    SaveType.RTC: (_layout((14, "cmos_data"), (1, "cmos_index pad0"), (8, "rtc_offset")),),
    SaveType.PMTIMER: (_layout((4, "tmr_val"), (2, "pm1a_sts pm1a_en")),),
    SaveType.MTRR: (
        _layout(
            (8, "msr_pat_cr"),
            (8, _numbered("var", 16)),
            (8, _numbered("fixed", 11)),
            (8, "msr_mtrr_cap msr_mtrr_def_type"),
        ),
    ),
    SaveType.VIRIDIAN_DOMAIN: (_layout((8, "hypercall_gpa guest_os_id time_ref_count reference_tsc")),),
    SaveType.VMCE_VCPU: (_layout((8, "caps mci_ctl2_bank0 mci_ctl2_bank1 mcg_ext_ctl")),),
    SaveType.TSC_ADJUST: (_layout((8, "tsc_adjust")),),
}
"""By type: the layouts of present and earlier Xens, told apart by their length."""
