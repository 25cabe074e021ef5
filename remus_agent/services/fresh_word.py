"""Somebody's word that this host may run a guest, and nobody else does: an operator's proof that the other host is off, or the
primary's hand-over without a witness. It says how things are when it is given. A host that was frozen meanwhile, or for
whatever reason comes to act on it late, does not know any more whether they still are so: the other host may be on again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from remus_agent.errors import AuthorityError
from remus_agent.faults import FaultName, active
from remus_agent.ports import Clock
from remus_agent.services.awake import Awake
from remus_agent.services.settings import Settings

LOOK_AGAIN: Final = (
    "look again whether the other host is off, then repeat it; where that comes again, see what loads this host (top,"
    " xl top)"
)


class FreshWord:
    """One word, given now."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._awake = Awake(clock, settings.detect)
        self._given = clock.now()  # not before: awake since later than that means that it was away
        self._clock = clock
        self._settings = settings

    @property
    def fresh(self) -> bool:
        """Whether it may be acted on now: it is young, and this host was awake ever since."""
        away, age = self._awake.since() > self._given, self._clock.now() - self._given
        return active(FaultName.WORD_NEVER_OLD) or not (away or age > self._settings.longest_word)

    def require(self, domain: str, operation: str, hint: str) -> None:
        """Right before it is acted on. Raises AuthorityError when it is too old, or this host was away since."""
        if self.fresh:
            return
        away = self._awake.away
        raise AuthorityError(
            f"the word that it may run here was given {self._clock.now() - self._given:.0f} s ago"
            + (f", and this host was frozen meanwhile, or too busy, for {away:.0f} s" if away else ""),
            operation=operation,
            domain=domain,
            left="nothing was activated, the copy stands",
            hint=hint,
        )

    @property
    def until(self) -> float:
        """Until when, by the clock, somebody else may act on it, who does not know whether this host was awake since now: the
        next agent."""
        return min(self._given + self._settings.longest_word, self._clock.now() + self._settings.detect)

    async def watch(self) -> None:
        """Look again and again whether this host is awake, until cancelled."""
        while True:
            await self._clock.sleep(self._settings.tick)
            self._awake.since()


def still_holds(until: float, clock: Clock, settings: Settings) -> bool:
    """Whether a word that an earlier agent was given may be acted on now. until: as `FreshWord.until` was; 0: it is not known."""
    return active(FaultName.WORD_NEVER_OLD) or 0.0 <= until - clock.now() <= settings.detect


@contextlib.asynccontextmanager
async def fresh_word(clock: Clock, settings: Settings) -> AsyncIterator[FreshWord]:
    """Around all that is done on a word that was given just now."""
    word = FreshWord(clock, settings)
    watching = asyncio.create_task(word.watch(), name="watch for freezes")
    try:
        yield word
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
