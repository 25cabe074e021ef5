"""Facts about many pages at once: the digest of each, and tables of digests by pfn.

Nothing here looks at the content of pages in a Python loop, and nothing copies it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from remus_agent.protocol.stream import constants as c

_BATCH: Final = 65536
"""Entries that a table collects at least before it sorts them in."""

ZERO_PAGE_DIGEST: Final = xxh3_64_intdigest(bytes(c.PAGE_SIZE))


def page_digests(content: c.Buffer) -> NDArray[np.uint64]:
    """xxh3_64 of each page of 4096 bytes in `content`."""
    # The rows are arrays, made one by one in C and read where they stand.
    pages = np.frombuffer(content, dtype=np.uint8).reshape(-1, c.PAGE_SIZE)
    return np.fromiter(map(xxh3_64_intdigest, cast(Iterable[Any], pages)), dtype=np.uint64, count=len(pages))


class PageTable:
    """A 64-bit value for each pfn, the newest one wins. 16 bytes a pfn, some three times that while sorting."""

    def __init__(self) -> None:
        self._pfns = np.empty(0, dtype=np.uint64)
        self._values = np.empty(0, dtype=np.uint64)
        self._new: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]] = []
        self._count = 0

    def add(self, pfns: NDArray[np.uint64], values: NDArray[np.uint64]) -> None:
        """Set values[i] for pfns[i]; of a pfn that occurs twice the later one counts. Keeps both arrays."""
        self._new.append((pfns, values))
        self._count += len(pfns)
        if self._count > max(_BATCH, len(self._pfns)):
            self._sort_in()

    def update(self, other: PageTable) -> None:
        """Set everything that `other` holds. Shares its arrays; leave it alone afterwards."""
        if len(self._pfns) or self._new:
            self.add(*other.entries())
        else:
            self._pfns, self._values = other.entries()

    def entries(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(pfns, values), sorted by pfn, each pfn once."""
        self._sort_in()
        return self._pfns, self._values

    def _sort_in(self) -> None:
        if not self._new:
            return
        pfns = np.concatenate([self._pfns, *(pfns for pfns, _ in self._new)])
        values = np.concatenate([self._values, *(values for _, values in self._new)])
        self._new, self._count = [], 0
        order = np.argsort(pfns, kind="stable")
        pfns = pfns[order]
        newest = np.ones(len(pfns), dtype=bool)
        newest[:-1] = pfns[1:] != pfns[:-1]
        self._pfns, self._values = pfns[newest], values[order[newest]]


def ranges(pfns: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Sorted pfns as (first, last) of each run without a gap."""
    if not len(pfns):
        return []
    ends = np.flatnonzero(np.diff(pfns) != 1)
    firsts = pfns[np.concatenate(([0], ends + 1))]
    lasts = pfns[np.concatenate((ends, [len(pfns) - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
