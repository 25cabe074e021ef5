"""A backup that takes over by itself: a detector a guest, and the way from its suspicion to a guest that runs here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from remus_agent.errors import AuthorityError, RemusError, WitnessError, WitnessUnknown, WitnessUnreachable
from remus_agent.faults import FaultName, active
from remus_agent.machines.authority import Stake, Verdict, Want
from remus_agent.machines.backup import Event, State
from remus_agent.machines.detector import Detector
from remus_agent.ports import Clock, EventSink
from remus_agent.services.authority import Authority, Settled
from remus_agent.services.backup import BackupService
from remus_agent.services.copy import Copy
from remus_agent.services.fencing import Fencer
from remus_agent.services.fresh_word import FreshWord, fresh_word
from remus_agent.services.settings import Settings
from remus_agent.services.takeover_notes import TakeoverNotes

log = logging.getLogger(__name__)

SOONEST: Final = 0.01
"""Seconds between two looks of a detector at least."""
EXPECTED: Final = 0.5
"""Share of `detect` after which silence makes it likely enough that the witness will be asked."""


class Takeover:
    """All guests of which this host is the backup. paths: hosts from which heartbeats come over a second path; without one
    there is only one signal, and nothing is taken over by itself. taken: called with each copy that runs here now."""

    def __init__(
        self,
        backup: BackupService,
        authority: Authority,
        paths: frozenset[str],
        settings: Settings,
        clock: Clock,
        events: EventSink,
        taken: Callable[[Copy], Awaitable[None]],
        fencer: Fencer,
        notes: TakeoverNotes,
    ) -> None:
        self._backup = backup
        self._authority = authority
        self._paths = paths
        self._settings = settings
        self._clock = clock
        self._events = events
        self._taken = taken
        self._fencer = fencer
        self._notes = notes
        self._detectors: dict[str, Detector] = {}
        self._seen: dict[str, tuple[float, float]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._expecting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look at every guest, a tick after the other, and when one of them is due; never ends by itself."""
        while True:
            self._backup.beats.look()
            for domain in self._backup.names():
                self._look(domain)
            await self._clock.sleep(self._until_next())

    def _until_next(self) -> float:
        """Seconds: clients wait for a takeover, so it does not wait for a tick."""
        now = self._clock.now()
        due = [detector.due - now for detector in self._detectors.values() if detector.due > now]
        return min([self._settings.tick, *(max(seconds, SOONEST) for seconds in due)])

    async def close(self) -> None:
        """The agent stops. What is asked of the witness right now may still be granted; the record tells the next agent."""
        tasks = [*self._attempts.values(), *([self._expecting] if self._expecting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self, domain: str) -> None:
        copy = self._backup.copy_of(domain)
        if (
            not self._settings.automatic_failover
            or copy is None
            or copy.state not in (State.READY, State.ORPHANED)
            or copy.hello.host not in self._paths
        ):
            self._detectors.pop(domain, None)
            return
        now = self._clock.time_of_day() if active(FaultName.WALL_CLOCK) else self._clock.now()
        detector = self._detectors.get(domain) or Detector.started(self._settings.detect, self._settings.tick, now)
        channel, path = self._heard(domain, copy)
        if active(FaultName.WALL_CLOCK):
            channel = self._of_day(f"{domain} channel", channel)
            path = None if path is None else self._of_day(f"{domain} path", path)
        detector = detector.ticked(now).heard(channel=channel, path=path)
        idle = self._expecting is None or self._expecting.done()
        if idle and EXPECTED * detector.detect <= detector.silent_for and not detector.silent:
            self._expecting = asyncio.create_task(self._authority.expect(), name="expect to ask the witness")
        attempt = self._attempts.get(domain)
        if detector.suspects and (attempt is None or attempt.done()):
            log.warning("%s: its primary %s is silent for %.1f s", domain, copy.hello.host, detector.silent_for)
            self._events.note(domain, "suspect", silent_for=round(detector.silent_for, 3), primary=copy.hello.host)
            detector = detector.failed(now)  # until it has succeeded; then nobody asks the detector any more
            self._attempts[domain] = asyncio.create_task(self._attempt(domain), name=f"take over {domain}")
        self._detectors[domain] = detector

    def _heard(self, domain: str, copy: Copy) -> tuple[float, float | None]:
        """When its primary was last heard on each signal."""
        channel = max(each.primary_heard for each in self._backup.copies_of(domain))
        return channel, self._backup.beats.heard(copy.hello.host, copy.hello.uuid)

    def _of_day(self, signal: str, heard: float) -> float:
        """For the seeded fault: the time of day at which it was first seen that a signal was heard then."""
        if self._seen.get(signal, (None, 0.0))[0] != heard:
            self._seen[signal] = (heard, self._clock.time_of_day())
        return self._seen[signal][1]

    async def _attempt(self, domain: str) -> None:
        try:
            while await self._away(domain):
                if not await self._answers_while_silent(domain):
                    return
        except Exception as defect:
            log.critical("%s: not taken over, by a defect", domain, exc_info=True)
            self._events.note(domain, "defect", reason=f"take over: {defect!r}")

    async def _away(self, domain: str) -> bool:
        """Try to take it over. Whether that was in vain only because the witness could not be asked."""
        try:
            async with self.turn(domain):
                await self.take(domain, "its primary is silent on both paths")
        except RemusError as error:
            log.warning("%s: not taken over: %s", domain, error)
            self._events.note(domain, "not-taken-over", reason=str(error))
            return isinstance(error, WitnessUnreachable)
        return False

    async def _answers_while_silent(self, domain: str) -> bool:
        """Ask the witness again and again, and change nothing. Whether it answers before the primary is heard again; a detector
        that has begun anew meanwhile has to find it silent."""
        since = self._clock.now()
        if domain in self._detectors:
            self._detectors[domain] = self._detectors[domain].unanswered()
        while True:
            await self._clock.sleep(self._settings.retry)
            copy = self._backup.copy_of(domain)
            if copy is None or copy.state not in (State.READY, State.ORPHANED):
                return False
            channel, path = self._heard(domain, copy)
            if max(channel, path or channel) > since:
                return False
            try:
                await self._authority.read(copy.hello.uuid)
            except WitnessUnreachable:
                continue
            except WitnessError as error:
                log.warning("%s: %s", domain, error)  # an answer, of which the next attempt makes more
            detector = self._detectors.get(domain)
            if detector is not None and detector.silent:
                return True

    def turn(self, domain: str) -> asyncio.Lock:
        """For whoever is about to activate a copy of this domain: one at a time."""
        return self._turns.setdefault(domain, asyncio.Lock())

    async def stop_attempt(self, domain: str) -> None:
        """An operator takes it into his own hands. What was asked of the witness may still be granted."""
        attempt = self._attempts.get(domain)
        copy = self._backup.copy_of(domain)
        if attempt is not None and copy is not None and copy.state is State.TAKING:
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)

    async def take(
        self, domain: str, reason: str, proof: Mapping[str, str] | None = None, patience: float | None = None
    ) -> Copy:
        """Take over the committed copy of a guest in one's turn, if the witness allows it. proof: an operator's, checked, that
        the primary's host is dead; without one it is fenced, which may have to be waited for. patience: seconds to wait for the
        witness's word; None: as long as it takes. Raises AuthorityError, WitnessError when it does not allow it; then the copy
        stands, and may be stale. Raises another RemusError when the copy could not be activated."""
        with self._fencer.activation(domain):
            with self._backup.taking_over(domain):
                copy = await self._backup.silence(domain)
                if copy is None:
                    raise AuthorityError(
                        "no committed copy is left that may be activated", operation="take over", domain=domain
                    )
                copy.ask_to_take()
                async with fresh_word(self._clock, self._settings) as word:
                    with _standing(copy):
                        await self._notes.asks(copy)
                        await self._win(copy, reason, patience)
                        for other in self._backup.copies_of(domain):
                            if other is not copy and other.state in (State.ORPHANED, State.STALE):
                                await other.discard(Event.SUPERSEDED)
                        await self._fencer.before_activation(copy, proof or {})
                    await self._run_here(copy, reason, word)
            await self._taken(copy)
        return copy

    async def hand_over(self, copy: Copy, reason: str) -> None:
        """Take over, in one's turn, what its primary has handed over: its host is well, and is not fenced. Raises as `take`
        does; a copy that this host owns then and never ran is not activated by itself any more, because its guest is given
        back."""
        with self._backup.taking_over(copy.hello.domain):
            async with fresh_word(self._clock, self._settings) as word:
                with _standing(copy):
                    await self._notes.asks(copy)
                    await self._win(copy, reason, None)
                try:
                    await self._run_here(copy, reason, word)
                except RemusError:
                    if copy.state is State.ORPHANED:
                        copy.give_up(Event.STALE)
                    raise
        await self._taken(copy)

    def is_given_back(self, copy: Copy) -> bool:
        """Whether its guest, which this host owns and has never run, still has to be given back."""
        return copy.won and any(record.uuid == copy.hello.uuid for record in self._notes.taking)

    async def _run_here(self, copy: Copy, reason: str, word: FreshWord) -> None:
        """Activate the copy of a guest that this host owns. word: the witness's. It stays true until somebody changes the record
        by hand; where this host was away since, or had to wait for long, that may have happened, so it is asked again."""

        async def starts() -> None:
            if not word.fresh:
                settled = await self._settle(copy, reason)
                if settled.verdict is not Verdict.GO:
                    raise _not_offered(copy, settled)
            await self._notes.starts(copy)

        try:
            await copy.take(starts)
        except RemusError:
            if not copy.may_have_run:
                await self._notes.asks(copy)  # if the copy is lost with it, the guest is given back
            raise
        await self._notes.ran(copy)

    async def _win(self, copy: Copy, reason: str, patience: float | None) -> None:
        """Return when this host owns the guest. Raises otherwise; a copy that is stale by now is told so."""
        try:
            async with asyncio.timeout(patience):
                settled = await self._settle(copy, reason)
        except TimeoutError:
            raise WitnessUnknown(
                f"no word within {patience:g} s",
                operation="take over",
                domain=copy.hello.domain,
                left="nothing was activated, the copy stands; the change that was asked for may still be made",
                hint="check the witness and the network to it",
            ) from None
        if settled.verdict is Verdict.GO:
            return
        error = _not_offered(copy, settled)
        if settled.verdict is Verdict.STAND_DOWN:
            copy.refused(Event.STALE)
            error.left = "the copy is kept, but is stale: the guest ran on without it"
        raise error

    async def _settle(self, copy: Copy, reason: str) -> Settled:
        hello = copy.hello
        stake = Stake(Want.TAKE, self._authority.host, hello.domain, hello.generation, hello.host, reason)
        # Whoever asks here must know: a takeover that was granted unheard would leave the guest to nobody.
        return await self._authority.settle(hello.uuid, stake, until_known=True)


@contextlib.contextmanager
def _standing(copy: Copy) -> Iterator[None]:
    """Around what comes before the activation. Whatever ends it there, an operator who takes it into his own hands or the agent's
    stop too: the copy must not stay one that is being taken over, which nobody could ever activate."""
    try:
        yield
    except BaseException:
        if copy.state is State.TAKING:
            copy.refused(Event.OWNERSHIP_REFUSED)
        raise


def _not_offered(copy: Copy, settled: Settled) -> AuthorityError:
    record = settled.record
    says = "there is no record" if record is None else f"{record.owner} owns it, generation {record.generation}"
    return AuthorityError(
        f"the witness does not offer this copy of generation {copy.hello.generation}: {says}",
        operation="take over",
        domain=copy.hello.domain,
        left="the copy stands",
        hint="see `remusctl status` on both hosts",
    )
