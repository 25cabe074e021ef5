"""Guests that an earlier agent has built here to run by an operator's word that the other host is off, and that this one found
when that word was too old to be acted on: the other host may be on again.

Each stands here paused and has never run. It may be the only image of the guest, so it is kept until an operator has looked
again: then his new word is noted, and it is finished as if it had been found at once. Or he has it destroyed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from remus_agent.errors import AuthorityError, DomainNotFound, RefusedError, RemusError
from remus_agent.observe.status import Status
from remus_agent.ports import Clock, Hypervisor
from remus_agent.services.fencing import check_proof
from remus_agent.services.fresh_word import LOOK_AGAIN, FreshWord
from remus_agent.services.heartbeats import HeardBeats
from remus_agent.services.override import ACCEPT, operators_word
from remus_agent.services.settings import Settings
from remus_agent.store_ports import GuestRecord, GuestStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    record: GuestRecord
    why: str
    since: float


class OldWords:
    """Of one host. beats: what it hears of others. witnessed: there is a record in a witness, against which such a word
    stands."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        store: GuestStore,
        beats: HeardBeats,
        clock: Clock,
        settings: Settings,
        *,
        witnessed: bool,
    ) -> None:
        self._hypervisor = hypervisor
        self._store = store
        self._beats = beats
        self._clock = clock
        self._settings = settings
        self._witnessed = witnessed
        self._kept: dict[str, _Kept] = {}

    def keep(self, record: GuestRecord, why: str) -> None:
        """It was found, and is not run. why: what is said of that besides what to do."""
        self._kept[record.name] = _Kept(record, why, self._clock.now())

    def forget(self, name: str) -> None:
        """It runs, or is gone."""
        self._kept.pop(name, None)

    def names(self) -> list[str]:
        """Of those that wait."""
        return sorted(self._kept)

    def why(self, name: str) -> str | None:
        """Why this one waits, and what to do; None where it does not."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        peer, accept = kept.record.peer, " --accept-loss" if self._witnessed else ""
        return (
            f"{kept.why}. It stands here, built and paused, and has never run: see that {peer} is off, then: remusctl failover"
            f" {name} --fenced-host {peer} --fenced-method ... --evidence ...{accept}. Where {peer} runs it: remusctl unprotect"
            f" {name} --force, which destroys what is here"
        )

    async def status(self, name: str) -> Status | None:
        """None where this one does not wait. Raises DomainNotFound where somebody has destroyed it."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        try:
            await self._hypervisor.domain(name)
        except DomainNotFound:
            raise
        except RemusError as error:
            log.warning("%s: whether it is still here is not known: %s", name, error)
        return Status(
            domain=name,
            role="primary",
            state="starting",
            peer=kept.record.peer,
            generation=kept.record.generation,
            since=round(self._clock.now() - kept.since, 3),
            reason=self.why(name),
        )

    def refuse(self, name: str, operation: str) -> None:
        """Raises RefusedError for one that waits."""
        why = self.why(name)
        if why is not None:
            raise RefusedError(why, operation=operation, domain=name, left="nothing was changed")

    async def look(
        self,
        name: str,
        fenced: Mapping[str, str],
        *,
        generation: int | None,
        session: str | None,
        accept_loss: bool,
    ) -> GuestRecord:
        """An operator has looked again: the record of the guest, where nothing speaks against his word. Raises AuthorityError."""
        record = self._kept[name].record
        if session or generation not in (None, record.generation):
            raise AuthorityError(
                f"the session of what is built here is not known any more, and its generation is {record.generation}",
                operation="failover",
                domain=name,
                left="nothing was changed",
                hint="look again with `remusctl status`, then ask without the session",
            )
        check_proof(name, record.peer, fenced)
        if self._witnessed and not accept_loss:
            raise AuthorityError(
                "it was to run whatever the witness says",
                operation="failover",
                domain=name,
                left="nothing was changed",
                hint=ACCEPT,
            )
        await self._beats.expect_silence(record.peer, self._settings.quiet, name)
        return record

    def trial(self, record: GuestRecord) -> dict[str, Any]:
        """What would be done at his word, as `failover_trial` says it. record: from `look`."""
        return {
            "domain": record.name,
            "from": record.peer,
            "session": None,
            "generation": record.generation,
            "committed_epoch": None,
            "state": "starting",
            "by": f"an operator's word, given again, that {record.peer} is off: it is built here already",
            "changed": False,
        }

    async def renew(self, record: GuestRecord, word: FreshWord, fenced: Mapping[str, str]) -> None:
        """Note his word in place of the old one. record: from `look`. Raises RemusError."""
        word.require(record.name, "failover", LOOK_AGAIN)
        await self._store.save(replace(record, override=operators_word(fenced), until=word.until))

    async def give_up(self, name: str, *, force: bool) -> bool:
        """Destroy one that waits; False where it does not. Raises RefusedError without force."""
        kept = self._kept.get(name)
        if kept is None:
            return False
        if not force:
            self.refuse(name, "unprotect")
        await self._hypervisor.destroy(name)
        await self._store.remove(name)
        self.forget(name)
        return True

    def require_finished(self, name: str) -> None:
        """After an attempt to. Raises RemusError with what kept it from running."""
        kept = self._kept.get(name)
        if kept is not None:
            raise RemusError(
                kept.why, operation="failover", domain=name, left="it is built here, paused", hint=LOOK_AGAIN
            )
