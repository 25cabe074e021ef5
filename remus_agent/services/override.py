"""An operator's proof of fencing against the witness's silence, or against what it says: a possible loss, and recorded as one.

A proof that the other host is off makes one owner, not a new copy: that host may have run on alone and told clients more than the
copy knows. So it has to be asked for with that said. It is noted durably before the guest runs, and written into the record in
the witness, whatever its owner is there, as soon as that can be asked; also by the next agent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from remus_agent.errors import AuthorityError, DomainNotFound, RemusError, WitnessError
from remus_agent.faults import FaultName, active
from remus_agent.machines.authority import Stake, Want, session_generation
from remus_agent.ports import Domain
from remus_agent.services.authority import Authority
from remus_agent.services.backup import BackupService
from remus_agent.services.copy import Copy
from remus_agent.services.fresh_word import LOOK_AGAIN, FreshWord
from remus_agent.services.hand_over import BeforeRun
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.takeover_notes import TakeoverNotes
from remus_agent.store_ports import GuestRecord

log = logging.getLogger(__name__)

ACCEPT = (
    "repair the witness; or fence the primary's host, give the proof of it, and accept that whatever it has told clients since"
    " this copy was made is lost: remusctl failover --accept-loss"
)


class Overrides:
    """Of one host. adopt: become the primary, alone, of a guest that runs here. retry: seconds between two attempts to write
    into the record."""

    def __init__(
        self,
        authority: Authority,
        notes: TakeoverNotes,
        backup: BackupService,
        ports: PrimaryPorts,
        adopt: Callable[[Domain, GuestRecord], None],
        retry: float,
    ) -> None:
        self.words: dict[str, str] = {}
        """Guests that run here by override, and what is to be said of it."""
        self._authority = authority
        self._notes = notes
        self._backup = backup
        self._ports = ports
        self._adopt = adopt
        self._retry = retry

    async def activate(
        self,
        copy: Copy,
        activate: Callable[[BeforeRun], Awaitable[Copy]],
        word: FreshWord,
        fenced: Mapping[str, str],
        why: RemusError,
    ) -> GuestRecord:
        """Activate the copy, and note it when it is built and before it runs. activate: calls what it is given then. word: the
        operator's, with his proof (fenced). why: what the witness says, or that it does not. Raises RemusError."""
        name = copy.hello.domain
        record = replace(
            self._notes.record(copy, "active", copy.hello.generation + 2),
            override=operators_word(fenced),
        )
        noted = False

        async def before_run(built: Copy) -> None:
            nonlocal noted
            await self._notes.override_starts(built, record, word.until)
            noted = True
            word.require(name, "failover", LOOK_AGAIN)

        try:
            await activate(before_run)
        except RemusError:
            if noted and copy.running is None:
                await self._ports.store.remove(name)
            raise
        await self._notes.override_ran(record)
        self._ports.events.note(
            name, "override", generation=copy.generation, fenced=dict(fenced), possible_loss=True, because=why.message
        )
        return record

    async def reconcile(self, record: GuestRecord) -> None:
        """Have the record in the witness say what is the case, as soon as it can be asked; then the guest is protected again."""
        name = record.name
        self.say(record)
        if active(FaultName.OVERRIDE_UNRECORDED):
            return
        reason = f"override, a possible loss: an operator had proof that {record.override}"
        stake = Stake(Want.OVERRIDE, self._authority.host, name, record.generation, record.peer, reason)
        while True:
            try:
                settled = await self._authority.settle(record.uuid, stake, until_known=True)
            except WitnessError as error:
                log.warning("%s: %s: %s", name, self.words[name], error)
                await self._ports.clock.sleep(self._retry)
                continue
            break
        if settled.record is None:
            raise AssertionError("a record that was written stands there")
        self._ports.events.note(name, "override-recorded", generation=settled.record.generation, reason=reason)
        await self._hand_over(
            replace(record, role="primary", override="", generation=session_generation(settled.record))
        )

    async def _hand_over(self, record: GuestRecord) -> None:
        try:
            domain = await self._ports.hypervisor.domain(record.name)
        except DomainNotFound as error:
            log.warning("%s: no longer runs here: %s", record.name, error)
            self._ports.events.note(record.name, "guest-gone", reason=str(error))
            self.words.pop(record.name)
            self._hand_out(record.name)
            await self._ports.store.remove(record.name)
            return
        try:
            await self._ports.store.save(record)
        except RemusError as error:
            log.error("%s: will be written into the record once more after a restart: %s", record.name, error)
        self._adopt(domain, record)
        self.words.pop(record.name)
        self._hand_out(record.name)

    def _hand_out(self, name: str) -> None:
        for copy in self._backup.copies_of(name):
            if copy.running is not None:
                self._backup.hand_out(copy)

    def say(self, record: GuestRecord) -> None:
        """What is to be said of a guest that runs here by override, until `reconcile` is through."""
        self.words[record.name] = (
            f"runs by an operator's word that {record.override}; what clients were told after the copy may be lost; the witness"
            " does not know of it yet"
        )


def operators_word(fenced: Mapping[str, str]) -> str:
    """An operator's proof, as it is noted and shown to people."""
    return f"{fenced['host']} is off ({fenced['method']}: {fenced['evidence']})"


def refused(error: RemusError, name: str) -> AuthorityError:
    """The error where the witness gives no word and no override was asked for in full."""
    if isinstance(error, AuthorityError):
        error.hint = ACCEPT
        return error
    return AuthorityError(
        f"the witness cannot be asked: {error.message}",
        operation="failover",
        domain=name,
        left="nothing was changed",
        hint=ACCEPT,
    )
