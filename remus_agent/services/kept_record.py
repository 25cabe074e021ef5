"""What a restart must know of one protected guest."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from remus_agent.errors import RemusError
from remus_agent.store_ports import GuestRecord, GuestStore

log = logging.getLogger(__name__)


class KeptRecord:
    """The guest's durable record. now: as it is known here, which is newer where it could not be written."""

    def __init__(self, record: GuestRecord, store: GuestStore) -> None:
        self.now = record
        self._store = store

    async def save(self, **changes: Any) -> None:
        """Durable when it returns: what follows relies on it. Raises JournalError."""
        self.now = replace(self.now, **changes)
        await self._store.save(self.now)

    async def note(self, **changes: Any) -> None:
        """Keep what a restart must know. A failure to do so is not worse than a crash just before."""
        record = replace(self.now, **changes)
        if record == self.now:
            return
        self.now = record
        try:
            await self._store.save(record)
        except RemusError as error:
            log.error("%s: %s", record.name, error)

    async def forget(self) -> None:
        """There is nothing to be known any more."""
        try:
            await self._store.remove(self.now.name)
        except RemusError as error:
            log.error("%s: %s", self.now.name, error)
