"""Which of two hosts may switch the other one off: of two that take guests over from each other at the same time, one.

Where both paths between two hosts are cut, each may win guests of the other one in the witness, and each has a reason to fence
it. Both would go off, and every guest with them. So before `off` a host takes the turn: a record of the pair in the witness,
changed by compare-and-swap as those of guests are. It is kept until the other host was seen off, and where that fails for as long
as what the fence agent has asked for may still be done. A host whose turn it is not does not fence; it tries again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from remus_agent.errors import FenceYielded, WitnessConflict, WitnessError, WitnessUnknown
from remus_agent.machines.authority import Ownership
from remus_agent.ports import Clock
from remus_agent.witness_ports import Recorded, Witness

log = logging.getLogger(__name__)

LINGERS: Final = 60.0
"""Seconds after which nothing is done any more of what a fence agent that has failed, or was killed, had asked for."""


def pair(one: str, other: str) -> str:
    """Under which name the witness has the record of two hosts; no guest's UUID looks like that."""
    return "fencing:" + "+".join(sorted((one, other)))


class FencingTurn:
    """Of one host with each of its peers. retry: seconds between two attempts to leave it."""

    def __init__(self, witness: Witness, host: str, clock: Clock, retry: float) -> None:
        self._witness = witness
        self._host = host
        self._clock = clock
        self._retry = retry
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def take(self, peer: str) -> None:
        """Return when this host may switch the peer off, and the peer may not switch off this one. Raises FenceYielded, or
        WitnessError when that is not known."""
        await self._stop_leaving(peer)
        found = await self._witness.read(pair(self._host, peer))
        try:
            if found is None or found.ownership.owner == self._host:
                # Also where it is taken already: what an earlier attempt to leave it may still do is void then.
                await self._witness.change(pair(self._host, peer), found, self._mine(peer, found))
                return
        except WitnessConflict:
            log.info("%s was faster than this host, which wanted to switch it off", peer)
        except WitnessUnknown:
            self._begin_leaving(peer, LINGERS)  # unless the next attempt comes before
            raise
        raise FenceYielded(
            f"{peer} is about to switch this host off, and of two only one may",
            operation="fence",
            left=f"{peer} was not switched off",
            hint=f"it is tried again by itself; or make sure that {peer} is off, and give the proof of it to `remusctl failover`",
        )

    def leave(self, peer: str, *, confirmed: bool) -> None:
        """The attempt has ended. confirmed: the peer was seen off."""
        self._begin_leaving(peer, 0.0 if confirmed else LINGERS)

    def clear_up(self, peer: str) -> None:
        """An earlier agent may have taken the turn and died with it."""
        self._begin_leaving(peer, LINGERS)

    async def close(self) -> None:
        """The agent stops; the next one clears up."""
        for peer in list(self._leaving):
            await self._stop_leaving(peer)

    def _mine(self, peer: str, found: Recorded | None) -> Ownership:
        generation = 1 if found is None else found.ownership.generation + 1
        return Ownership(self._host, generation, "solo", None, peer, f"it switches {peer} off", self._host)

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
