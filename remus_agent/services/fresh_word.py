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

LOOK_AGAIN: Final = "look again whether the other host is off, then repeat it"


class FreshWord:
    """One word, given now."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._awake = Awake(clock, settings.detect)
        self._given = clock.now()  # not before: awake since later than that means that it was away
        self._clock = clock
        self._settings = settings

    def require(self, domain: str, operation: str, hint: str) -> None:
        """Right before it is acted on. Raises AuthorityError when it is too old, or this host was away since."""
        away, age = self._awake.since() > self._given, self._clock.now() - self._given
        if active(FaultName.WORD_NEVER_OLD) or not (away or age > self._settings.longest_word):
            return
        raise AuthorityError(
            f"the word that it may run here was given {age:.0f} s ago"
            + (", and this host was frozen meanwhile" if away else ""),
            operation=operation,
            domain=domain,
            left="nothing was activated, the copy stands",
            hint=hint,
        )

    async def watch(self) -> None:
        """Look again and again whether this host is awake, until cancelled."""
        while True:
            await self._clock.sleep(self._settings.tick)
            self._awake.since()


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
