"""Carries out `machines.authority`: reads the record, asks for the change that its table says, until the outcome is known."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Final

from remus_agent.errors import RecordLost, WitnessConflict, WitnessError, WitnessUnknown, WitnessUnreachable
from remus_agent.faults import FaultName, active
from remus_agent.machines.authority import Ownership, Stake, Verdict, Want
from remus_agent.ports import Clock, EventSink
from remus_agent.witness_ports import Recorded, Witness

log = logging.getLogger(__name__)

PAUSE: Final = 0.5
"""Seconds between two attempts to learn the outcome of a change."""
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Settled:
    """What came out. verdict: GO, REFUSE, AGAIN or STAND_DOWN. record: what stands in the witness."""

    verdict: Verdict
    record: Ownership | None


class Authority:
    """One host's access to the witness."""

    def __init__(self, witness: Witness, host: str, clock: Clock, events: EventSink) -> None:
        self.host = host
        self._witness = witness
        self._clock = clock
        self._events = events
        self._seen: dict[str, Ownership | None] = {}
        self._changed: Counter[str] = Counter()
        self._known: dict[str, Ownership] = {}
        """The last record of each guest of which there was one since this agent started, also where it is lost by now."""
        self._lost: set[str] = set()
        """Guests of which there is none any more, for which an event says so."""

    async def read(self, guest: str) -> Ownership | None:
        """The record of a guest. Raises WitnessError."""
        found = await self._look(guest)
        return None if found is None else found.ownership

    async def expect(self) -> None:
        """The witness may be asked soon."""
        await self._witness.expect()

    def last_known(self, guest: str) -> Ownership | None:
        """Its last record since this agent started, also where there is none any more; None: there was none."""
        return self._known.get(guest)

    def last_seen(self, guest: str) -> Ownership | None:
        """Its record as it was last read, or changed by this host; None: there was none."""
        return self._seen.get(guest)

    async def _look(self, guest: str) -> Recorded | None:
        before = self._changed[guest]
        found = await self._witness.read(guest)
        if self._changed[guest] == before:  # else it may have been read before our own change, and is known better
            self._seen[guest] = None if found is None else found.ownership
            if found is not None:
                self._stands(guest, found.ownership)
        return found

    def _stands(self, guest: str, record: Ownership) -> None:
        self._known[guest] = record
        self._lost.discard(guest)

    async def settle(self, guest: str, stake: Stake, *, until_known: bool = False) -> Settled:
        """Decide on the record, with the change that this takes. guest: its UUID.

        Raises WitnessUnreachable when for sure nothing was changed by us, RecordLost when nothing is because the witness has lost
        the record, WitnessUnknown when a change of ours may have been made or may still be: that comes only after several
        attempts to find out, and never with until_known."""
        asked: Ownership | None = None
        asked_on: int | None = None
        wanted: Ownership | None = None
        attempt = 0
        while True:
            attempt += 1
            try:
                found = await self._look(guest)
                record = None if found is None else found.ownership
                if asked is not None and record == asked:
                    self._note(asked)  # it was made then, and nobody has heard of it yet
                    return Settled(Verdict.GO, record)
                revision = None if found is None else found.revision
                if revision != asked_on:
                    asked = None  # somebody was faster: what we asked for can't be made any more
                rule = stake.decide(record)
                if rule.verdict is Verdict.WAIT:
                    raise self._record_lost(guest, stake)
                wanted = stake.change(rule.verdict, record)
                if wanted is None:
                    return Settled(rule.verdict, record)
                asked_on = revision
                await self._change(guest, found, wanted)
                return Settled(Verdict.GO, wanted)
            except WitnessUnknown as error:
                asked = wanted
                log.warning("%s: %s", stake.guest, error)
            except WitnessConflict:
                # By somebody else; or by us, where what is on the way has asked twice, and this is the answer to the second time.
                asked = wanted
                log.info("%s: the record was changed meanwhile", stake.guest)
            except WitnessError as error:
                if asked is None:
                    raise
                log.warning("%s: the outcome of a change is not known yet: %s", stake.guest, error)
            if attempt >= _ATTEMPTS and not until_known:
                raise (
                    WitnessUnknown(
                        "a change of the record was asked for, and nobody can say whether it was made",
                        operation=stake.want.value,
                        domain=stake.guest,
                        left="nothing was done on it",
                        hint="check the witness and the network to it",
                    )
                    if asked is not None
                    else WitnessUnreachable(
                        "others keep changing the record", operation=stake.want.value, domain=stake.guest
                    )
                )
            await self._clock.sleep(PAUSE)

    async def _change(self, guest: str, found: Recorded | None, wanted: Ownership) -> None:
        """Ask for a change, which was made when this returns. Raises WitnessError."""
        if active(FaultName.CAS_WITHOUT_COMPARE):
            found = await self._witness.read(guest)
        await self._witness.change(guest, found, wanted)
        self._changed[guest] += 1
        self._seen[guest] = wanted
        self._stands(guest, wanted)
        self._note(wanted)

    def _record_lost(self, guest: str, stake: Stake) -> RecordLost:
        """What is raised; an event says it once."""
        do = f"if it does not run on {stake.peer}: `remusctl unprotect {stake.guest} --force` here, then protect it again"
        if stake.want is Want.RESUME:
            do = "do not destroy the guest that is paused here, it may be the newest there is"
        error = RecordLost(
            f"the witness has lost its record, of generation {stake.generation} or later; so nobody can say whether"
            f" {stake.peer} has taken it over",
            operation=stake.want.value,
            domain=stake.guest,
            left="nothing was changed, and its output is not opened",
            hint=f"{do}; see docs/runbook.md, A record is lost",
        )
        if guest not in self._lost:
            self._lost.add(guest)
            log.critical("%s: %s", stake.guest, error)
            self._events.note(stake.guest, "record-lost", reason=str(error))
        return error

    def _note(self, made: Ownership) -> None:
        self._events.note(
            made.name,
            "ownership",
            owner=made.owner,
            generation=made.generation,
            is_now=made.state,
            reason=made.reason,
        )
