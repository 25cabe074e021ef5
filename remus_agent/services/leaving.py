"""How a guest's output becomes free again: at the end of a protection, and in solo."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from remus_agent.errors import OutputBufferError, RemusError
from remus_agent.machines.primary import Event
from remus_agent.ports import Domain, EventSink, OutputBuffer
from remus_agent.services.disks import DiskSet
from remus_agent.services.ownership import PrimaryRights

log = logging.getLogger(__name__)


class Leaving:
    """Of one guest. disks: its taps, which are taken away with the plugs."""

    def __init__(
        self,
        domain: Domain,
        output: OutputBuffer,
        events: EventSink,
        ownership: PrimaryRights,
        disks: Callable[[], Awaitable[DiskSet | None]],
    ) -> None:
        self.held_because: RemusError | None = None
        """Why output is still held, or a tap still in place, although nothing speaks against ending it."""
        self.closed = False
        """Opening the output has failed last."""
        self._domain = domain
        self._output = output
        self._events = events
        self._ownership = ownership
        self._disks = disks

    async def free_output(self, *, copied: int) -> Event:
        """Let out what is held and take the plugs and the taps away. copied: of which generation there may have been a copy; 0:
        of none."""
        try:
            if copied:
                await require_local_disks(self._disks)  # or the copy must stay one that may be activated
                # On the backup's word or an operator's that there is no copy. The record shall say so too, if it can be reached.
                said, _ = await self._ownership.alone("its protection ends", copied=copied)
                if said is Event.ANOTHER_OWNS:
                    return said
            await self._output.remove()
            await close_disks(self._disks)
        except RemusError as error:
            log.error("%s: %s", self._domain.name, error)
            if self.held_because is None:
                event = "output-not-freed" if isinstance(error, OutputBufferError) else "disks-not-freed"
                self._events.note(self._domain.name, event, reason=str(error))
            self.held_because = error
            return Event.OUTPUT_HELD
        self.held_because = None
        return Event.OUTPUT_FREE

    async def open_output(self) -> str | None:
        """Let out what is held and hold nothing; the plugs stay. Why that failed, if it did: it is tried again with each attempt
        to find a backup, and where those are left to an operator just as often."""
        try:
            await self._output.open()
        except RemusError as error:
            log.error("%s: its output stays held: %s", self._domain.name, error)
            self.closed = True
            return str(error)
        self.closed = False
        return None


async def close_disks(disks: Callable[[], Awaitable[DiskSet | None]], *, given_up: bool = False) -> None:
    """Take a guest's taps away, if it has any. given_up: see `DiskSet.close`. Raises RemusError."""
    found = await disks()
    if found is not None:
        await found.close(given_up=given_up)


async def require_local_disks(disks: Callable[[], Awaitable[DiskSet | None]]) -> None:
    """Raises LocalDiskFailed when the backup's copy is the only good one of a disk, and RemusError when that is not known."""
    found = await disks()
    if found is not None:
        await found.require_local()
