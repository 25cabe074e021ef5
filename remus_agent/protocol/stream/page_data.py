"""PAGE_DATA: which pages, of which type, and their content; never a look at the content itself.

Sources in Xen: docs/specs/libxc-migration-stream.pandoc (PAGE_DATA), tools/libs/guest/xg_sr_restore.c
(handle_page_data).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.framing import Record, refused

COUNT: Final = struct.Struct("<II")
"""u32 count, u32 reserved: the beginning of PAGE_DATA and HVM_PARAMS."""

_KNOWN_TYPES: Final = np.zeros(16, dtype=bool)
_KNOWN_TYPES[[int(kind) for kind in c.PageType]] = True
_CONTENT_TYPES: Final = _KNOWN_TYPES.copy()
_CONTENT_TYPES[[c.PageType.BROKEN, c.PageType.XALLOC, c.PageType.XTAB]] = False
_HVM_TYPES: Final = np.zeros(16, dtype=bool)
_HVM_TYPES[[c.PageType.NOTAB, c.PageType.BROKEN, c.PageType.XALLOC, c.PageType.XTAB]] = True
_RESERVED: Final = np.uint64(0xFF << 52)
_PFN: Final = np.uint64(c.PFN_MASK)
_TYPE_SHIFT: Final = np.uint64(c.PAGE_TYPE_SHIFT)
_TOP_SHIFT: Final = np.uint64(52)
_BARE, _FULL, _BAD = range(3)
"""What the upper 12 bits of an entry, its type and the reserved ones, say: no content, content, refused."""


def _by_top(allowed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    table = np.full(1 << 12, _BAD, dtype=np.uint8)
    table[np.arange(16) << 8] = np.where(allowed, np.where(_CONTENT_TYPES, _FULL, _BARE), _BAD)
    return table


_BY_TOP: Final = {True: _by_top(_HVM_TYPES), False: _by_top(_KNOWN_TYPES)}
"""By hvm. One look-up checks and measures a whole record, which counts for streams of many small ones."""


@dataclass(frozen=True, slots=True)
class PageData:
    """View of a PAGE_DATA body. entries: as they stand; content: for each pfn whose type has content 4096 bytes, in
    order."""

    entries: NDArray[np.uint64]
    content: memoryview

    @property
    def pfns(self) -> NDArray[np.uint64]:
        """The pfn of each entry."""
        return self.entries & _PFN

    @property
    def types(self) -> NDArray[np.uint8]:
        """The PageType number of each entry."""
        return (self.entries >> _TYPE_SHIFT).astype(np.uint8)

    @property
    def has_content(self) -> NDArray[np.bool_]:
        """For each pfn whether it has 4096 bytes in `content`."""
        return _CONTENT_TYPES[self.types]

    @property
    def pages(self) -> int:
        """How many pages have content."""
        return len(self.content) // c.PAGE_SIZE


def parse_page_data(body: memoryview, offset: int, *, max_pfn: int = c.PFN_MASK, hvm: bool = True) -> PageData:
    """View of a PAGE_DATA body; nothing is copied. offset: of the body in the stream.

    max_pfn: largest pfn allowed, inclusive. hvm: refuse page-table types (they exist for PV guests only).
    Raises StreamError: reserved bits, no pfns, bad page type, pfn beyond max_pfn, length mismatch."""
    if len(body) < COUNT.size:
        raise refused(
            "PAGE_DATA has no room for its count",
            offset,
            expected=f"at least {COUNT.size} bytes",
            found=f"{len(body)}",
        )
    count, reserved = COUNT.unpack_from(body)
    if reserved:
        raise refused("the reserved field of PAGE_DATA is set", offset + 4, expected="0", found=f"{reserved:#x}")
    if not count:
        raise refused("PAGE_DATA without pfns", offset, expected="a count of at least 1", found="0")
    start = COUNT.size + 8 * count
    if len(body) < start:
        raise refused(
            f"PAGE_DATA has no room for its {count} pfns",
            offset,
            expected=f"at least {start} bytes",
            found=f"{len(body)}",
        )
    entries = np.frombuffer(body, dtype="<u8", count=count, offset=COUNT.size)
    page = PageData(entries, body[start:])
    kinds = _BY_TOP[hvm].take(entries >> _TOP_SHIFT).tobytes()
    if _BAD in kinds:
        _refuse_entries(page, offset, hvm=hvm)
    if max_pfn < c.PFN_MASK:
        beyond = page.pfns > np.uint64(max_pfn)
        _refuse_first(beyond, page.pfns, offset, "pfn beyond the limit", f"at most {max_pfn:#x}")
    pages = kinds.count(_FULL)
    expected = start + pages * c.PAGE_SIZE
    if len(body) != expected:
        raise refused(
            f"wrong length of PAGE_DATA with {count} pfns and {pages} pages",
            offset,
            expected=f"{expected} bytes",
            found=f"{len(body)}",
        )
    return page


def content_pages(record: Record) -> int:
    """How many pages with content there are in a PAGE_DATA record that a reader has accepted."""
    count, _ = COUNT.unpack_from(record.raw, c.RECORD_HEADER_SIZE)
    return int((record.length - COUNT.size - 8 * count) // c.PAGE_SIZE)


def checked_pages(record: Record) -> PageData:
    """View of a PAGE_DATA record that a reader has accepted: its rules are not checked a second time."""
    body = record.body
    count, _ = COUNT.unpack_from(body)
    entries = np.frombuffer(body, dtype="<u8", count=count, offset=COUNT.size)
    return PageData(entries, body[COUNT.size + 8 * count :])


def _refuse_entries(page: PageData, offset: int, *, hvm: bool) -> None:
    """Raise the error of the first entry with bits that it may not have."""
    entries, types = page.entries, page.types
    _refuse_first(
        entries & _RESERVED != 0, entries, offset, "reserved bits are set in a PAGE_DATA entry", "bits 59:52 clear"
    )
    _refuse_first(~_KNOWN_TYPES[types], types, offset, "bad page type in PAGE_DATA", "0x0 to 0x4 or 0x9 to 0xf")
    if hvm:
        _refuse_first(
            ~_HVM_TYPES[types],
            types,
            offset,
            "bad page type in PAGE_DATA: only PV guests have page tables",
            "0x0, 0xd, 0xe or 0xf",
        )


def _refuse_first(
    bad: NDArray[np.bool_],
    values: NDArray[np.uint64] | NDArray[np.uint8],
    offset: int,
    message: str,
    expected: str,
) -> None:
    if bad.any():
        index = int(bad.argmax())
        raise refused(message, offset + COUNT.size + 8 * index, expected=expected, found=f"{int(values[index]):#x}")
