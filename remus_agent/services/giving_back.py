"""A host that has become the owner of a guest, has never run it, and has lost its copy: it gives the guest back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from remus_agent.errors import DomainNotFound, RemusError
from remus_agent.machines.authority import Stake, Verdict, Want
from remus_agent.machines.backup import State
from remus_agent.services.authority import Authority
from remus_agent.services.backup import BackupService
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.takeover_notes import TakeoverNotes
from remus_agent.store_ports import GuestRecord

log = logging.getLogger(__name__)

_WHOLE = frozenset({State.READY, State.ORPHANED, State.TAKING, State.ACTIVATING, State.ACTIVE})


class GivingBack:
    """All guests of one host. turn: of whoever is about to activate a copy of a domain. retry: seconds between two looks."""

    def __init__(
        self,
        authority: Authority,
        notes: TakeoverNotes,
        backup: BackupService,
        ports: PrimaryPorts,
        turn: Callable[[str], asyncio.Lock],
        retry: float,
    ) -> None:
        self._authority = authority
        self._notes = notes
        self._backup = backup
        self._ports = ports
        self._turn = turn
        self._retry = retry

    async def run(self) -> None:
        """Look at all of them again and again; never ends by itself."""
        while True:
            for record in self._notes.taking:
                try:
                    await self._look(record)
                except RemusError as error:
                    log.info("%s: not given back yet: %s", record.name, error)
            await self._ports.clock.sleep(self._retry)

    async def _look(self, record: GuestRecord) -> None:
        if self._has_copy(record):
            return
        async with self._turn(record.name):
            if record not in self._notes.taking or self._has_copy(record) or await self._runs(record.name):
                return
            stake = Stake(
                Want.GIVE,
                self._authority.host,
                record.name,
                record.generation,
                record.peer,
                f"{self._authority.host} never ran it and has lost its copy",
            )
            settled = await self._authority.settle(record.uuid, stake, until_known=True)
            if settled.verdict is Verdict.REFUSE:
                return  # what this host has asked for may still be made
            await self._notes.forget(record)
        if settled.verdict is Verdict.GO:
            log.warning("%s: given back to %s: it never ran here, and its copy is lost", record.name, record.peer)
            self._ports.events.note(record.name, "given-back", to=record.peer)

    def _has_copy(self, record: GuestRecord) -> bool:
        """Whether there is one that the record in the witness may offer."""
        return any(
            copy.state in _WHOLE and copy.hello.generation == record.generation and copy.hello.uuid == record.uuid
            for copy in self._backup.copies_of(record.name)
        )

    async def _runs(self, name: str) -> bool:
        try:
            await self._ports.hypervisor.domain(name)
        except DomainNotFound:
            return False
        return True
