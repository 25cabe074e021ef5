"""What a host must know after a restart of guests that it has asked to take over: whether they were ever made to run here.

The guest's record says `taking` before the witness is asked. When the guest is built here, and nothing is left but to let it run,
it says `primary`, and under which name it was built (`starting`); that name goes when it runs. Only a guest whose record says
`taking` is given back; one without a record never is. One that is `starting` is finished by the next agent (`unfinished`).
So a crash or a full disk at any moment leaves, at worst, a guest that is not given back by itself, and never one that has run
here and goes on elsewhere from an older past.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from msgspec import UNSET

from remus_agent.errors import RemusError
from remus_agent.faults import FaultName, active
from remus_agent.services.copy import Copy
from remus_agent.store_ports import TAKING, GuestRecord, GuestStore

log = logging.getLogger(__name__)


class TakeoverNotes:
    """Of one host. interval_ms, output_limit_bytes: for guests that run here then and for which nobody wanted others."""

    def __init__(self, store: GuestStore, *, interval_ms: int, output_limit_bytes: int) -> None:
        self._store = store
        self._interval_ms = interval_ms
        self._limit = output_limit_bytes
        self._taking: dict[str, GuestRecord] = {}

    def remember(self, records: Iterable[GuestRecord]) -> None:
        """What an earlier agent has left."""
        self._taking |= {record.name: record for record in records if record.role == TAKING}

    @property
    def taking(self) -> list[GuestRecord]:
        """Guests that this host has asked for and that have never run here since."""
        return list(self._taking.values())

    def record(self, copy: Copy, role: str, generation: int) -> GuestRecord:
        """The record of a guest that comes from a copy."""
        hello = copy.hello
        return GuestRecord(
            name=hello.domain,
            uuid=hello.uuid,
            role=role,
            peer=hello.host,
            generation=generation,
            committed=False,
            interval_ms=self._interval_ms if hello.interval_ms is UNSET else hello.interval_ms,
            output_limit_bytes=self._limit if hello.output_limit_bytes is UNSET else hello.output_limit_bytes,
            members=hello.member_names,
        )

    async def asks(self, copy: Copy) -> None:
        """The witness is about to be asked, or the guest did for sure not run. Without this note all goes on; only that the
        guest is not given back then, should the copy be lost."""
        record = self.record(copy, TAKING, copy.hello.generation)
        try:
            await self._store.save(record)
            self._taking[record.name] = record
        except RemusError as error:
            log.error("%s: cannot be given back, should its copy be lost: %s", record.name, error)

    async def starts(self, copy: Copy) -> None:
        """The guest is built, and about to run here. Raises RemusError when a restart could take it for one that never did."""
        if active(FaultName.RUNS_UNNOTED):
            return
        record = replace(self.primary(copy), starting=copy.working_name)
        try:
            await self._store.save(record)
        except RemusError as error:
            log.error("%s: will not be protected again after a restart: %s", record.name, error)
            await self._store.remove(record.name)
        self._taking.pop(record.name, None)

    async def ran(self, copy: Copy) -> None:
        """The guest runs here. Without this note the next agent finds that out by itself, where it still runs then."""
        if not active(FaultName.RUNS_UNNOTED):
            await self._save_running(self.primary(copy))

    def primary(self, copy: Copy) -> GuestRecord:
        """The record of a guest that runs here from a copy. After a takeover of generation g the witness's record is of g+1;
        sessions are of the one after that."""
        return self.record(copy, "primary", copy.hello.generation + 2)

    async def override_starts(self, copy: Copy, record: GuestRecord, until: float) -> None:
        """The guest is built, and about to run here by an operator's word. until: see `FreshWord`. Raises RemusError when that
        can't be noted."""
        if not active(FaultName.OVERRIDE_UNRECORDED):
            await self._store.save(replace(record, starting=copy.working_name, until=until))
        self._taking.pop(record.name, None)

    async def override_ran(self, record: GuestRecord) -> None:
        """The guest runs here by an operator's word; see `ran`."""
        if not active(FaultName.OVERRIDE_UNRECORDED):
            await self._save_running(record)

    async def _save_running(self, record: GuestRecord) -> None:
        try:
            await self._store.save(record)
        except RemusError as error:
            log.error("%s: a restart has to find out that it runs: %s", record.name, error)

    async def forget(self, record: GuestRecord) -> None:
        """Another host owns it. Raises RemusError."""
        if self._taking.get(record.name) == record:
            await self._store.remove(record.name)
            del self._taking[record.name]
