"""Guests that an earlier agent was about to run when it died: built here from a copy, whole, and noted as `starting`.

That note is written when nothing is left but a rename and an unpause, so what stands paused here under either name has never run.
What is done with it depends on who permitted it. The witness: it runs as soon as a change of the record confirms that this host
is still its owner (`PrimaryService`). An operator's proof that the other host is off: it runs at once, if that is as fresh as
it has to be for everybody else (`fresh_word`), and otherwise waits for him (`old_words`). The primary's word in a
switchover without a witness: it is destroyed, because its primary still has it, down, and is told so. A guest that is not there
any more may have run for a moment, and nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from remus_agent.errors import DomainNotFound, RemusError
from remus_agent.ports import Announcer, Clock, Domain, EventSink, Hypervisor
from remus_agent.services.announcing import announce
from remus_agent.services.fresh_word import still_holds
from remus_agent.services.old_words import OldWords
from remus_agent.services.settings import Settings
from remus_agent.store_ports import GuestRecord, GuestStore

log = logging.getLogger(__name__)


class Unfinished:
    """Of one host, at its agent's start. witnessed: there is a record in a witness, into which an operator's word has yet to be
    written."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        store: GuestStore,
        events: EventSink,
        announcer: Announcer,
        clock: Clock,
        settings: Settings,
        old_words: OldWords,
        *,
        witnessed: bool,
    ) -> None:
        self._hypervisor = hypervisor
        self._store = store
        self._events = events
        self._announcer = announcer
        self._clock = clock
        self._settings = settings
        self._old_words = old_words
        self._witnessed = witnessed
        self._announcing: set[asyncio.Task[None]] = set()

    async def settle(self, record: GuestRecord) -> GuestRecord | None:
        """Do what needs nobody's word any more. The record as it is then; it is still `starting` where the witness has to be
        asked before the guest may run, or where the guest is not there. None: nothing is to be done for this guest now."""
        if not record.starting:
            return record
        try:
            return await self._settle(record)
        except RemusError as error:
            if self._old_words.why(record.name) is not None:
                self._old_words.keep(record, str(error))
            log.error("%s: built here to run, and not finished: %s", record.name, error)
            self._events.note(
                record.name, "start-unfinished", reason=str(error), left=f"paused as {record.name} or {record.starting}"
            )
            return None

    def _wait(self, record: GuestRecord) -> None:
        """By whose word it was to run has to look again."""
        self._old_words.keep(
            record, f"an operator's word, that {record.override}, is too old: {record.peer} may be on again"
        )
        why = self._old_words.why(record.name)
        log.error("%s: %s", record.name, why)
        self._events.note(record.name, "start-unfinished", reason=why, left=f"paused as {record.name}")

    async def _settle(self, record: GuestRecord) -> GuestRecord | None:
        domain = await self._find(record)
        if domain is None:
            self._old_words.forget(record.name)
            return record
        if not await self._hypervisor.is_paused(domain):
            await self._hypervisor.unpause(domain)  # of a group the members that its agent had not come to
            return await self._runs(record)
        if record.role == "primary":
            return record
        if not record.override:
            await self._undo(record, domain)
            return None
        if not still_holds(record.until, self._clock, self._settings):
            self._wait(record)
            return None
        log.warning("%s: an earlier agent was about to run it by an operator's word; it runs now", record.name)
        await self._hypervisor.unpause(domain)
        self._events.note(record.name, "started", because=record.override)
        task = asyncio.create_task(announce(self._announcer, domain, self._events), name=f"announce {record.name}")
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)
        return await self._runs(record)

    async def _find(self, record: GuestRecord) -> Domain | None:
        """The domain under its real name, which it is given here if it has not got it yet."""
        for name in (record.starting, record.name):  # of a group some members may be called as copies are, others not
            try:
                domain = await self._hypervisor.domain(name)
            except DomainNotFound:
                continue
            if domain.uuid == record.uuid:
                return domain if name == record.name else await self._hypervisor.rename(domain, record.name)
        return None

    async def _runs(self, record: GuestRecord) -> GuestRecord:
        self._old_words.forget(record.name)
        running = replace(record, starting="", until=0.0, override=record.override if self._witnessed else "")
        try:
            await self._store.save(running)
        except RemusError as error:
            log.error("%s: a restart has to find out once more that it runs: %s", record.name, error)
        return running

    async def _undo(self, record: GuestRecord, domain: Domain) -> None:
        """Its primary has it, and asks what has become of it. First the guest goes, then the note that it may run here."""
        await self._hypervisor.destroy(domain.name)
        await self._store.remove(record.name)
        log.warning("%s: handed over by %s, never ran here and was destroyed", record.name, record.peer)
        self._events.note(record.name, "start-undone", primary=record.peer)


async def start_guest(
    domain: Domain, hypervisor: Hypervisor, events: EventSink, sleep: Callable[[], Awaitable[None]]
) -> bool:
    """Let a guest run that was built here and never ran, however often it takes. False when it is gone. sleep: between two
    attempts."""
    told = False
    while True:
        try:
            await hypervisor.unpause(domain)
        except DomainNotFound as error:
            log.error("%s: built here, and gone before it ran: %s", domain.name, error)
            events.note(domain.name, "guest-gone", reason=str(error), left="it never ran here")
            return False
        except RemusError as error:
            log.error("%s: built here and does not run yet, it is tried again: %s", domain.name, error)
            if not told:
                events.note(domain.name, "start-unfinished", reason=str(error), left=f"paused as {domain.name}")
            told = True
            await sleep()
        else:
            events.note(domain.name, "started", because="an earlier agent took it over, and this host is its owner")
            return True
