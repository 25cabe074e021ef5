"""Between ownership and activation: the former owner's host is fenced, by its fence agent or an operator's proof.

Where the configuration says `required`, nothing is activated before a confirmed result; otherwise fencing goes on beside the
activation and delays nothing. Of two hosts that want to fence each other one may (`fencing_turn`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from remus_agent.errors import AuthorityError, FenceUnconfirmed, RemusError
from remus_agent.faults import FaultName, active
from remus_agent.fence_ports import Fenced, Fencing
from remus_agent.ports import Clock, EventSink
from remus_agent.services.copy import Copy
from remus_agent.services.fencing_turn import FencingTurn
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 300.0
"""Seconds between two attempts, at most."""


def check_proof(domain: str, primary: str, fenced: Mapping[str, str]) -> None:
    """Raise AuthorityError when this is no proof that the host of the domain's primary is dead."""
    missing = [key for key in ("host", "method", "evidence") if not fenced.get(key)]
    if missing:
        raise AuthorityError(
            f"no proof that the primary is dead ({', '.join(missing)} of `fenced` missing)",
            operation="failover",
            domain=domain,
            left="nothing was changed",
            hint="fence the primary's host and name it with the method and what confirmed it",
        )
    if fenced["host"] != primary:
        raise AuthorityError(
            f"{fenced['host']} was fenced, but the primary runs on {primary}",
            operation="failover",
            domain=domain,
            left="nothing was changed",
            hint=f"confirm that {primary} is dead",
        )


@dataclass
class Waiting:
    """A guest that this host owns and may not activate yet. proven: an operator's proof has come. over: it was activated, or will
    not be; then `error` says why not."""

    copy: Copy
    proven: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    error: RemusError | None = None


class Fencer:
    """Of one host. fencing: None where no fence agent is configured."""

    def __init__(
        self, fencing: Fencing | None, turn: FencingTurn, settings: Settings, clock: Clock, events: EventSink
    ) -> None:
        self._fencing = fencing
        self._turn = turn
        self._settings = settings
        self._clock = clock
        self._events = events
        self._waiting: dict[str, Waiting] = {}
        self._attempts: dict[str, asyncio.Task[Fenced]] = {}
        self._beside: set[asyncio.Task[None]] = set()

    def start(self, peers: Iterable[str]) -> None:
        """Clear up what an earlier agent may have left."""
        for peer in peers:
            if self._fencing is not None and self._fencing.covers(peer):
                self._turn.clear_up(peer, self._fencing.longest(peer))

    def waiting(self, domain: str) -> Waiting | None:
        """The guest of this name, if its activation waits for fencing."""
        return self._waiting.get(domain)

    @contextlib.contextmanager
    def activation(self, domain: str) -> Iterator[None]:
        """Around all from fencing to a guest that runs: whoever gave a proof meanwhile hears how it ended."""
        outcome: RemusError | None = AuthorityError(
            "it was given up before the guest was activated", operation="failover", domain=domain
        )
        try:
            yield
            outcome = None
        except RemusError as error:
            outcome = error
            raise
        finally:
            waiting = self._waiting.pop(domain, None)
            if waiting is not None:
                waiting.error = outcome
                waiting.over.set()

    async def before_activation(self, copy: Copy, proof: Mapping[str, str]) -> None:
        """Return when the copy, whose guest this host owns now, may be activated. proof: an operator's, which is checked, or
        empty."""
        host, domain = copy.hello.host, copy.hello.domain
        fencing = self._fencing
        if proof:
            self._note_proof(domain, proof)
        elif fencing is not None and fencing.required(host) and not active(FaultName.FENCE_NOT_AWAITED):
            await self._until_fenced(fencing, copy)
        elif fencing is not None and fencing.covers(host):
            task = asyncio.create_task(self._fence_beside(fencing, domain, host), name=f"fence {host} beside {domain}")
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)

    async def prove(self, waiting: Waiting, proof: Mapping[str, str]) -> Copy:
        """An operator's proof ends the waiting: the copy, activated. Raises AuthorityError without one, or what kept the guest
        from running."""
        copy = waiting.copy
        domain, host = copy.hello.domain, copy.hello.host
        if not proof:
            raise AuthorityError(
                f"{host} has to be fenced before the guest may run here",
                operation="failover",
                domain=domain,
                left=copy.reason,
                hint=f"make sure that {host} is off, and give the proof of it",
            )
        check_proof(domain, host, proof)
        self._note_proof(domain, proof)
        waiting.proven.set()
        await waiting.over.wait()
        if waiting.error is not None:
            raise waiting.error
        return copy

    async def close(self) -> None:
        """The agent stops. A fence agent that runs is killed; what it has asked for may still be done."""
        tasks = [*self._beside, *self._attempts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._turn.close()

    async def _until_fenced(self, fencing: Fencing, copy: Copy) -> None:
        waiting = self._waiting[copy.hello.domain] = Waiting(copy)
        trying = asyncio.create_task(self._keep_trying(fencing, copy), name=f"fence {copy.hello.host}")
        proven = asyncio.create_task(waiting.proven.wait())
        try:
            await asyncio.wait({trying, proven}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.proven.is_set():
                trying.result()  # a defect is no proof
        finally:
            trying.cancel()
            proven.cancel()
            await asyncio.gather(trying, proven, return_exceptions=True)
        copy.reason = None

    async def _keep_trying(self, fencing: Fencing, copy: Copy) -> None:
        """Until it is confirmed."""
        domain, host = copy.hello.domain, copy.hello.host
        copy.reason = f"owned by this host, and runs as soon as {host} is fenced"
        pause = self._settings.retry
        attempt = 0
        while True:
            attempt += 1
            try:
                result = await self._fence(fencing, host)
            except RemusError as error:
                tries = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                copy.reason = f"owned by this host, but {host} is not fenced after {tries}: {error}"
                log.critical("%s: %s", domain, copy.reason)
                self._events.note(
                    domain,
                    "fencing-failed",
                    host=host,
                    reason=str(error),
                    required=True,
                    attempt=attempt,
                    again_in=pause,
                )
            else:
                self._events.note(domain, "fenced", **result.as_dict())
                return
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _fence_beside(self, fencing: Fencing, domain: str, host: str) -> None:
        try:
            result = await self._fence(fencing, host)
        except RemusError as error:
            log.error("%s: runs here, but %s is not fenced: %s", domain, host, error)
            self._events.note(domain, "fencing-failed", host=host, reason=str(error), required=False)
        except Exception as defect:  # nobody waits for it
            log.critical("%s: runs here, but %s is not fenced, by a defect", domain, host, exc_info=True)
            self._events.note(domain, "fencing-failed", host=host, reason=repr(defect), required=False)
        else:
            self._events.note(domain, "fenced", **result.as_dict())

    async def _fence(self, fencing: Fencing, host: str) -> Fenced:
        """One attempt, shared by all guests of that host that are taken over meanwhile: a host that was off at any time after
        their sessions ended runs none of them. Raises FencingError, WitnessError."""
        task = self._attempts.get(host)
        if task is None or task.done():
            task = self._attempts[host] = asyncio.create_task(
                self._attempt(fencing, host), name=f"attempt to fence {host}"
            )
            task.add_done_callback(_heard)
        return await asyncio.shield(task)

    async def _attempt(self, fencing: Fencing, host: str) -> Fenced:
        await self._turn.take(host, fencing.longest(host))
        confirmed = False
        try:
            result = await fencing.fence(host)
            confirmed = result.confirmed
        finally:
            self._turn.leave(host, confirmed=confirmed)
        if not confirmed:
            raise FenceUnconfirmed(f"{host} was told to go off, and nobody has seen it off", operation="fence")
        return result

    def _note_proof(self, domain: str, proof: Mapping[str, str]) -> None:
        self._events.note(
            domain, "fenced", host=proof["host"], method=proof["method"], evidence=proof["evidence"], by="operator"
        )


def _heard(task: asyncio.Task[Fenced]) -> None:
    """Its outcome is known to whoever waits; nobody need."""
    if not task.cancelled():
        task.exception()
