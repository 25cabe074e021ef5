"""The changes of one epoch, the last writer of each byte only."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Final

from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.wire import CUT_BYTES, HEADER_BYTES, MAX_LENGTH

EXTENT_MEMORY: Final = 512
"""Bytes that an extent takes besides its data, rounded up: CPython 3.11 needs about 120 for a discard and 470 for a write whose
data is a view. Without them a hundred thousand scattered discards would count as nearly nothing."""

MOST_TAKEN: Final = 4096
"""The most extents that are taken at once, which takes about a millisecond; fewer than a frame may have (MOST_EXTENTS)."""


class ExtentMap:
    """Disjoint extents in the order of their offsets, none longer than MAX_LENGTH. A new one replaces what it covers of older
    ones.

    Adding costs a search (O(log n)), the extents that are covered, and one shift of two lists of references.

    Data is not copied, with one exception: a view keeps all of the buffer alive that it is part of. A view of less than
    half of its buffer, be it handed in or left by a cut, is therefore replaced by a copy. So what is kept alive is at most
    twice what `bytes` says, and as each copy at least halves a buffer, a byte is copied at most log2(buffer) times.
    Who adds an extent must not change its data afterwards.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._extents: list[Extent] = []
        self._data = 0

    @property
    def bytes(self) -> int:
        """Bytes of the extents when packed: a header of 16 bytes each, and the data."""
        return self._data + HEADER_BYTES * len(self._starts)

    @property
    def memory(self) -> int:
        """Bytes that the extents take, up to what their views keep alive beyond them."""
        return self._data + EXTENT_MEMORY * len(self._starts)

    @property
    def count(self) -> int:
        """Number of extents."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[Extent]:
        """The extents by rising offset."""
        return iter(self._extents)

    def add(self, extent: Extent) -> None:
        """Put in a change that is newer than all others. length > 0."""
        while extent.length > MAX_LENGTH:
            self.add(extent.part(extent.offset, extent.offset + MAX_LENGTH))
            extent = extent.part(extent.offset + MAX_LENGTH, extent.end)
        starts, extents = self._starts, self._extents
        start, end = extent.offset, extent.offset + extent.length
        low = bisect_right(starts, start)
        if low and extents[low - 1].end > start:
            low -= 1
        high = bisect_left(starts, end, low)
        if extent.op is Op.WRITE:
            extent = _unpinned(extent)
            self._data += extent.length
        pieces = [extent]
        if low < high:
            covered = extents[low:high]
            for old in covered:
                if old.op is Op.WRITE:
                    self._data -= old.length
            first, last = covered[0], covered[-1]
            if first.offset < start:
                pieces.insert(0, self._kept(first, first.offset, start))
            if last.end > end:
                pieces.append(self._kept(last, end, last.end))
        if extent.op is not Op.WRITE:
            low, high, pieces = self._with_neighbours(low, high, pieces)
        starts[low:high] = [piece.offset for piece in pieces]
        extents[low:high] = pieces

    def take(self, limit: int, cut: int = CUT_BYTES) -> list[Extent]:
        """Remove and return the extents with the lowest offsets, at most `limit` bytes when packed and at most MOST_TAKEN; the
        last one is cut at a multiple of `cut` bytes. Empty only when nothing is left. Raises ValueError when not even that
        much fits.

        Does little for each extent: whoever adds extents in another thread waits meanwhile."""
        if limit < HEADER_BYTES + cut:
            raise ValueError(f"a limit of {limit} bytes has no room for an extent of {cut} bytes")
        extents, write = self._extents, Op.WRITE
        whole = packed = 0
        for extent in islice(extents, MOST_TAKEN):
            size = HEADER_BYTES + extent.length if extent.op is write else HEADER_BYTES
            if packed + size > limit:
                break
            packed += size
            whole += 1
        taken = extents[:whole]
        self._data -= packed - HEADER_BYTES * whole
        fits = (limit - packed - HEADER_BYTES) // cut * cut
        if whole < min(len(extents), MOST_TAKEN) and fits > 0:  # it is a write, which did not fit as a whole
            rest = extents[whole]
            taken.append(rest.part(rest.offset, rest.offset + fits))
            rest = extents[whole] = _unpinned(rest.part(rest.offset + fits, rest.end))
            self._starts[whole] = rest.offset
            self._data -= fits
        del self._starts[:whole], extents[:whole]
        return taken

    def pop_all(self) -> list[Extent]:
        """Remove and return all extents by rising offset."""
        extents = self._extents
        self._starts, self._extents, self._data = [], [], 0
        return extents

    def _kept(self, old: Extent, start: int, end: int) -> Extent:
        part = old.part(start, end)
        if part.op is not Op.WRITE:
            return part
        self._data += part.length
        return _unpinned(part)

    def _with_neighbours(self, low: int, high: int, pieces: list[Extent]) -> tuple[int, int, list[Extent]]:
        """Join runs of the same operation that touch each other and need no data."""
        if low and self._extents[low - 1].end == pieces[0].offset:
            low -= 1
            pieces.insert(0, self._extents[low])
        if high < len(self._starts) and self._starts[high] == pieces[-1].end:
            pieces.append(self._extents[high])
            high += 1
        joined = pieces[:1]
        for piece in pieces[1:]:
            before = joined[-1]
            length = before.length + piece.length
            if piece.op is before.op and piece.op is not Op.WRITE and length <= MAX_LENGTH:
                joined[-1] = Extent(piece.op, before.offset, length)
            else:
                joined.append(piece)
        return low, high, joined


def _unpinned(extent: Extent) -> Extent:
    """The same, with a copy of its data if that is a view of a buffer more than twice as large."""
    data = extent.data
    if not isinstance(data, memoryview) or _size(data.obj) <= 2 * extent.length:
        return extent
    return Extent(extent.op, extent.offset, extent.length, bytes(data))


def _size(owner: object) -> int:
    """Bytes of memory that a view of this object keeps alive."""
    if isinstance(owner, (bytes, bytearray)):
        return len(owner)
    try:
        return memoryview(owner).nbytes  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return sys.maxsize
