"""The changes of one epoch of a disk, in which a later one replaces what it overlaps of earlier ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from remus_agent.protocol.disk.operations import Extent, Op


class ExtentMap:
    """Changes that do not overlap, by offset."""

    def __init__(self) -> None:
        self._extents: list[Extent] = []
        self._offsets: list[int] = []
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes of data that it holds."""
        return self._bytes

    @property
    def count(self) -> int:
        """Changes that it holds."""
        return len(self._extents)

    def __iter__(self) -> Iterator[Extent]:
        return iter(tuple(self._extents))

    def add(self, extent: Extent) -> None:
        """Take in a change that is newer than all the others."""
        first = bisect_left(self._offsets, extent.offset)
        if first and self._extents[first - 1].end > extent.offset:
            first -= 1
        last = bisect_left(self._offsets, extent.end)
        kept: list[Extent] = [extent]
        for old in self._extents[first:last]:
            self._bytes -= len(old.data)
            if old.offset < extent.offset:
                kept.insert(0, _part(old, old.offset, extent.offset))
            if old.end > extent.end:
                kept.append(_part(old, extent.end, old.end))
        self._bytes += sum(len(part.data) for part in kept)
        self._extents[first:last] = kept
        self._offsets[first:last] = [part.offset for part in kept]


def _part(extent: Extent, start: int, end: int) -> Extent:
    data = memoryview(extent.data)[start - extent.offset : end - extent.offset] if extent.op is Op.WRITE else b""
    return Extent(extent.op, start, end - start, data)
