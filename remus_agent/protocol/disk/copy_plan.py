"""What of a disk a session still has to copy from the local device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from remus_agent.protocol.disk.pieces import CopyProgress


@dataclass(frozen=True, slots=True)
class CopyRun:
    """Regions, one after the other, that the copier has to read. offset, length: bytes; whole regions (the disk's last one
    may be short). session: number of the session that wants them."""

    session: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.length

    def split(self, region: int) -> Iterator[CopyRun]:
        """Its regions one by one. region: bytes of one."""
        for start in range(self.offset, self.end, region):
            yield CopyRun(self.session, start, min(region, self.end - start))


class CopyPlan:
    """The regions that have to be copied, and which of their sectors were written through the tap since the session began:
    those are newer than what the copier reads. A region that was overwritten completely need not be copied any more.

    size: bytes of the disk; region: bytes of a region; block: bytes of a sector. wanted: for each region whether it has to
    be copied; the plan keeps and changes it.
    """

    def __init__(self, size: int, region: int, block: int, wanted: NDArray[np.bool_]) -> None:
        self._size = size
        self._region = region
        self._block = block
        self.wanted = wanted
        self._one = wanted.data
        self._overwritten: dict[int, int] = {}  # region: a bit for each of its sectors
        self._next = 0
        self._left = int(np.count_nonzero(wanted))
        self._total = self._bytes(0, len(wanted))
        self._done = 0
        self._sent = 0

    @property
    def left(self) -> int:
        """Number of regions that were neither copied nor found to need no copy."""
        return self._left

    @property
    def progress(self) -> CopyProgress:
        """How far it is, in bytes."""
        return CopyProgress(self._done, self._total, self._sent)

    def next(self, limit: int) -> tuple[int, int] | None:
        """Offset and length of the next regions to read, each handed out once: at least one region, more that follow it
        directly as long as they are no more than `limit` bytes. None: all were handed out."""
        if self._next >= len(self.wanted) or not self._left:
            return None
        first = self._next + int(self.wanted[self._next :].argmax())
        if not self._one[first]:
            self._next = len(self.wanted)
            return None
        window = self.wanted[first : first + max(1, limit // self._region)]
        stop = first + (len(window) if window.all() else int(window.argmin()))
        self._next = stop
        return first * self._region, min(stop * self._region, self._size) - first * self._region

    def overwrite(self, offset: int, length: int) -> None:
        """These bytes were written through the tap."""
        if not self._left:
            return
        end = offset + length
        first, last = offset // self._region, (end - 1) // self._region
        if first == last:
            self._overwrite_in(first, offset, end)
            return
        if offset % self._region:
            self._overwrite_in(first, offset, (first + 1) * self._region)
            first += 1
        stop = last + 1
        if end % self._region and end != self._size:
            self._overwrite_in(last, last * self._region, end)
            stop -= 1
        self.settle(first, stop)

    def missing(self, region: int) -> list[tuple[int, int]]:
        """The runs of bytes, as offset and end on the disk, of this region that have to be copied."""
        start = region * self._region
        end = min(start + self._region, self._size)
        if not self._one[region]:
            return []
        overwritten = self._overwritten.get(region)
        if overwritten is None:
            return [(start, end)]
        sectors = (end - start) // self._block
        bits = np.frombuffer(overwritten.to_bytes(-(-sectors // 8), "little"), dtype=np.uint8)
        flags = np.ones(sectors + 2, dtype=np.int8)  # one sector before and one behind it, as if overwritten
        flags[1:-1] = np.unpackbits(bits, count=sectors, bitorder="little")
        edges = (np.flatnonzero(np.diff(flags)) * self._block + start).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

    def sent(self, length: int) -> None:
        """So many bytes that the copier read have to travel."""
        self._sent += length

    def settle(self, first: int, stop: int) -> None:
        """The regions from first up to, not including, stop need no (further) copy."""
        if stop - first == 1:
            if self._one[first]:
                self._one[first] = False
                self._left -= 1
                self._done += min(self._region, self._size - first * self._region)
                self._overwritten.pop(first, None)
            return
        if stop <= first:
            return
        self._done += self._bytes(first, stop)
        self._left -= int(np.count_nonzero(self.wanted[first:stop]))
        self.wanted[first:stop] = False
        if stop - first < len(self._overwritten):
            for region in range(first, stop):
                self._overwritten.pop(region, None)
        else:
            for region in [number for number in self._overwritten if first <= number < stop]:
                del self._overwritten[region]

    def _overwrite_in(self, region: int, start: int, end: int) -> None:
        if not self._one[region]:
            return
        base = region * self._region
        sectors = (min(self._region, self._size - base)) // self._block
        before = self._overwritten.get(region, 0)
        now = before | ((1 << (end - start) // self._block) - 1) << (start - base) // self._block
        if now == (1 << sectors) - 1:
            self.settle(region, region + 1)
        elif now != before:
            self._overwritten[region] = now

    def _bytes(self, first: int, stop: int) -> int:
        """Bytes of the wanted regions from first up to, not including, stop."""
        wanted = self.wanted[first:stop]
        short = -self._size % self._region if stop == len(self.wanted) and len(wanted) and wanted[-1] else 0
        return int(np.count_nonzero(wanted)) * self._region - short
