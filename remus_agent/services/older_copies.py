"""What becomes of a domain's older copies when a newer session begins, and when it has committed.

A committed copy is destroyed only after the arriving one has committed, so a primary that comes back and dies again loses
nothing; where memory does not suffice for both, or a disk stands in the way, the older is given up first, which is noted.
"""

from __future__ import annotations

import asyncio
import logging

from remus_agent.errors import RemusError
from remus_agent.faults import FaultName, active
from remus_agent.machines.backup import Event, State
from remus_agent.ports import EventSink
from remus_agent.protocol.replication.messages import Hello
from remus_agent.services.copies import LEFT, Copies
from remus_agent.services.copy import Copy
from remus_agent.services.examine import needed_kib
from remus_agent.services.replica_set import DomainReplicas, facts_of

log = logging.getLogger(__name__)


class OlderCopies:
    """Of one host."""

    def __init__(self, copies: Copies, events: EventSink) -> None:
        self._copies = copies
        self._events = events
        self._clearing: set[asyncio.Task[None]] = set()

    def leave_behind(self, hello: Hello) -> None:
        """The primary has run on without the copies of lower generations, and owns the guest: nobody may activate them by
        himself. They are kept until this session has committed, because they are all there is should the primary be lost."""
        for old in self._copies.of(hello.domain):
            if old.state is State.ORPHANED and old.generation < hello.generation:
                old.give_up(Event.STALE)
        self._copies.forget_active(hello.domain)

    async def make_room(self, hello: Hello, free_kib: int, replicas: DomainReplicas) -> None:
        """Give up what the new session has no room beside. free_kib: of memory."""
        if free_kib < needed_kib(hello):
            await self.give_up(hello, "memory does not suffice for two", free_kib=free_kib)
        elif replicas.differ(facts_of(hello.disks)):
            await self.give_up(hello, "a disk has another size now")
        elif hello.disks and any(old.built for old in self._copies.of(hello.domain) if old.state in LEFT):
            await self.give_up(hello, "it was built to run here, and holds the disks")

    def hold_disk(self, hello: Hello, vdev: str) -> bool:
        """Whether one of another session needs this disk as it is."""
        return any(
            old.hello.session != hello.session
            and old.state in (*LEFT, State.ACTIVATING)
            and vdev in {disk.vdev for disk in old.hello.disks}
            for old in self._copies.of(hello.domain)
        )

    async def give_up(self, hello: Hello, why: str, **detail: object) -> None:
        """Destroy those of other sessions now."""
        for old in self._copies.of(hello.domain):
            if old.hello.session != hello.session and old.state in LEFT:
                log.warning("%s: the older copy is given up: %s", hello.domain, why)
                self._events.note(hello.domain, "older-copy-given-up", epoch=old.committed_epoch, reason=why, **detail)
                await old.discard(Event.SUPERSEDED)

    def supersede(self, newest: Copy) -> None:
        """A new session has committed, and nobody has heard of it yet: older copies can't be activated any more from here on, and
        are destroyed beside the epoch loop."""
        if active(FaultName.OLDER_COPY_KEPT):
            return
        for old in self._copies.of(newest.hello.domain):
            if old is not newest and old.state in LEFT:
                old.give_up(Event.SUPERSEDED)
                task = asyncio.create_task(self._clear_up(old), name=f"supersede {newest.hello.domain}")
                self._clearing.add(task)
                task.add_done_callback(self._clearing.discard)

    async def _clear_up(self, old: Copy) -> None:
        """Nobody waits for it, so what goes wrong is said here."""
        name, epoch = old.hello.domain, old.committed_epoch
        try:
            await old.clear_up()
        except RemusError as error:
            log.error("%s: an older copy that a newer one has replaced is not cleared up: %s", name, error)
            self._events.note(name, "older-copy-stays", epoch=epoch, copy=old.working_name, reason=str(error))
        except Exception as defect:
            log.critical("%s: an older copy is not cleared up, by a defect", name, exc_info=True)
            self._events.note(name, "defect", epoch=epoch, copy=old.working_name, reason=repr(defect))

    async def cleared(self, seconds: float) -> None:
        """Returns when those are gone that were superseded, or after so many seconds."""
        if self._clearing:
            _, left = await asyncio.wait(self._clearing, timeout=seconds)
            for task in left:
                log.error("%s: not done within %g s: it is left to the next agent", task.get_name(), seconds)
