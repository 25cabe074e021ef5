"""Records of the libxl and libxc streams: header (u32 type, u32 length), body, zeros up to a multiple of 8
bytes.

Sources in Xen: docs/specs/libxc-migration-stream.pandoc (Records), libxl-migration-stream.pandoc
(Records), tools/libs/guest/xg_sr_restore.c and xg_sr_common_x86.c (what a receiver refuses).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc

RECORD_HEADER: Final = struct.Struct("<II")
COUNT: Final = struct.Struct("<II")
TSC: Final = struct.Struct("<IIQII")
_PARAM: Final = struct.Struct("<QQ")

_KNOWN_TYPES: Final = np.zeros(16, dtype=bool)
_KNOWN_TYPES[[int(kind) for kind in c.PageType]] = True
_CONTENT_TYPES: Final = _KNOWN_TYPES.copy()
_CONTENT_TYPES[[c.PageType.BROKEN, c.PageType.XALLOC, c.PageType.XTAB]] = False
_HVM_TYPES: Final = np.zeros(16, dtype=bool)
_HVM_TYPES[[c.PageType.NOTAB, c.PageType.BROKEN, c.PageType.XALLOC, c.PageType.XTAB]] = True

_NAMES: Final = {
    c.Layer.LIBXC: {int(kind): kind.name for kind in Xc},
    c.Layer.LIBXL: {int(kind): kind.name for kind in c.LibxlRecordType},
}
_EMPTY: Final = frozenset({Xc.END, Xc.VERIFY, Xc.CHECKPOINT, Xc.STATIC_DATA_END})
_MULTIPLE: Final = {Xc.X86_CPUID_POLICY: c.CPUID_LEAF_SIZE, Xc.X86_MSR_POLICY: c.MSR_ENTRY_SIZE}
_EXACT: Final = {Xc.SHARED_INFO: c.PAGE_SIZE, Xc.X86_PV_INFO: 8}
_LIBXL_EMPTY: Final = frozenset(
    {c.LibxlRecordType.END, c.LibxlRecordType.LIBXC_CONTEXT, c.LibxlRecordType.CHECKPOINT_END}
)


@dataclass(frozen=True, slots=True)
class Record:
    """One record. raw: header, body and padding. offset: of its header, in bytes from the stream's start."""

    layer: c.Layer
    type: int
    length: int
    offset: int
    raw: memoryview

    @property
    def body(self) -> memoryview:
        """The body without padding."""
        return self.raw[c.RECORD_HEADER_SIZE : c.RECORD_HEADER_SIZE + self.length]

    @property
    def name(self) -> str:
        """The type as the specification names it."""
        return record_name(self.layer, self.type)

    @property
    def optional(self) -> bool:
        """True for records that a reader may skip."""
        return bool(self.type & c.RECORD_OPTIONAL)


@dataclass(frozen=True, slots=True)
class PageData:
    """View of a PAGE_DATA body. types: one PageType number a pfn; content: for each pfn whose type has
    content 4096 bytes, in order; has_content: which ones those are."""

    pfns: NDArray[np.uint64]
    types: NDArray[np.uint8]
    content: memoryview

    @property
    def has_content(self) -> NDArray[np.bool_]:
        """For each pfn whether it has 4096 bytes in `content`."""
        return _CONTENT_TYPES[self.types]

    @property
    def pages(self) -> int:
        """How many pages have content."""
        return len(self.content) // c.PAGE_SIZE


@dataclass(frozen=True, slots=True)
class TscInfo:
    """X86_TSC_INFO. khz: frequency; nsec: elapsed time in ns; see xc_domain_get_tsc_info."""

    mode: int
    khz: int
    nsec: int
    incarnation: int


def record_name(layer: c.Layer, kind: int) -> str:
    """Name of a record type, for messages."""
    known = _NAMES[layer].get(kind)
    if known is not None:
        return known
    return f"{'optional' if kind & c.RECORD_OPTIONAL else 'mandatory'} {layer.value} record {kind:#x}"


def padded(length: int) -> int:
    """The length of a body with its padding."""
    return -(-length // c.RECORD_ALIGN) * c.RECORD_ALIGN


def pack_record(kind: int, body: c.Buffer = b"") -> bytes:
    """A whole record; the body is copied (page content never goes through here). Raises StreamError above
    REC_LENGTH_MAX."""
    length = len(body)
    if length > c.REC_LENGTH_MAX:
        raise StreamError(
            f"a record of {length} bytes is longer than the limit of {c.REC_LENGTH_MAX}",
            offset=0,
            operation=c.WRITE,
        )
    return b"".join((RECORD_HEADER.pack(kind, length), body, bytes(padded(length) - length)))


def parse_record_header(raw: c.Buffer, layer: c.Layer, offset: int, start: int = 0) -> tuple[int, int]:
    """(type, body length) of the record whose header is at raw[start:]. Raises StreamError above
    REC_LENGTH_MAX."""
    kind, length = RECORD_HEADER.unpack_from(raw, start)
    if length > c.REC_LENGTH_MAX:
        raise refused(
            f"{record_name(layer, kind)} announces {length} bytes; the limit is {c.REC_LENGTH_MAX}",
            offset + 4,
        )
    return kind, length


def check_record(record: Record, version: int = c.LIBXC_VERSION, *, hvm: bool = True) -> None:
    """Check one record by itself (not its place in the stream): type known, length right, fields in range,
    padding zero.

    version: of the libxc stream. hvm: an HVM or PVH guest, so records and page types of PV guests are
    refused. Raises StreamError."""
    padding = record.raw[c.RECORD_HEADER_SIZE + record.length :]
    if any(padding):
        raise refused(f"padding of {record.name} is not zero", record.offset + c.RECORD_HEADER_SIZE + record.length)
    if record.optional:
        return
    if record.layer is c.Layer.LIBXC:
        _check_libxc(record, version, hvm)
    else:
        _check_libxl(record)


def parse_page_data(body: memoryview, offset: int, *, max_pfn: int = c.PFN_MASK, hvm: bool = True) -> PageData:
    """View of a PAGE_DATA body; nothing is copied but the pfns. offset: of the body in the stream.

    max_pfn: largest pfn allowed, inclusive. hvm: refuse page-table types (they exist for PV guests only).
    Raises StreamError: reserved bits, no pfns, bad page type, pfn beyond max_pfn, length mismatch."""
    if len(body) < COUNT.size:
        raise refused(f"PAGE_DATA of {len(body)} bytes has no room for its count", offset)
    count, reserved = COUNT.unpack_from(body)
    if reserved:
        raise refused(f"reserved field of PAGE_DATA is {reserved:#x}", offset + 4)
    if not count:
        raise refused("PAGE_DATA without pfns", offset)
    start = COUNT.size + 8 * count
    if len(body) < start:
        raise refused(f"PAGE_DATA of {len(body)} bytes has no room for its {count} pfns", offset)
    entries = np.frombuffer(body, dtype="<u8", count=count, offset=COUNT.size)
    pfns = entries & np.uint64(c.PFN_MASK)
    types = (entries >> np.uint64(c.PAGE_TYPE_SHIFT)).astype(np.uint8)
    _refuse_first(
        entries >> np.uint64(52) & np.uint64(0xFF) != 0,
        entries,
        offset,
        "reserved bits are set in PAGE_DATA entry {:#018x}",
    )
    _refuse_first(~_KNOWN_TYPES[types], types, offset, "bad page type {:#x} in PAGE_DATA")
    if hvm:
        _refuse_first(
            ~_HVM_TYPES[types],
            types,
            offset,
            "bad page type {:#x} in PAGE_DATA: only PV guests have page tables",
        )
    _refuse_first(pfns > np.uint64(max_pfn), pfns, offset, f"pfn {{:#x}} is beyond the limit {max_pfn:#x}")
    pages = int(np.count_nonzero(_CONTENT_TYPES[types]))
    expected = start + pages * c.PAGE_SIZE
    if len(body) != expected:
        raise refused(
            f"PAGE_DATA with {count} pfns and {pages} pages must be {expected} bytes long, it is {len(body)}",
            offset,
        )
    return PageData(pfns, types, body[start:])


def parse_tsc_info(body: memoryview, offset: int) -> TscInfo:
    """X86_TSC_INFO. Raises StreamError."""
    if len(body) != TSC.size:
        raise refused(f"X86_TSC_INFO must be {TSC.size} bytes long, it is {len(body)}", offset)
    mode, khz, nsec, incarnation, reserved = TSC.unpack(body)
    if reserved:
        raise refused(f"reserved field of X86_TSC_INFO is {reserved:#x}", offset + 20)
    return TscInfo(mode, khz, nsec, incarnation)


def parse_hvm_params(body: memoryview, offset: int) -> list[tuple[int, int]]:
    """HVM_PARAMS as (index, value) pairs. Raises StreamError."""
    if len(body) < COUNT.size:
        raise refused(f"HVM_PARAMS of {len(body)} bytes has no room for its count", offset)
    count, reserved = COUNT.unpack_from(body)
    if reserved:
        raise refused(f"reserved field of HVM_PARAMS is {reserved:#x}", offset + 4)
    expected = COUNT.size + count * _PARAM.size
    if len(body) != expected:
        raise refused(f"HVM_PARAMS with {count} entries must be {expected} bytes long, it is {len(body)}", offset)
    return [(index, value) for index, value in _PARAM.iter_unpack(body[COUNT.size :])]


def refused(message: str, offset: int) -> StreamError:
    """The error of a reader at a byte of the stream."""
    return StreamError(message, offset=offset, operation=c.READ)


def truncated(what: str, have: int, need: int, offset: int, left: str | None = None) -> StreamError:
    """The error of a structure of `need` bytes that ended after `have`. offset: where the bytes end."""
    return StreamError(
        f"truncated in {what}: {need - have} of its {need} bytes are missing",
        offset=offset,
        operation=c.READ,
        left=left,
    )


def _refuse_first(
    bad: NDArray[np.bool_], values: NDArray[np.uint64] | NDArray[np.uint8], offset: int, message: str
) -> None:
    if bad.any():
        index = int(bad.argmax())
        raise refused(message.format(int(values[index])), offset + COUNT.size + 8 * index)


def _check_libxc(record: Record, version: int, hvm: bool) -> None:
    kind, body, offset = record.type, record.body, record.offset + c.RECORD_HEADER_SIZE
    if kind not in _NAMES[c.Layer.LIBXC]:
        raise refused(f"unknown {record.name}", record.offset)
    if kind in (Xc.TOOLSTACK, Xc.CHECKPOINT_DIRTY_PFN_LIST):
        raise refused(f"{record.name} records do not belong into this stream", record.offset)
    if version < 3 and kind in (Xc.STATIC_DATA_END, Xc.X86_CPUID_POLICY, Xc.X86_MSR_POLICY):
        raise refused(f"{record.name} in a libxc stream of version {version}", record.offset)
    pv = record.name.startswith("X86_PV_") or kind == Xc.SHARED_INFO
    if kind in (Xc.HVM_CONTEXT, Xc.HVM_PARAMS) if not hvm else pv:
        raise refused(f"{record.name} in the stream of {'an HVM or PVH' if hvm else 'a PV'} guest", record.offset)
    if kind == Xc.PAGE_DATA:
        parse_page_data(body, offset, hvm=hvm)
    elif kind == Xc.X86_TSC_INFO:
        parse_tsc_info(body, offset)
    elif kind == Xc.HVM_PARAMS:
        parse_hvm_params(body, offset)
    else:
        _check_length(record, Xc(kind))


def _check_length(record: Record, kind: Xc) -> None:
    length = record.length
    if kind in _EMPTY:
        wanted, right = "empty", length == 0
    elif kind in _MULTIPLE:
        wanted, right = f"a multiple of {_MULTIPLE[kind]} bytes", length > 0 and length % _MULTIPLE[kind] == 0
    elif kind in _EXACT:
        wanted, right = f"{_EXACT[kind]} bytes long", length == _EXACT[kind]
    elif kind == Xc.HVM_CONTEXT:
        wanted, right = "longer than 0 bytes", length > 0
    else:
        wanted, right = "at least 8 bytes long", length >= 8
    if not right:
        raise refused(f"{kind.name} must be {wanted}, it has {length} bytes", record.offset + 4)


def _check_libxl(record: Record) -> None:
    kind = record.type
    if kind not in _NAMES[c.Layer.LIBXL]:
        raise refused(f"unknown {record.name}", record.offset)
    if kind == c.LibxlRecordType.CHECKPOINT_STATE:
        raise refused("CHECKPOINT_STATE: streams of COLO are not supported", record.offset)
    if kind in _LIBXL_EMPTY:
        if record.length:
            raise refused(f"{record.name} must be empty, it has {record.length} bytes", record.offset + 4)
    elif record.length < COUNT.size:
        raise refused(f"{record.name} of {record.length} bytes has no room for its header", record.offset + 4)
