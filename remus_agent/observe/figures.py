"""Figures of epochs, added up since the protection of a guest began: what a histogram or a counter of a metric shows.

Adding an epoch costs some microseconds, so it is done for every one, whether anybody asks or not.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

PHASES: Final = ("freeze", "barrier", "clean", "copy", "context", "resume", "send", "ack")
"""What an epoch consists of, one after the other: `freeze` until the guest is down, `barrier` to `resume` while it is down,
`send` and `ack` while it runs again."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PAGES: Final = (16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)


class Distribution:
    """How often a value was at most as large as each bound, how often there was one, and the sum of all."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """For each bound how many were at most as large; the last bound is infinite."""
        return list(zip((*self.bounds, math.inf), itertools.accumulate(self._counts), strict=True))

    def copy(self) -> Distribution:
        """One that stays as this one is now."""
        same = Distribution(self.bounds)
        same.sum, same._counts = self.sum, list(self._counts)
        return same


@dataclass(slots=True)
class EpochFigures:
    """Of one guest. Durations in seconds. down: the guest did not run. period: from one epoch's start to the next. disk_ack: from
    the end of sending until the last disk was acknowledged. memory_bytes: of dirty pages as they are in the guest; sent_bytes: of
    the stream that brought them to the backup; disk_bytes: of what was written to disks."""

    phases: dict[str, Distribution] = field(default_factory=lambda: {name: Distribution(SECONDS) for name in PHASES})
    down: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    period: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    disk_ack: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    pages: Distribution = field(default_factory=lambda: Distribution(PAGES))
    memory_bytes: int = 0
    sent_bytes: int = 0
    disk_bytes: int = 0

    def add(
        self,
        phases: Mapping[str, float],
        *,
        down: float,
        period: float | None,
        disk_ack: float,
        pages: int,
        page_bytes: int,
        sent_bytes: int,
        disk_bytes: int,
    ) -> None:
        """One more epoch. period: None of a session's first one. page_bytes: of one page."""
        for name, distribution in self.phases.items():
            distribution.add(phases[name])
        self.down.add(down)
        if period is not None:
            self.period.add(period)
        self.disk_ack.add(disk_ack)
        self.pages.add(pages)
        self.memory_bytes += pages * page_bytes
        self.sent_bytes += sent_bytes
        self.disk_bytes += disk_bytes

    def copy(self) -> EpochFigures:
        """Figures that stay as these are now, for a thread that makes a page of them."""
        return EpochFigures(
            {name: distribution.copy() for name, distribution in self.phases.items()},
            self.down.copy(),
            self.period.copy(),
            self.disk_ack.copy(),
            self.pages.copy(),
            self.memory_bytes,
            self.sent_bytes,
            self.disk_bytes,
        )
