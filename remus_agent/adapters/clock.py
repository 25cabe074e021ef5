"""The host's clock."""

from __future__ import annotations

import asyncio
import time

_STEP = 1.0
"""Seconds after which a sleep looks at the clock again: the event loop's own timers stand still while the
host sleeps."""


class SystemClock:
    """CLOCK_BOOTTIME: never set back, and goes on while the host is suspended."""

    def now(self) -> float:
        """Seconds since the host was booted."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def time_of_day(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds of this clock are over, at most a second late after the host was
        suspended."""
        deadline = self.now() + seconds
        await asyncio.sleep(min(max(seconds, 0.0), _STEP))
        while (left := deadline - self.now()) > 0:  # noqa: ASYNC110 - time passes, nothing is waited for
            await asyncio.sleep(min(left, _STEP))
