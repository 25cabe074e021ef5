"""Protections that ended by a defect of the agent, an error that nobody has foreseen, or that could not go on when it started
(`put_off`): their output stays held, nobody else is disturbed, and after a while they go on from what is on record, as after a
restart of the agent.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from remus_agent.errors import RemusError
from remus_agent.ports import Clock
from remus_agent.services.resumption import Resumption

log = logging.getLogger(__name__)

LONGEST: Final = 60.0
"""Seconds between a defect and the next attempt; each defect of a guest doubles the wait from `retry` on."""
FORGOTTEN: Final = 600.0
"""Seconds without a defect after which the first attempt comes soon again."""


class Defects:
    """Of one host. retry: seconds before a first attempt."""

    def __init__(self, resumption: Resumption, clock: Clock, retry: float) -> None:
        self._resumption = resumption
        self._clock = clock
        self._retry = retry
        self._waits: dict[str, tuple[float, float]] = {}
        """When each guest's last defect was, and how long it waited then."""
        self._tasks: set[asyncio.Task[None]] = set()

    def after(self, name: str) -> None:
        """A guest's protection has just ended by one, or was put off."""
        now = self._clock.now()
        last, wait = self._waits.get(name, (now, 0.0))
        wait = self._retry if now - last > FORGOTTEN else min(max(2 * wait, self._retry), LONGEST)
        self._waits[name] = (now, wait)
        task = asyncio.create_task(self._go_on(name, wait), name=f"go on with {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """The agent stops: the next one goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _go_on(self, name: str, wait: float) -> None:
        await self._clock.sleep(wait)
        try:
            await self._resumption.again(name)
        except RemusError as error:
            log.error("%s: it cannot go on yet: %s", name, error)
            self.after(name)
        except Exception:
            log.critical("%s: it cannot go on yet, by a defect", name, exc_info=True)
            self.after(name)
