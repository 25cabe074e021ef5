"""Writes what stock Xen 4.14 and later accepts as the stream of a PVH or HVM guest.

Every function returns whole records. Page content is never copied: `page_data` returns slices of the
caller's memory next to packed headers. Order of a checkpointed stream: `preamble`, `page_data`…, then for
each epoch `page_data`…, `tsc_info`, `hvm_context`, `hvm_params`, `checkpoint`, for an HVM guest
`emulator_context`, `checkpoint_end`; a plain stream ends with `end_of_libxc`, for an HVM guest
`emulator_context`, `end_of_libxl`. Sources in Xen: docs/specs/libxc-migration-stream.pandoc;
tools/libs/guest/xg_sr_save.c and xg_sr_save_x86_hvm.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import bodies, headers, records
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc

_END: Final = records.pack_record(Xc.END)
_CHECKPOINT: Final = records.pack_record(Xc.CHECKPOINT)
_CHECKPOINT_END: Final = records.pack_record(c.LibxlRecordType.CHECKPOINT_END)


def opening(config_json: bytes) -> bytes:
    """What precedes libxc's stream: xl header, libxl header, LIBXC_CONTEXT. config_json: as for preamble."""
    return b"".join(
        (
            headers.pack_xl_header(config_json),
            headers.pack_libxl_header(),
            records.pack_record(c.LibxlRecordType.LIBXC_CONTEXT),
        )
    )


def preamble(config_json: bytes | str, xen: tuple[int, int], cpuid: c.Buffer, msr: c.Buffer) -> bytes:
    """Everything before memory, xl header to STATIC_DATA_END.

    config_json: libxl's domain configuration without NUL. xen: (major, minor). cpuid: xen_cpuid_leaf_t[]
    (24 bytes each), msr: xen_msr_entry_t[] (16 bytes each), both as xc_cpu_policy_serialise gives them,
    neither empty (the receiver refuses that). Raises StreamError."""
    config = config_json.encode() if isinstance(config_json, str) else config_json
    for name, blob, size in (("CPUID", cpuid, c.CPUID_LEAF_SIZE), ("MSR", msr, c.MSR_ENTRY_SIZE)):
        if not len(blob) or len(blob) % size:
            raise _wrong(f"the {name} policy of {len(blob)} bytes is not a number of entries of {size} bytes")
    return b"".join(
        (
            opening(config),
            headers.pack_image_header(),
            headers.pack_domain_header(xen),
            records.pack_record(Xc.X86_CPUID_POLICY, cpuid),
            records.pack_record(Xc.X86_MSR_POLICY, msr),
            records.pack_record(Xc.STATIC_DATA_END),
        )
    )


def page_data(pfns: NDArray[np.uint64], pages: memoryview) -> list[list[c.Buffer]]:
    """PAGE_DATA records of at most 1024 ordinary pages, each a list of two buffers: header with pfns,
    content.

    pages: contiguous, 4096 bytes a pfn in the order of `pfns`; the content buffers are slices of it. No
    pfns: no records. Raises StreamError when sizes disagree or a pfn has more than 52 bits."""
    count = _checked(pfns)
    if pages.nbytes != count * c.PAGE_SIZE:
        raise _wrong(f"{pages.nbytes} bytes of pages for {count} pfns; {count * c.PAGE_SIZE} are needed")
    if not count:
        return []
    if not pages.c_contiguous:
        raise _wrong("the pages are not contiguous")
    content = pages.cast("B") if pages.ndim != 1 or pages.format != "B" else pages
    entries = np.ascontiguousarray(pfns, dtype="<u8")
    out: list[list[c.Buffer]] = []
    for start in range(0, count, c.PAGES_PER_RECORD):
        part = entries[start : start + c.PAGES_PER_RECORD]
        size = len(part) * c.PAGE_SIZE
        head = _page_head(part, size)
        out.append([head, content[start * c.PAGE_SIZE : start * c.PAGE_SIZE + size]])
    return out


def page_xalloc(pfns: NDArray[np.uint64]) -> list[list[c.Buffer]]:
    """PAGE_DATA records of at most 1024 pfns that the receiver populates without content (XALLOC). Raises
    StreamError."""
    count = _checked(pfns)
    entries = np.ascontiguousarray(pfns, dtype="<u8") | np.uint64(c.PageType.XALLOC << c.PAGE_TYPE_SHIFT)
    return [
        [_page_head(entries[start : start + c.PAGES_PER_RECORD], 0)] for start in range(0, count, c.PAGES_PER_RECORD)
    ]


def tsc_info(mode: int, khz: int, nsec: int, incarnation: int) -> bytes:
    """X86_TSC_INFO. khz: frequency, nsec: elapsed ns. (xc_domain_get_tsc_info returns nsec *before* khz.)"""
    return records.pack_record(Xc.X86_TSC_INFO, records.TSC.pack(mode, khz, nsec, incarnation, 0))


def hvm_context(blob: c.Buffer) -> bytes:
    """HVM_CONTEXT. blob: as xc_domain_hvm_getcontext gives it. Raises StreamError if it is empty."""
    if not len(blob):
        raise _wrong("the HVM context is empty")
    return records.pack_record(Xc.HVM_CONTEXT, blob)


def hvm_params(pairs: Iterable[tuple[int, int]]) -> bytes:
    """HVM_PARAMS of (index, value). Zero values are left out as Xen's saver does: a receiver would clear page
    0 for a CONSOLE_PFN of 0. It must follow the epoch's PAGE_DATA, because the receiver clears the special
    pages on it."""
    flat = [(index, value) for index, value in pairs if value]
    body = records.COUNT.pack(len(flat), 0) + np.array(flat, dtype="<u8").tobytes()
    return records.pack_record(Xc.HVM_PARAMS, body)


def checkpoint() -> bytes:
    """libxc's CHECKPOINT: the epoch's memory and processor state are complete."""
    return _CHECKPOINT


def emulator_context(state: c.Buffer) -> bytes:
    """EMULATOR_CONTEXT of an HVM guest. state: what upstream QEMU saved. Raises StreamError if it is empty."""
    if not len(state):
        raise _wrong("the device model's state is empty")
    head = bodies.EMULATOR.pack(c.EmulatorId.QEMU_UPSTREAM, 0)
    return records.pack_record(c.LibxlRecordType.EMULATOR_CONTEXT, head + bytes(state))


def checkpoint_end() -> bytes:
    """libxl's CHECKPOINT_END: the epoch is complete."""
    return _CHECKPOINT_END


def end_of_libxc() -> bytes:
    """libxc's END."""
    return _END


def end_of_libxl() -> bytes:
    """libxl's END, the last record of a stream."""
    return _END


def grouped(buffers: Iterable[c.Buffer], limit: int) -> Iterator[list[c.Buffer]]:
    """Cut a sequence of buffers into groups of whole records, each of at most `limit` bytes, without copying.

    buffers: whole records in order; a record begins where a buffer begins or where a record in the same
    buffer ends, and its 8 header bytes stand in one buffer. Raises StreamError when a record does not fit
    or the last one is cut off."""
    group: list[c.Buffer] = []
    size = 0
    for record, length in _whole(buffers):
        if length > limit:
            raise _wrong(f"a record of {length} bytes is longer than the limit of {limit}")
        if size + length > limit:
            yield group
            group, size = [], 0
        group += record
        size += length
    if group:
        yield group


def _whole(buffers: Iterable[c.Buffer]) -> Iterator[tuple[Sequence[c.Buffer], int]]:
    parts: list[c.Buffer] = []
    length = missing = 0
    for buffer in buffers:
        rest = memoryview(buffer).cast("B")
        while rest:
            if not missing:
                if len(rest) < c.RECORD_HEADER_SIZE:
                    raise _wrong("the header of a record is split over buffers")
                _, body = records.RECORD_HEADER.unpack_from(rest)
                length = missing = c.RECORD_HEADER_SIZE + records.padded(body)
            part = rest[:missing]
            parts.append(part)
            missing -= len(part)
            rest = rest[len(part) :]
            if not missing:
                yield parts, length
                parts = []
    if missing:
        raise _wrong(f"the last record lacks {missing} of its {length} bytes")


def _checked(pfns: NDArray[np.uint64]) -> int:
    if pfns.dtype != np.uint64 or pfns.ndim != 1:
        raise _wrong(f"pfns must be a row of uint64, not {pfns.ndim}-dimensional {pfns.dtype}")
    if len(pfns) and int(pfns.max()) > c.PFN_MASK:
        raise _wrong(f"pfn {int(pfns.max()):#x} has more than 52 bits")
    return len(pfns)


def _page_head(entries: NDArray[np.uint64], size: int) -> bytes:
    length = records.COUNT.size + entries.nbytes + size
    return b"".join(
        (
            records.RECORD_HEADER.pack(Xc.PAGE_DATA, length),
            records.COUNT.pack(len(entries), 0),
            entries.tobytes(),
        )
    )


def _wrong(message: str) -> StreamError:
    return StreamError(message, offset=0, operation=c.WRITE)
