"""Bodies of the records of both layers, typed. Large parts stay views of the record.

A parser takes the body without padding and its offset in the stream (for messages), and raises StreamError.
`parse_body` picks the parser for a record. Sources in Xen: docs/specs/libxc-migration-stream.pandoc and
libxl-migration-stream.pandoc; tools/libs/guest/xg_sr_restore_x86_{pv,hvm}.c and xg_sr_common_x86.c (what a
receiver refuses); tools/libs/light/libxl_stream_read.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.framing import Record, refused
from remus_agent.protocol.stream.page_data import COUNT, PageData, parse_page_data

TSC: Final = struct.Struct("<IIQII")
EMULATOR: Final = struct.Struct("<II")
PV_INFO: Final = struct.Struct("<BBHI")
_PARAM: Final = struct.Struct("<QQ")
_PAIR: Final = struct.Struct("<II")
_KEY: Final = re.compile(rb"[A-Za-z0-9/_@-]+")

CPUID_LEAF: Final = np.dtype([(name, "<u4") for name in ("leaf", "subleaf", "a", "b", "c", "d")])
"""xen_cpuid_leaf_t (xen/include/public/arch-x86/xen.h)."""
MSR_ENTRY: Final = np.dtype([("index", "<u4"), ("flags", "<u4"), ("value", "<u8")])
"""xen_msr_entry_t, and xen_domctl_vcpu_msr_t inside X86_PV_VCPU_MSRS."""


@dataclass(frozen=True, slots=True)
class TscInfo:
    """X86_TSC_INFO. khz: frequency; nsec: elapsed time in ns; see xc_domain_get_tsc_info."""

    mode: int
    khz: int
    nsec: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class PvInfo:
    """X86_PV_INFO. width: of the guest in bytes, 8 or 4; levels: of its page tables."""

    width: int
    levels: int


@dataclass(frozen=True, slots=True)
class P2mFrames:
    """X86_PV_P2M_FRAMES: the pfns of the pages that hold the guest's p2m table for pfns start to end, inclusive."""

    start_pfn: int
    end_pfn: int
    frames: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class VcpuState:
    """X86_PV_VCPU_BASIC, EXTENDED, XSAVE or MSRS: a blob for Xen. An empty context is to be ignored (Xen 4.6
    to 4.8 wrote such records by mistake)."""

    vcpu: int
    context: memoryview


@dataclass(frozen=True, slots=True)
class EmulatorXenstoreData:
    """EMULATOR_XENSTORE_DATA. pairs: (key, value), keys relative to the device model's xenstore directory."""

    emulator: c.EmulatorId
    index: int
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EmulatorContext:
    """EMULATOR_CONTEXT. context: what the emulator saved; only it knows the format."""

    emulator: c.EmulatorId
    index: int
    context: memoryview


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """CHECKPOINT_STATE, of COLO only."""

    id: c.CheckpointStateId


Body = (
    PageData
    | TscInfo
    | PvInfo
    | P2mFrames
    | VcpuState
    | EmulatorXenstoreData
    | EmulatorContext
    | CheckpointState
    | list[tuple[int, int]]
    | NDArray[np.uint64]
    | NDArray[np.void]
    | memoryview
    | None
)
"""What `parse_body` returns. HVM_PARAMS: a list of (index, value); CHECKPOINT_DIRTY_PFN_LIST: pfns;
X86_CPUID_POLICY, X86_MSR_POLICY: rows of CPUID_LEAF, MSR_ENTRY; SHARED_INFO, HVM_CONTEXT, TOOLSTACK: the bytes;
records without content and optional ones: None."""


def parse_body(record: Record, *, hvm: bool = True, max_pfn: int = c.PFN_MASK) -> Body:
    """The body of a record of a known type, typed. hvm, max_pfn: as for parse_page_data.

    Raises StreamError for fields out of range; lengths that do not fit, except where a table of the caller
    has checked them (see `records.check_header`)."""
    if record.optional:
        return None
    if record.layer is c.Layer.LIBXC and record.type == Xc.PAGE_DATA:
        return parse_page_data(record.body, record.body_offset, max_pfn=max_pfn, hvm=hvm)
    parser = _PARSERS.get((record.layer, record.type))
    return None if parser is None else parser(record.body, record.body_offset)


def parse_tsc_info(body: memoryview, offset: int) -> TscInfo:
    """X86_TSC_INFO. Raises StreamError."""
    _sized("X86_TSC_INFO", body, offset, TSC.size)
    mode, khz, nsec, incarnation, reserved = TSC.unpack(body)
    _clear("X86_TSC_INFO", reserved, offset + 20)
    return TscInfo(mode, khz, nsec, incarnation)


def parse_hvm_params(body: memoryview, offset: int) -> list[tuple[int, int]]:
    """HVM_PARAMS as (index, value) pairs; none where a Xen of 4.6 to 4.8 wrote an empty record. Raises
    StreamError."""
    count, reserved = _counted("HVM_PARAMS", body, offset)
    _clear("HVM_PARAMS", reserved, offset + 4)
    if count > c.HVM_PARAMS_MAX:
        raise refused(
            "too many entries in HVM_PARAMS", offset, expected=f"at most {c.HVM_PARAMS_MAX}", found=f"{count}"
        )
    _sized(f"HVM_PARAMS with {count} entries", body, offset, COUNT.size + count * _PARAM.size)
    return [(index, value) for index, value in _PARAM.iter_unpack(body[COUNT.size :])]


def parse_pv_info(body: memoryview, offset: int) -> PvInfo:
    """X86_PV_INFO. Raises StreamError for widths and levels that no guest has."""
    _sized("X86_PV_INFO", body, offset, PV_INFO.size)
    width, levels, reserved, more = PV_INFO.unpack(body)
    if c.PV_LEVELS.get(width) != levels:
        raise refused(
            "no PV guest has this width and these page tables",
            offset,
            expected="8 bytes and 4 levels, or 4 bytes and 3 levels",
            found=f"{width} bytes and {levels} levels",
        )
    _clear("X86_PV_INFO", reserved or more, offset + 2)
    return PvInfo(width, levels)


def parse_p2m_frames(body: memoryview, offset: int) -> P2mFrames:
    """X86_PV_P2M_FRAMES. Raises StreamError; how many frames there must be depends on the guest's width (see
    `dependencies`)."""
    start, end = _counted("X86_PV_P2M_FRAMES", body, offset)
    if start > end:
        raise refused(
            "X86_PV_P2M_FRAMES ends before it starts",
            offset,
            expected=f"an end of at least {start:#x}",
            found=f"{end:#x}",
        )
    if len(body) % 8:
        raise refused(
            "wrong length of X86_PV_P2M_FRAMES", offset, expected="a multiple of 8 bytes", found=f"{len(body)}"
        )
    return P2mFrames(start, end, np.frombuffer(body, dtype="<u8", offset=_PAIR.size))


def parse_vcpu_state(body: memoryview, offset: int) -> VcpuState:
    """X86_PV_VCPU_EXTENDED and MSRS; what is common to all four. Raises StreamError."""
    vcpu, reserved = _counted("the state of a vcpu", body, offset)
    _clear("the state of a vcpu", reserved, offset + 4)
    context = body[_PAIR.size :]
    if context and vcpu >= c.VCPUS_MAX:
        raise refused("no PV guest has this vcpu", offset, expected=f"below {c.VCPUS_MAX}", found=f"{vcpu}")
    return VcpuState(vcpu, context)


def parse_vcpu_basic(body: memoryview, offset: int) -> VcpuState:
    """X86_PV_VCPU_BASIC: a vcpu_guest_context_t. Raises StreamError."""
    state = parse_vcpu_state(body, offset)
    if state.context and len(state.context) not in c.VCPU_BASIC_SIZES.values():
        sizes = " or ".join(f"{size} bytes" for size in c.VCPU_BASIC_SIZES.values())
        raise refused(
            "wrong length of the context in X86_PV_VCPU_BASIC", offset, expected=sizes, found=f"{len(state.context)}"
        )
    return state


def parse_vcpu_xsave(body: memoryview, offset: int) -> VcpuState:
    """X86_PV_VCPU_XSAVE: xcr0, xcr0_accum and a save area. Raises StreamError."""
    state = parse_vcpu_state(body, offset)
    if state.context and len(state.context) < c.VCPU_XSAVE_MIN:
        raise refused(
            "wrong length of the context in X86_PV_VCPU_XSAVE",
            offset,
            expected=f"at least {c.VCPU_XSAVE_MIN} bytes",
            found=f"{len(state.context)}",
        )
    return state


def parse_emulator_xenstore_data(body: memoryview, offset: int) -> EmulatorXenstoreData:
    """EMULATOR_XENSTORE_DATA. Raises StreamError for text that is not pairs of NUL-terminated key and value, keys
    with characters that xenstore does not allow, and values that are not ASCII."""
    emulator, index = _emulator("EMULATOR_XENSTORE_DATA", body, offset)
    if len(body) > c.EMULATOR_XENSTORE_MAX:
        raise refused(
            "EMULATOR_XENSTORE_DATA is too long",
            offset,
            expected=f"at most {c.EMULATOR_XENSTORE_MAX} bytes",
            found=f"{len(body)}",
        )
    text = bytes(body[EMULATOR.size :])
    start = offset + EMULATOR.size
    if text and text[-1]:
        raise refused(
            "EMULATOR_XENSTORE_DATA is cut off",
            start + len(text) - 1,
            expected="a NUL at its end",
            found=f"{text[-1]:#x}",
        )
    parts = text.split(b"\0")[:-1]
    if len(parts) % 2:
        raise refused(
            "a key without a value in EMULATOR_XENSTORE_DATA",
            start,
            expected="an even number of strings",
            found=f"{len(parts)}",
        )
    for part in parts[::2]:
        if not _KEY.fullmatch(part):
            raise refused(
                "bad key in EMULATOR_XENSTORE_DATA",
                start,
                expected="letters, digits and -/_@",
                found=repr(part[:80]),
            )
    for part in parts[1::2]:
        if not part.isascii():
            raise refused("bad value in EMULATOR_XENSTORE_DATA", start, expected="ASCII", found=repr(part[:80]))
    words = [part.decode("ascii") for part in parts]
    return EmulatorXenstoreData(emulator, index, tuple(zip(words[::2], words[1::2], strict=True)))


def parse_emulator_context(body: memoryview, offset: int) -> EmulatorContext:
    """EMULATOR_CONTEXT. Raises StreamError."""
    return EmulatorContext(*_emulator("EMULATOR_CONTEXT", body, offset), body[EMULATOR.size :])


def parse_checkpoint_state(body: memoryview, offset: int) -> CheckpointState:
    """CHECKPOINT_STATE. Raises StreamError."""
    _sized("CHECKPOINT_STATE", body, offset, _PAIR.size)
    kind, reserved = _PAIR.unpack(body)
    if kind not in tuple(c.CheckpointStateId):
        raise refused("unknown CHECKPOINT_STATE", offset, expected="0 to 3", found=f"{kind}")
    _clear("CHECKPOINT_STATE", reserved, offset + 4)
    return CheckpointState(c.CheckpointStateId(kind))


def parse_cpuid_policy(body: memoryview, offset: int) -> NDArray[np.void]:
    """X86_CPUID_POLICY as rows of CPUID_LEAF. Raises StreamError."""
    return _rows("X86_CPUID_POLICY", body, offset, CPUID_LEAF)


def parse_msr_policy(body: memoryview, offset: int) -> NDArray[np.void]:
    """X86_MSR_POLICY as rows of MSR_ENTRY. Raises StreamError."""
    return _rows("X86_MSR_POLICY", body, offset, MSR_ENTRY)


def parse_dirty_pfn_list(body: memoryview, offset: int) -> NDArray[np.uint64]:
    """CHECKPOINT_DIRTY_PFN_LIST: pfns. Raises StreamError."""
    if len(body) % 8:
        raise refused(
            "wrong length of CHECKPOINT_DIRTY_PFN_LIST", offset, expected="a multiple of 8 bytes", found=f"{len(body)}"
        )
    return np.frombuffer(body, dtype="<u8")


def _blob(body: memoryview, _offset: int) -> memoryview:
    return body


def _rows(name: str, body: memoryview, offset: int, row: np.dtype[np.void]) -> NDArray[np.void]:
    if not body or len(body) % row.itemsize:
        raise refused(
            f"wrong length of {name}", offset, expected=f"a multiple of {row.itemsize} bytes", found=f"{len(body)}"
        )
    return np.frombuffer(body, dtype=row)


def _counted(name: str, body: memoryview, offset: int) -> tuple[int, int]:
    if len(body) < _PAIR.size:
        raise refused(
            f"{name} has no room for its header", offset, expected=f"at least {_PAIR.size} bytes", found=f"{len(body)}"
        )
    first, second = _PAIR.unpack_from(body)
    return first, second


def _emulator(name: str, body: memoryview, offset: int) -> tuple[c.EmulatorId, int]:
    emulator, index = _counted(name, body, offset)
    if emulator not in tuple(c.EmulatorId):
        raise refused(f"unknown emulator in {name}", offset, expected="0 to 2", found=f"{emulator}")
    return c.EmulatorId(emulator), index


def _sized(name: str, body: memoryview, offset: int, size: int) -> None:
    if len(body) != size:
        raise refused(f"wrong length of {name}", offset, expected=f"{size} bytes", found=f"{len(body)}")


def _clear(name: str, value: int, offset: int) -> None:
    if value:
        raise refused(f"the reserved field of {name} is set", offset, expected="0", found=f"{value:#x}")


_LIBXC: Final = c.Layer.LIBXC
_LIBXL: Final = c.Layer.LIBXL
_PARSERS: Final[dict[tuple[c.Layer, int], Callable[[memoryview, int], Body]]] = {
    (_LIBXC, Xc.X86_PV_INFO): parse_pv_info,
    (_LIBXC, Xc.X86_PV_P2M_FRAMES): parse_p2m_frames,
    (_LIBXC, Xc.X86_PV_VCPU_BASIC): parse_vcpu_basic,
    (_LIBXC, Xc.X86_PV_VCPU_EXTENDED): parse_vcpu_state,
    (_LIBXC, Xc.X86_PV_VCPU_XSAVE): parse_vcpu_xsave,
    (_LIBXC, Xc.X86_PV_VCPU_MSRS): parse_vcpu_state,
    (_LIBXC, Xc.SHARED_INFO): _blob,
    (_LIBXC, Xc.X86_TSC_INFO): parse_tsc_info,
    (_LIBXC, Xc.HVM_CONTEXT): _blob,
    (_LIBXC, Xc.HVM_PARAMS): parse_hvm_params,
    (_LIBXC, Xc.TOOLSTACK): _blob,
    (_LIBXC, Xc.CHECKPOINT_DIRTY_PFN_LIST): parse_dirty_pfn_list,
    (_LIBXC, Xc.X86_CPUID_POLICY): parse_cpuid_policy,
    (_LIBXC, Xc.X86_MSR_POLICY): parse_msr_policy,
    (_LIBXL, Xl.EMULATOR_XENSTORE_DATA): parse_emulator_xenstore_data,
    (_LIBXL, Xl.EMULATOR_CONTEXT): parse_emulator_context,
    (_LIBXL, Xl.CHECKPOINT_STATE): parse_checkpoint_state,
}
