"""Records of the libxl and libxc streams, each checked by itself: is its type known and at home in this stream,
is its length right, are its fields in range. Its place among the others is `order`'s and `dependencies`' matter.

Framing, page data and the other bodies come from `framing`, `page_data` and `bodies` and are offered here as well.
Sources in Xen: docs/specs/libxc-migration-stream.pandoc (Records, Errata), libxl-migration-stream.pandoc
(Records), tools/libs/guest/xg_sr_restore.c and xg_sr_common_x86.c (what a receiver refuses).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.bodies import (
    TSC,
    Body,
    TscInfo,
    parse_body,
    parse_hvm_params,
    parse_tsc_info,
)
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.framing import (
    RECORD_HEADER,
    Record,
    check_length,
    known,
    locate,
    pack_record,
    padded,
    parse_record_header,
    record_name,
    refused,
    truncated,
)
from remus_agent.protocol.stream.page_data import COUNT, PageData, parse_page_data

__all__ = [
    "COUNT",
    "RECORD_HEADER",
    "TSC",
    "Body",
    "PageData",
    "Record",
    "TscInfo",
    "check_body",
    "check_header",
    "check_length",
    "check_record",
    "colo_only",
    "locate",
    "pack_record",
    "padded",
    "parse_body",
    "parse_hvm_params",
    "parse_page_data",
    "parse_record_header",
    "parse_tsc_info",
    "record_name",
    "refused",
    "truncated",
]


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Lengths a body may have: `least` to `most` bytes, in steps of `step` from `least` on."""

    least: int
    most: int = c.REC_LENGTH_MAX
    step: int = 1

    def allow(self, length: int) -> bool:
        return self.least <= length <= self.most and (length - self.least) % self.step == 0

    def __str__(self) -> str:
        if self.most == self.least:
            return f"{self.least} bytes" if self.least else "none"
        text = f"at least {self.least} bytes" if self.most == c.REC_LENGTH_MAX else f"{self.least} to {self.most} bytes"
        return text if self.step == 1 else f"{text} in steps of {self.step}"


_EMPTY: Final = _Lengths(0, 0)
_VCPU: Final = 8
"""Sub-header of a vcpu's records. Nothing behind it is an erratum that has to be tolerated."""
_LENGTHS: Final[dict[tuple[c.Layer, int], _Lengths]] = {
    (c.Layer.LIBXC, Xc.END): _EMPTY,
    (c.Layer.LIBXC, Xc.PAGE_DATA): _Lengths(16, step=8),
    (c.Layer.LIBXC, Xc.X86_PV_INFO): _Lengths(8, 8),
    (c.Layer.LIBXC, Xc.X86_PV_P2M_FRAMES): _Lengths(16, step=8),
    (c.Layer.LIBXC, Xc.X86_PV_VCPU_BASIC): _Lengths(_VCPU, _VCPU + max(c.VCPU_BASIC_SIZES.values())),
    (c.Layer.LIBXC, Xc.X86_PV_VCPU_EXTENDED): _Lengths(_VCPU, _VCPU + c.VCPU_EXTENDED_MAX),
    (c.Layer.LIBXC, Xc.X86_PV_VCPU_XSAVE): _Lengths(_VCPU),
    (c.Layer.LIBXC, Xc.X86_PV_VCPU_MSRS): _Lengths(_VCPU, step=c.VCPU_MSR_SIZE),
    (c.Layer.LIBXC, Xc.SHARED_INFO): _Lengths(c.PAGE_SIZE, c.PAGE_SIZE),
    (c.Layer.LIBXC, Xc.X86_TSC_INFO): _Lengths(c.TSC_INFO_SIZE, c.TSC_INFO_SIZE),
    (c.Layer.LIBXC, Xc.HVM_CONTEXT): _Lengths(1),
    (c.Layer.LIBXC, Xc.HVM_PARAMS): _Lengths(8, 8 + 16 * c.HVM_PARAMS_MAX, 16),
    (c.Layer.LIBXC, Xc.VERIFY): _EMPTY,
    (c.Layer.LIBXC, Xc.CHECKPOINT): _EMPTY,
    (c.Layer.LIBXC, Xc.STATIC_DATA_END): _EMPTY,
    (c.Layer.LIBXC, Xc.X86_CPUID_POLICY): _Lengths(c.CPUID_LEAF_SIZE, step=c.CPUID_LEAF_SIZE),
    (c.Layer.LIBXC, Xc.X86_MSR_POLICY): _Lengths(c.MSR_ENTRY_SIZE, step=c.MSR_ENTRY_SIZE),
    (c.Layer.LIBXL, Xl.END): _EMPTY,
    (c.Layer.LIBXL, Xl.LIBXC_CONTEXT): _EMPTY,
    (c.Layer.LIBXL, Xl.EMULATOR_XENSTORE_DATA): _Lengths(8, c.EMULATOR_XENSTORE_MAX),
    (c.Layer.LIBXL, Xl.EMULATOR_CONTEXT): _Lengths(8),
    (c.Layer.LIBXL, Xl.CHECKPOINT_END): _EMPTY,
    (c.Layer.LIBXL, Xl.CHECKPOINT_STATE): _Lengths(8, 8),
}

_NOT_HERE: Final = {
    Xc.TOOLSTACK: "it was for the time of the format's development only",
    Xc.CHECKPOINT_DIRTY_PFN_LIST: "COLO's secondary sends it back to the primary",
}
_PV_ONLY: Final = frozenset(
    {
        Xc.X86_PV_INFO,
        Xc.X86_PV_P2M_FRAMES,
        Xc.X86_PV_VCPU_BASIC,
        Xc.X86_PV_VCPU_EXTENDED,
        Xc.X86_PV_VCPU_XSAVE,
        Xc.X86_PV_VCPU_MSRS,
        Xc.SHARED_INFO,
    }
)
_HVM_ONLY: Final = frozenset({Xc.HVM_CONTEXT, Xc.HVM_PARAMS})
_SINCE_VERSION_3: Final = frozenset({Xc.STATIC_DATA_END, Xc.X86_CPUID_POLICY, Xc.X86_MSR_POLICY})
_EMULATOR: Final = frozenset({Xl.EMULATOR_XENSTORE_DATA, Xl.EMULATOR_CONTEXT})


def check_header(
    layer: c.Layer,
    kind: int,
    length: int,
    offset: int,
    *,
    version: int = c.LIBXC_VERSION,
    hvm: bool = True,
    colo: bool = False,
) -> None:
    """Check a record by its header alone: type known, at home in such a stream, length of the body possible.

    offset: of the header. version: of the libxc stream. hvm: an HVM or PVH guest. colo: a stream of COLO.
    Raises StreamError. Optional records pass."""
    if kind & c.RECORD_OPTIONAL:
        return
    if not known(layer, kind):
        name = record_name(layer, kind)
        raise refused(f"unknown {name}", offset, expected="a type of the specification", found=f"{kind:#x}")
    if layer is c.Layer.LIBXC:
        _check_home(kind, offset, version, hvm)
    elif kind == Xl.CHECKPOINT_STATE and not colo:
        raise colo_only(offset)
    elif kind in _EMULATOR and not hvm:
        name = record_name(layer, kind)
        raise refused(f"{name} in the stream of a PV guest", offset, expected="no emulator", found=name)
    lengths = _LENGTHS[layer, kind]
    if not lengths.allow(length):
        name = record_name(layer, kind)
        raise refused(f"wrong length of {name}", offset + 4, expected=str(lengths), found=f"{length} bytes")


def check_record(
    record: Record,
    version: int = c.LIBXC_VERSION,
    *,
    hvm: bool = True,
    colo: bool = False,
    max_pfn: int = c.PFN_MASK,
) -> Body:
    """Check one record by itself (not its place in the stream): type known, length right, fields in range,
    padding zero. Returns its body, typed (None for optional and empty ones).

    version, hvm, colo: as for check_header. max_pfn: largest pfn allowed in PAGE_DATA. Raises StreamError."""
    try:
        check_header(record.layer, record.type, record.length, record.offset, version=version, hvm=hvm, colo=colo)
        return check_body(record, hvm=hvm, max_pfn=max_pfn)
    except StreamError as error:
        locate(error, record)
        raise


def check_body(record: Record, *, hvm: bool = True, max_pfn: int = c.PFN_MASK) -> Body:
    """The rest of check_record, for a record whose header has been checked. Raises StreamError."""
    padding = record.raw[c.RECORD_HEADER_SIZE + record.length :]
    if padding and any(padding):
        raise refused(
            f"the padding of {record.name} is not zero",
            record.body_offset + record.length,
            expected="zeros",
            found=bytes(padding).hex(),
        )
    return parse_body(record, hvm=hvm, max_pfn=max_pfn)


def colo_only(offset: int) -> StreamError:
    """The error of a CHECKPOINT_STATE in a stream that is not read as one of COLO."""
    return refused(
        "CHECKPOINT_STATE records exist in streams of COLO only; this one is read as a plain or Remus stream",
        offset,
        expected="another record",
        found="CHECKPOINT_STATE",
    )


def _check_home(kind: int, offset: int, version: int, hvm: bool) -> None:
    if kind in _NOT_HERE:
        name = Xc(kind).name
        raise refused(
            f"{name} records do not belong into this stream: {_NOT_HERE[Xc(kind)]}",
            offset,
            expected="another record",
            found=name,
        )
    if version < c.LIBXC_VERSION and kind in _SINCE_VERSION_3:
        name = Xc(kind).name
        raise refused(
            f"{name} in a libxc stream of version {version}", offset, expected="a record of version 2", found=name
        )
    if kind in (_PV_ONLY if hvm else _HVM_ONLY):
        name = Xc(kind).name
        guest = "an HVM or PVH" if hvm else "a PV"
        raise refused(
            f"{name} in the stream of {guest} guest", offset, expected=f"a record of {guest} guest", found=name
        )
