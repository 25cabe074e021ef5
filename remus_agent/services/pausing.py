"""Protections that an operator has suspended for a time: they end in order, and begin anew by themselves.

A pause is nothing new for the machine of a primary. It is the end of the protection, as with `unprotect`: the backup says that
its copy is gone, or the witness that no copy may be activated, and only then output flows. What is new is a durable note,
written before, that says until when; who finds it protects the guest again. So whatever an agent that dies leaves is safe: the
protection as it was, or a guest without one and the note. A guest that is protected again needs its note no more.

The time is that of a clock which nobody can set, and which goes on while no agent runs; a host that was started anew ends every
pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Protocol

from remus_agent.errors import ConfigError, RefusedError, RemusError
from remus_agent.machines.primary import State
from remus_agent.observe.status import Status
from remus_agent.ports import Clock, EventSink
from remus_agent.services.primary import PrimaryService
from remus_agent.services.watch import Progress
from remus_agent.store_ports import PauseNote, PauseStore

log = logging.getLogger(__name__)

_ENDING: Final = frozenset({State.STOPPING, State.FREEING, State.FAILING, State.RETIRING})
"""The protection ends, although nobody waits for it any more."""
LONGEST_PAUSE_BETWEEN: Final = 60.0
"""Seconds between two attempts to protect a guest again."""


class Protections(Protocol):
    """What the agent does for a pause. All raise RemusError."""

    def protector(self, name: str) -> PrimaryService | None:
        """What protects this guest now."""
        ...

    def has_copy(self, name: str) -> bool:
        """Whether this host is the backup of it."""
        ...

    async def require_end(self, name: str, *, force: bool) -> None:
        """Raises where `end` would be refused now. Changes nothing."""
        ...

    async def begin(self, note: PauseNote) -> None:
        """Protect it again; returns when that has begun."""
        ...

    def failure(self, name: str) -> str | None:
        """Why its last protection ended, if it failed."""
        ...

    async def end(self, name: str, timeout: float, progress: Progress) -> None:
        """Returns when its output is free."""
        ...


class Pauses:
    """Of one host. store: None: there is no place for notes, and nothing can be paused."""

    def __init__(
        self, store: PauseStore | None, clock: Clock, events: EventSink, retry: float, protections: Protections
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._retry = retry
        self._protections = protections
        self._notes: dict[str, PauseNote] = {}
        self._writing = asyncio.Lock()
        """Held while a note is kept or removed: what is on disk is what is known here."""
        self._busy: set[str] = set()
        self._problems: dict[str, str] = {}
        self._tried: dict[str, tuple[float, float]] = {}
        """When it was last tried to protect a guest again, and for how long to wait then."""

    async def load(self) -> None:
        """What an earlier agent has left. One that cannot be read is noted, and its guest stays as it is."""
        if self._store is None:
            return
        notes, damaged = await self._store.load_all()
        self._notes = {note.name: note for note in notes}
        for error in damaged:
            log.error("%s", error)
            self._events.note(error.domain or "?", "record-damaged", reason=str(error))

    def names(self) -> list[str]:
        """Guests that are paused."""
        return sorted(self._notes)

    def status(self, name: str) -> Status | None:
        """Of a guest that is paused and not protected; None for every other."""
        note = self._notes.get(name)
        if note is None:
            return None
        left = note.until - self._clock.now()
        if left > 0:
            end = datetime.fromtimestamp(self._clock.time_of_day() + left, UTC).isoformat(timespec="seconds")
            why = f"paused until {end}" + (f" ({note.reason})" if note.reason else "")
        else:
            problem = self._problems.get(name, "it is tried")
            why = f"its pause is over, and it is not protected again: {problem}"
        return Status(
            domain=name,
            role="none",
            state="paused",
            peer=note.peer,
            interval_ms=note.interval_ms,
            reason=f"{why}; it has no copy, its output flows; remusctl resume {name} protects it now",
        )

    async def require(self, name: str) -> None:
        """Raises RemusError where `pause` would be refused now. Changes nothing."""
        self._required()
        if self._protections.protector(name) is None:
            self._noted(name, "pause", "it is not protected on this host")
        else:
            await self._protections.require_end(name, force=False)

    async def pause(self, name: str, seconds: float, reason: str, timeout: float, progress: Progress) -> None:
        """End a protection for so many seconds; one that is paused already is paused for so many from now on. Returns when its
        output is free. Raises RemusError; then it is protected as before, or its end is under way and it is paused then."""
        store = self._required()
        service = self._protections.protector(name)
        until = self._clock.now() + seconds
        if service is None:
            note = self._noted(name, "pause", "it is not protected on this host")
            await self._keep(store, replace(note, until=until, reason=reason or note.reason))
        else:
            record = service.record
            note = PauseNote(
                name, service.domain.uuid, record.peer, record.interval_ms, record.output_limit_bytes, until, reason
            )
            with self._hands_off(name):
                await self._keep(store, note)
                try:
                    await self._protections.end(name, timeout, progress)
                except RemusError:
                    service = self._protections.protector(name)
                    if service is None or service.state not in _ENDING:
                        await self.forget(name)
                    raise
        log.warning("%s: its protection is paused for %g s", name, seconds)
        self._events.note(name, "paused", seconds=seconds, reason=reason)

    async def resume(self, name: str) -> PauseNote:
        """End a pause: it is protected again from now on, by the caller or by itself."""
        note = self._noted(name, "resume", "it is not paused")
        ended = replace(note, until=self._clock.now())
        await self._keep(self._required(), ended)
        return ended

    async def forget(self, name: str, why: str | None = None, *, only: PauseNote | None = None) -> None:
        """A guest that is paused no more. why: it is noted. only: not where it was paused anew since. Raises JournalError; then
        it is paused still."""
        async with self._writing:
            note = self._notes.get(name)
            if self._store is None or note is None or (only is not None and only is not note):
                return
            await self._store.remove(name)  # first: a note that stays begins the protection anew after a restart
            del self._notes[name]
        self._problems.pop(name, None)
        self._tried.pop(name, None)
        if why is not None:
            log.info("%s: its pause is over: %s", name, why)
            self._events.note(name, "pause-over", because=why)

    @contextlib.contextmanager
    def _hands_off(self, name: str) -> Iterator[None]:
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)

    async def run(self) -> None:
        """Protect guests again whose pause is over. Never ends by itself."""
        while True:
            for name in self.names():
                if name not in self._busy:
                    try:
                        await self._look(name)
                    except RemusError as error:
                        self._failed(name, str(error))
            await self._clock.sleep(self._retry)

    async def _look(self, name: str) -> None:
        note = self._notes.get(name)
        if note is None:
            return
        service = self._protections.protector(name)
        if service is not None:
            if service.state is State.PROTECTED:
                await self.forget(name, "it is protected", only=note)
            return
        if self._protections.has_copy(name):
            await self.forget(name, "another host runs and protects it", only=note)
            return
        now = self._clock.now()
        tried, wait = self._tried.get(name, (0.0, 0.0))
        failure = self._protections.failure(name)
        if wait and failure is not None:
            self._failed(name, failure)
        if now < note.until or now < tried + wait:
            return
        self._tried[name] = (now, min(max(2 * wait, self._retry), LONGEST_PAUSE_BETWEEN))
        await self._protections.begin(note)

    def _failed(self, name: str, why: str) -> None:
        """Loud, once for each reason."""
        if self._problems.get(name) != why:
            log.error("%s: its pause is over, and it is not protected again: %s", name, why)
            self._events.note(name, "pause-overdue", reason=why)
        self._problems[name] = why

    async def _keep(self, store: PauseStore, note: PauseNote) -> None:
        async with self._writing:
            await store.save(note)
            self._notes[note.name] = note
        self._tried.pop(note.name, None)

    def _required(self) -> PauseStore:
        if self._store is None:
            raise ConfigError("this agent has no place to note a pause", operation="pause", left="nothing was changed")
        return self._store

    def _noted(self, name: str, operation: str, why: str) -> PauseNote:
        note = self._notes.get(name)
        if note is None:
            raise RefusedError(
                why,
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint=f"see `remusctl status {name}` on both hosts",
            )
        return note
