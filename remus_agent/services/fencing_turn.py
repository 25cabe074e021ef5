"""Which of two hosts may switch the other one off: of two that take guests over from each other at the same time, one.

Where both paths between two hosts are cut, each may win guests of the other one in the witness, and each has a reason to fence
it. Both would go off, and every guest with them. So before `off` a host takes the turn: a record of the pair in the witness,
changed by compare-and-swap as those of guests are. It is kept until the other host was seen off, and where that fails for as long
as what the fence agent has asked for may still be done. A host whose turn it is not does not fence; it tries again.

A host may die while it has the turn, or be frozen, or lose its way to the witness. So each turn says after how many seconds it
is over: whoever takes it begins `off` soon or not at all, and a fence agent's run has an end. A host that has seen the same turn
stand for longer than that by its own clock takes it over. What this does not cover is a host that is frozen as a whole in the
middle of `off` and goes on just while it is switched off itself: then both may be off.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import Final

from remus_agent.errors import FenceYielded, FencingError, WitnessConflict, WitnessError, WitnessUnknown
from remus_agent.machines.authority import Ownership
from remus_agent.ports import Clock
from remus_agent.services.settings import Settings
from remus_agent.witness_ports import Recorded, Witness

log = logging.getLogger(__name__)

LINGERS: Final = 60.0
"""Seconds after which nothing is done any more of what a fence agent that has failed, or was killed, had asked for."""
BEGINS: Final = 15.0
"""Seconds after which whoever has asked for the turn does not begin `off` on it any more; the witness's answer takes less."""

_OVER: Final = re.compile(r".*, over after ([1-9][0-9]{0,4}) s")
"""The reason in the record of a turn, which is not only for people. One without it was written by an older agent."""


def pair(one: str, other: str) -> str:
    """Under which name the witness has the record of two hosts; no guest's UUID looks like that."""
    return "fencing:" + "+".join(sorted((one, other)))


class FencingTurn:
    """Of one host with each of its peers."""

    def __init__(self, witness: Witness, settings: Settings, clock: Clock) -> None:
        self._witness = witness
        self._host = settings.host
        self._clock = clock
        self._retry = settings.retry
        # The other host's seconds, by this host's clock, at most: one is slow, and the other one fast.
        self._stretch = (1 + settings.drift) / (1 - settings.drift)
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[Recorded, float]] = {}
        """Of each peer: its turn as it stood last, and since when this host has seen it so."""

    async def take(self, peer: str, longest: float) -> None:
        """Return when this host may switch the peer off, beginning now, and the peer may not switch off this one. longest:
        seconds that the fence agent's `off` takes at most. Raises FenceYielded, FencingError when it came too late, or
        WitnessError when that is not known."""
        await self._stop_leaving(peer)
        found = await self._witness.read(pair(self._host, peer))
        asked = self._clock.now()
        if not await self._becomes_mine(peer, found, longest):
            raise FenceYielded(
                f"{peer} is about to switch this host off, and of two only one may",
                operation="fence",
                left=f"{peer} was not switched off",
                hint="it is tried again by itself, also when that host has died meanwhile; "
                f"or make sure that {peer} is off, and give the proof of it to `remusctl failover`",
            )
        late = self._clock.now() - asked
        if late > BEGINS:
            self._begin_leaving(peer, LINGERS)  # what an earlier attempt has asked for may still be done
            raise FencingError(
                f"the turn to switch {peer} off came {late:.0f} s after it was asked for, and may be over soon",
                operation="fence",
                left=f"{peer} was not switched off",
                hint="it is tried again by itself; check the witness and the network to it",
            )

    def leave(self, peer: str, *, confirmed: bool) -> None:
        """The attempt has ended. confirmed: the peer was seen off."""
        self._begin_leaving(peer, 0.0 if confirmed else LINGERS)

    def clear_up(self, peer: str, longest: float) -> None:
        """An earlier agent may have taken the turn and died with it; its fence agent may run on. longest: as `take` says."""
        self._begin_leaving(peer, longest + LINGERS)

    async def close(self) -> None:
        """The agent stops; the next one clears up."""
        for peer in list(self._leaving):
            await self._stop_leaving(peer)

    async def _becomes_mine(self, peer: str, found: Recorded | None, longest: float) -> bool:
        """Take it if nobody has it, if it is over, or if this host has it: what an earlier attempt to leave it may still do is
        void then. Raises WitnessError when that is not known."""
        if found is not None and found.ownership.owner != self._host and not self._is_over(peer, found):
            return False
        try:
            await self._witness.change(pair(self._host, peer), found, self._mine(peer, found, longest))
        except WitnessConflict:
            log.info("%s was faster than this host, which wanted to switch it off", peer)
            return False
        except WitnessUnknown:
            self._begin_leaving(peer, LINGERS)  # unless the next attempt comes before
            raise
        return True

    def _is_over(self, peer: str, found: Recorded) -> bool:
        """Whether the peer, which has taken this turn and not left it, does nothing more on it. It was taken before this host saw
        it first, so its time is counted from there."""
        now = self._clock.now()
        seen, since = self._seen.get(peer, (None, now))
        if seen != found:
            self._seen[peer] = (found, now)
            return False
        over = _OVER.fullmatch(found.ownership.reason)
        if over is None or now - since <= int(over[1]) * self._stretch:
            return False
        log.warning("the turn of %s to switch this host off is over, and was not left for %.0f s", peer, now - since)
        return True

    def _mine(self, peer: str, found: Recorded | None, longest: float) -> Ownership:
        generation = 1 if found is None else found.ownership.generation + 1
        reason = f"it switches {peer} off, over after {math.ceil(BEGINS + longest + LINGERS)} s"
        return Ownership(self._host, generation, "solo", None, peer, reason, self._host)

    def _begin_leaving(self, peer: str, seconds: float) -> None:
        self._leaving[peer] = asyncio.create_task(self._leave(peer, seconds), name=f"end the turn to fence {peer}")

    async def _stop_leaving(self, peer: str) -> None:
        leaving = self._leaving.pop(peer, None)
        if leaving is not None:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    async def _leave(self, peer: str, seconds: float) -> None:
        await self._clock.sleep(seconds)
        while True:
            try:
                found = await self._witness.read(pair(self._host, peer))
                if found is not None and found.ownership.owner == self._host:
                    await self._witness.forget(pair(self._host, peer), found)
            except WitnessError as error:
                log.info("the turn to switch %s off is not left yet: %s", peer, error)
                await self._clock.sleep(self._retry)
            else:
                return
