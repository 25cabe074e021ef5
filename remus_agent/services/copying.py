"""How far the copy at the start of a session is: of the disks first, then of memory."""

from __future__ import annotations

from remus_agent.observe.status import Seeding
from remus_agent.ports import Clock


class CopyMeter:
    """Turns a count of what is done into a rate and an estimate. unit: `bytes` or `pages`."""

    def __init__(self, clock: Clock, unit: str) -> None:
        self._clock = clock
        self._unit = unit
        self._started = clock.now()

    def at(self, done: int, total: int) -> Seeding:
        """The progress, for the status."""
        elapsed = self._clock.now() - self._started
        rate = done / elapsed if elapsed > 0 else 0.0
        left = round((total - done) / rate, 1) if rate > 0 else None
        return Seeding(done=done, total=total, unit=self._unit, rate=round(rate, 1), left=left)
