"""Which regions of a disk a session has logged changes of, and in which epoch last."""

from __future__ import annotations

import numpy as np

from remus_agent.protocol.disk.regions import Regions, starts_of

NOTHING: Regions = np.empty(0, dtype=np.int64)


class Uncommitted:
    """For each region the epoch of its last change in this session. Epochs count from 1 on and only rise.

    A commit costs what was changed in its epochs, not the size of the disk.
    """

    def __init__(self, regions: int) -> None:
        self._last = np.zeros(regions, dtype=np.uint64)
        self._one = self._last.data  # reads and sets single items several times faster than the array
        self._singles: dict[int, list[int]] = {}
        self._runs: dict[int, list[Regions]] = {}

    def touch(self, first: int, stop: int, epoch: int) -> None:
        """The regions from first up to, not including, stop were changed in this epoch."""
        if stop - first == 1:
            if self._one[first] != epoch:
                self._one[first] = epoch
                self._singles.setdefault(epoch, []).append(first)
            return
        run = self._last[first:stop]
        fresh = np.flatnonzero(run != epoch)
        if len(fresh):
            run[:] = epoch
            self._runs.setdefault(epoch, []).append(fresh + first)

    def commit(self, epoch: int) -> Regions:
        """The epochs up to this one were committed. Returns the regions that were changed in them and not later; each is
        returned by one call only."""
        found = [NOTHING]
        for done in [number for number in self._singles if number <= epoch]:
            found.append(np.array(self._singles.pop(done), dtype=np.int64))
        for done in [number for number in self._runs if number <= epoch]:
            found += self._runs.pop(done)
        regions = np.sort(np.concatenate(found))
        regions = regions[starts_of(regions)]
        return regions[self._last[regions] <= epoch]
