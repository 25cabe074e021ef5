"""Pages of zeros: finding them, and putting them back where they travel in short."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.framing import RECORD_HEADER, Record
from remus_agent.protocol.stream.page_data import COUNT, checked_pages

_ZEROS: Final = memoryview(bytes(c.PAGES_PER_RECORD * c.PAGE_SIZE))
_FRONT: Final = 8
"""Words in which most pages that are not zero show it, so that only the others are read whole."""


def zero_pages(content: c.Buffer) -> NDArray[np.bool_]:
    """For each page of 4096 bytes in `content` whether all of it is zero."""
    words = np.frombuffer(content, dtype=np.uint64).reshape(-1, c.PAGE_SIZE // 8)
    zero: NDArray[np.bool_] = np.logical_not(words[:, :_FRONT].any(axis=1))
    if zero.any():
        candidates = np.flatnonzero(zero)
        zero[candidates] = ~words[candidates].any(axis=1)
    return zero


def with_zero_pages(record: Record) -> list[c.Buffer]:
    """A PAGE_DATA record that a reader has accepted, with content for its XALLOC pages, as one or more records; nothing is
    copied.

    Our saver sends zero pages as XALLOC. Stock Xen would populate those and write nothing: a page that had content in
    an earlier epoch would keep it, and memory that Xen hands out may hold what a live domain has freed."""
    page = checked_pages(record)
    zero = page.types == int(c.PageType.XALLOC)
    if not zero.any():
        return [record.raw]
    types = np.where(zero, int(c.PageType.NOTAB), page.types).astype(np.uint64)
    entries = page.pfns | types << np.uint64(c.PAGE_TYPE_SHIFT)
    kinds = np.where(zero, 2, page.has_content)  # 0: no content, 1: content of the record, 2: zeros
    first_page: NDArray[np.int64] = np.cumsum(page.has_content) - page.has_content
    out: list[c.Buffer] = []
    for start in range(0, len(entries), c.PAGES_PER_RECORD):
        part = slice(start, start + c.PAGES_PER_RECORD)
        pages = int(np.count_nonzero(kinds[part]))
        body = COUNT.size + 8 * len(entries[part]) + pages * c.PAGE_SIZE
        head = RECORD_HEADER.pack(Xc.PAGE_DATA, body) + COUNT.pack(len(entries[part]), 0)
        out.append(head + entries[part].astype("<u8").tobytes())
        edges = [0, *(np.flatnonzero(np.diff(kinds[part])) + 1).tolist(), len(entries[part])]
        for at, end in itertools.pairwise(edges):
            kind, size = kinds[start + at], (end - at) * c.PAGE_SIZE
            if kind == 1:
                begin = int(first_page[start + at]) * c.PAGE_SIZE
                out.append(page.content[begin : begin + size])
            elif kind:
                out.append(_ZEROS[:size])
    return out
