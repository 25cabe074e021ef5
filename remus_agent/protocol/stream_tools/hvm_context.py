"""Xen's save records inside an HVM_CONTEXT: {u16 type, u16 instance, u32 length} and the body, END as the last.

Source in Xen: xen/include/public/hvm/save.h, xen/include/public/arch-x86/hvm/save.h; what is refused is what
xen/common/hvm/save.c (hvm_load) and xen/arch/x86/hvm/save.c (arch_hvm_load) refuse.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from remus_agent.protocol.stream.records import refused

DESCRIPTOR: Final = struct.Struct("<HHI")
MAGIC: Final = 0x54381286
VERSION: Final = 1
END: Final = 0
HEADER: Final = 1
CPU: Final = 2
CPU_MSR: Final = 20

NAMES: Final = {
    0: "END",
    1: "HEADER",
    2: "CPU",
    3: "PIC",
    4: "IOAPIC",
    5: "LAPIC",
    6: "LAPIC_REGS",
    7: "PCI_IRQ",
    8: "ISA_IRQ",
    9: "PCI_LINK",
    10: "PIT",
    11: "RTC",
    12: "HPET",
    13: "PMTIMER",
    14: "MTRR",
    15: "VIRIDIAN_DOMAIN",
    16: "CPU_XSAVE",
    17: "VIRIDIAN_VCPU",
    18: "VMCE_VCPU",
    19: "TSC_ADJUST",
    20: "CPU_MSR",
}

_GENERAL: Final = ("ax", "bx", "cx", "dx", "bp", "si", "di", "sp")
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
_TABLES: Final = ("idtr", "gdtr")
_CPU_U64_FIRST: Final = (
    *(f"r{name}" for name in _GENERAL),
    *(f"r{number}" for number in range(8, 16)),
    "rip",
    "rflags",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "dr0",
    "dr1",
    "dr2",
    "dr3",
    "dr6",
    "dr7",
)
_CPU_U64_LAST: Final = (
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "shadow_gs",
    "msr_flags",
    "msr_lstar",
    "msr_star",
    "msr_cstar",
    "msr_syscall_mask",
    "msr_efer",
    "msr_tsc_aux",
    "tsc",
)
_FIELDS: Final[dict[int, tuple[tuple[str, str], ...]]] = {
    HEADER: (("magic", "I"), ("version", "I"), ("changeset", "Q"), ("cpuid", "I"), ("gtsc_khz", "I")),
    CPU: (
        ("fpu_regs", "512s"),
        *((name, "Q") for name in _CPU_U64_FIRST),
        *((f"{name}_sel", "I") for name in _SEGMENTS),
        *((f"{name}_limit", "I") for name in (*_SEGMENTS, *_TABLES)),
        *((f"{name}_base", "Q") for name in (*_SEGMENTS, *_TABLES)),
        *((f"{name}_arbytes", "I") for name in _SEGMENTS),
        *((name, "Q") for name in _CPU_U64_LAST),
        *((name, "I") for name in ("pending_event", "error_code", "flags", "pad0")),
    ),
    5: (("apic_base_msr", "Q"), ("disabled", "I"), ("timer_divisor", "I")),
    13: (("tmr_val", "I"), ("pm1a_sts", "H"), ("pm1a_en", "H")),
    14: (
        ("msr_pat_cr", "Q"),
        *((f"msr_mtrr_var[{number}]", "Q") for number in range(16)),
        *((f"msr_mtrr_fixed[{number}]", "Q") for number in range(11)),
        ("msr_mtrr_cap", "Q"),
        ("msr_mtrr_def_type", "Q"),
    ),
    18: (("caps", "Q"), ("mci_ctl2_bank0", "Q"), ("mci_ctl2_bank1", "Q"), ("mcg_ext_ctl", "Q")),
    19: (("tsc_adjust", "Q"),),
}
"""Fields of the records that have plain ones, by type; the others are told apart by their bytes."""
_MAGIC_VERSION: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<I")
_MSR: Final = struct.Struct("<IIQ")


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """One save record. body: a view of the context; instance: of a processor's record its number."""

    type: int
    instance: int
    body: memoryview

    @property
    def name(self) -> str:
        """As Xen names it, with its instance."""
        return f"{NAMES.get(self.type, f'type {self.type}')} {self.instance}"


def save_records(context: memoryview, offset: int) -> list[SaveRecord]:
    """The save records of an HVM_CONTEXT without the END. offset: of the context in the stream.

    Raises StreamError: a record is cut off, HEADER is not the first or has another magic or version, no END."""
    found = list(_records(context, offset))
    if not found or found[0].type != HEADER:
        raise refused("HVM_CONTEXT does not begin with Xen's HEADER record", offset)
    start = bytes(found[0].body[: _MAGIC_VERSION.size])
    if start != _MAGIC_VERSION.pack(MAGIC, VERSION):
        raise refused(
            f"HEADER of HVM_CONTEXT begins with {start.hex()}; expected is {_MAGIC_VERSION.pack(MAGIC, VERSION).hex()}"
            f" (magic and version {VERSION})",
            offset + DESCRIPTOR.size,
        )
    return found


def fields(record: SaveRecord) -> dict[str, int | bytes] | None:
    """Values by name, as far as the record is long (it grew over Xen's versions); None where only the bytes are
    known."""
    if record.type == CPU_MSR:
        return _msrs(record.body)
    spec = _FIELDS.get(record.type)
    if spec is None:
        return None
    values: dict[str, int | bytes] = {}
    at = 0
    for name, kind in spec:
        size = struct.calcsize(f"<{kind}")
        if at + size > len(record.body):
            break
        (values[name],) = struct.unpack_from(f"<{kind}", record.body, at)
        at += size
    return values


def _records(context: memoryview, offset: int) -> Iterator[SaveRecord]:
    at = 0
    while True:
        if len(context) - at < DESCRIPTOR.size:
            raise refused(
                f"HVM_CONTEXT has no END record: a record needs {DESCRIPTOR.size} bytes here, {len(context) - at} are left",
                offset + at,
            )
        kind, instance, length = DESCRIPTOR.unpack_from(context, at)
        at += DESCRIPTOR.size
        if length > len(context) - at:
            raise refused(
                f"save record {NAMES.get(kind, kind)} in HVM_CONTEXT has {length} bytes, {len(context) - at} are left",
                offset + at - DESCRIPTOR.size,
            )
        if kind == END:
            return
        yield SaveRecord(kind, instance, context[at : at + length])
        at += length


def _msrs(body: memoryview) -> dict[str, int | bytes] | None:
    if len(body) < 2 * _COUNT.size:
        return None
    (count,) = _COUNT.unpack_from(body)
    start = 8  # the entries are aligned to their u64
    if len(body) != start + count * _MSR.size:
        return None
    return {f"msr {index:#x}": value for index, _, value in _MSR.iter_unpack(body[start:])}
