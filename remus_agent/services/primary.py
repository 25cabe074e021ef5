"""Carries out `machines.primary` for one domain: sessions, seeding, epochs, output commit.

The driver is one task: it performs an effect, the effect's outcome is the machine's next event. What an operator asks
arrives between effects or interrupts a wait. How an effect is performed is in modules of its own: `session_parts`, `seeder`,
`epoch_loop`, `leaving`, `stand_down`, `departure`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from remus_agent.errors import RemusError
from remus_agent.machines.epoch import OutputCommit
from remus_agent.machines.primary import HELD, Effect, Event, State
from remus_agent.machines.primary_table import (
    STARTED_AGAIN,
    STARTED_FRESH,
    STARTED_IN_DOUBT,
    STARTED_SOLO,
    STARTED_STOOD_DOWN,
    STARTED_UNFINISHED,
    TABLE,
)
from remus_agent.observe.figures import EpochFigures
from remus_agent.observe.status import DiskStatus, Seeding
from remus_agent.ports import BufferState, Domain, OutputBuffer
from remus_agent.services.announcing import announce
from remus_agent.services.asking import Asked, Lull
from remus_agent.services.departure import Departure
from remus_agent.services.epoch_loop import EpochLoop
from remus_agent.services.epochs import EpochRecord
from remus_agent.services.kept_record import KeptRecord
from remus_agent.services.lasting import lasting
from remus_agent.services.leaving import Leaving, require_local_disks
from remus_agent.services.ownership import PrimaryRights, Unwitnessed
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.retry_events import RetryEvents
from remus_agent.services.seeder import Seeder
from remus_agent.services.session_parts import SessionParts
from remus_agent.services.settings import Settings
from remus_agent.services.stand_down import StandDown
from remus_agent.services.stopping import stop_event
from remus_agent.services.switchover import SwitchoverRequest, resume_guest
from remus_agent.services.trouble import Trouble
from remus_agent.services.unfinished import start_guest
from remus_agent.store_ports import STOOD_DOWN, GuestRecord

log = logging.getLogger(__name__)


class PrimaryService:
    """Protection of one domain on its primary. `run` is its whole life; the other methods may be called meanwhile. resumed:
    an earlier agent began it, so its taps may stand and wait to be served again."""

    def __init__(
        self,
        domain: Domain,
        record: GuestRecord,
        address: str,
        output: OutputBuffer,
        ports: PrimaryPorts,
        settings: Settings,
        *,
        resumed: bool = False,
        solo: bool = False,
        ownership: PrimaryRights | None = None,
        destroy: Callable[[Domain], Awaitable[None]],
        depart: Callable[[Domain], Awaitable[None]],
    ) -> None:
        self.domain = domain
        self._begin = beginning(record, solo=solo)
        self.state = self._begin[0]
        self.ownership: PrimaryRights = ownership or Unwitnessed()
        self.since = ports.clock.now()
        self.changed = asyncio.Event()
        self.finished = False
        self.defect: str | None = None
        """What ended `run` although nobody has foreseen it."""
        self.lull = Lull()
        self.switchover = SwitchoverRequest()
        self._output = output
        self._ports = ports
        self._settings = settings
        self._asked = Asked()
        self._retries = RetryEvents()
        self._announcing: asyncio.Task[None] | None = None
        rights = self.ownership
        self._kept = kept = KeptRecord(record, ports.store)
        self._trouble = trouble = Trouble(domain.name)
        self._parts = parts = SessionParts(
            domain, address, output, ports, settings, rights, kept, self._disk_failed, resumed=resumed
        )
        self._epochs = EpochLoop(
            domain.name, output, ports, settings, rights, parts, kept, trouble, self._asked, self.switchover
        )
        self._seeder = Seeder(output, ports.clock, parts, self._epochs, kept, trouble, self._asked)
        self._leaving = Leaving(domain, output, ports.events, rights, parts.disks_left)
        self._stand_down = StandDown(
            domain, output, ports, rights, parts, kept, trouble, destroy, self._asked, self._retry
        )
        self._departure = Departure(
            domain,
            address,
            ports,
            settings,
            rights,
            parts,
            self._epochs,
            kept,
            trouble,
            self.switchover,
            self._alone,
            depart,
        )
        self._perform: dict[Effect, Callable[[], Awaitable[Event | None]]] = {
            Effect.OPEN_SESSION: self._open_session,
            Effect.SEED: self._seeder.run,
            Effect.RUN_EPOCHS: self._epochs.run,
            Effect.ABANDON_SESSION: parts.abandon,
            Effect.WAIT_FOR_RETRY: self._wait_for_retry,
            Effect.DISCARD_COPY: self._discard_copy,
            Effect.FREE_OUTPUT: lambda: self._leaving.free_output(
                copied=self.record.generation if self.record.committed else 0
            ),
            Effect.REGISTER: self._register,
            Effect.BECOME_SOLE_OWNER: self._become_sole_owner,
            Effect.OPEN_OUTPUT: self._open_output,
            Effect.PAUSE_GUEST: self._stand_down.pause,
            Effect.AWAIT_OWNER: self._stand_down.await_owner,
            Effect.TAKE_BACK: self._stand_down.resume,
            Effect.DESTROY_STALE_GUEST: self._stand_down.destroy,
            Effect.START_GUEST: self._start_guest,
            Effect.FORGET: self._forget,
            Effect.TAKE_LAST: self._departure.take_last,
            Effect.HAND_OVER: self._departure.hand_over,
            Effect.ASK_OUTCOME: lambda: self._departure.ask_outcome(self.since),
            Effect.RESUME_GUEST: self._resume_guest,
            Effect.DESTROY_HANDED: self._departure.destroy,
        }

    # What is known of it

    @property
    def record(self) -> GuestRecord:
        """What a restart must know."""
        return self._kept.now

    @property
    def reason(self) -> str | None:
        """Why it is as it is, for people."""
        return self._trouble.reason

    @property
    def error(self) -> RemusError | None:
        """What failed last."""
        return self._trouble.error

    @property
    def epochs(self) -> deque[EpochRecord]:
        """Figures of the newest epochs."""
        return self._epochs.records

    @property
    def figures(self) -> EpochFigures:
        """Every epoch since the agent started, added up."""
        return self._epochs.figures

    @property
    def commit(self) -> OutputCommit:
        """What of the running epochs is committed."""
        return self._epochs.commit

    @property
    def acked_epoch(self) -> int:
        """The newest epoch of the session that is acknowledged."""
        return self._epochs.acked

    @property
    def last_ack(self) -> float | None:
        """When that was; None: never."""
        return self._epochs.last_ack

    @property
    def session_id(self) -> str | None:
        """The session that runs now."""
        return self._parts.session.id if self._parts.session else None

    @property
    def heard(self) -> float | None:
        """When anything came from the backup; None: never."""
        return self._parts.session.last_heard if self._parts.session else self.last_ack

    @property
    def held_because(self) -> RemusError | None:
        """Why output is still held, or a tap still in place, although nothing speaks against ending it."""
        return self._leaving.held_because

    @property
    def seeding(self) -> Seeding | None:
        """How far the copy at the start of the session is."""
        return self._seeder.progress

    @property
    def disks(self) -> tuple[DiskStatus, ...]:
        """Each protected disk."""
        return self._parts.disks.status() if self._parts.disks is not None else ()

    async def buffer_state(self) -> BufferState:
        """What the plugs hold now."""
        return await self._output.state()

    # What others want of it

    def ask_stop(self, *, force: bool) -> None:
        """End protection. Raises RefusedError when the copy's end can't be confirmed and `force` doesn't vouch for it."""
        self._asked.put(self.require_stop(force=force))

    def require_stop(self, *, force: bool) -> Event:
        """What `ask_stop` would ask for now. Raises as it does, and changes nothing."""
        witnessed = not isinstance(self.ownership, Unwitnessed)
        return stop_event(self.domain.name, self.state, self.record.peer, witnessed=witnessed, force=force)

    def owner_runs(self) -> None:
        """The owner of the guest that was given up here has opened a session."""
        self._stand_down.owner_runs()

    async def require_local_disks(self) -> None:
        """Raises DiskError when the backup's copy is the only good one of a disk."""
        await require_local_disks(self._parts.disks_left)

    # The driver

    async def run(self) -> None:
        """Live until a terminal state. On cancellation (the agent stops) the guest runs on with its output held as it is."""
        effects: tuple[Effect, ...]
        self.state, effects = self._begin
        devices = partial(self._parts.devices.run, lambda: self._parts.session, lambda: self.state in HELD)
        watching = asyncio.create_task(self._lasting(devices, "the look at its devices"))
        try:
            while effects:
                event: Event | None = None
                for effect in effects:
                    event = await self._perform[effect]()
                if event is None:
                    break
                effects = self._advance(event)
            self.finished = True
            self._touch()
        finally:
            watching.cancel()
            try:
                await asyncio.shield(self._parts.abandon())
            finally:
                if self._parts.disks is not None:
                    await self._parts.disks.leave()

    def _advance(self, event: Event) -> tuple[Effect, ...]:
        row = TABLE.step(self.state, event)
        if row.then is not self.state:
            log.info("%s: %s -> %s: %s", self.domain.name, self.state.value, row.then.value, event.value)
            self.since = self._ports.clock.now()
            detail = self._retries.detail(row.then, self.reason)
            if detail is not None:
                self._ports.events.note(
                    self.domain.name, row.then.value, epoch=self.acked_epoch or None, because=event.value, **detail
                )
        self.state = row.then
        self.switchover.moved(row.then)
        if row.then is State.PROTECTED:
            self._trouble.reason = None
        self._touch()
        return row.effects

    def _touch(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _lasting(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        ports = self._ports
        await lasting(work, what, ports.clock, ports.events, self._settings.retry, guest=self.domain.name)

    def _disk_failed(self, vdev: str, error: RemusError) -> None:
        self._ports.events.note(
            self.domain.name, "local-disk-failed", epoch=self.acked_epoch or None, vdev=vdev, reason=str(error)
        )

    # Effects: each returns the machine's next event, or None when another effect follows.

    async def _open_session(self) -> Event:
        try:
            await self._parts.open()
        except RemusError as error:
            return self._trouble.failed(error)
        return Event.SESSION_OPENED

    async def _retry(self) -> None:
        await self._ports.clock.sleep(self._settings.retry)

    async def _wait_for_retry(self) -> Event:
        if self.state is State.SILENT:
            await self._parts.devices.hold()
        manual = self.state is State.SOLO and not self._settings.automatic_reprotect
        while True:
            due = None if manual and not self._leaving.closed else self._retry
            asked = await self._asked.interrupts(self.lull.wait(due))
            if asked is not None:
                return asked
            if self.lull.ended or not manual:
                break
            # Only an operator looks for a backup; what could not be opened is tried again all the same.
            await self._open_output()
        alone = self.state is State.SILENT and self.ownership.solo_due(self._parts.heard_at)
        return Event.SOLO_DUE if alone else Event.RETRY_DUE

    async def _discard_copy(self) -> Event:
        session, _, disks = self._parts.in_session()
        try:
            await disks.require_local()
            await session.discard_copy()
        except RemusError as error:
            return self._trouble.failed(error)
        return Event.COPY_DISCARDED

    async def _register(self) -> None:
        session, _, _ = self._parts.in_session()
        self.ownership.register(session, self.record.generation)

    async def _become_sole_owner(self) -> Event:
        why = f"the backup {self.record.peer} cannot be reached"
        if self.state is State.STARTING:
            why = "it was built here and about to run when its agent died"
            self._trouble.reason = f"{why}: it is paused until the witness has said again that this host may run it"
        return await self._alone(why)

    async def _alone(self, why: str) -> Event:
        try:
            await self.require_local_disks()
        except RemusError as error:
            # The copy is the only good one of a disk: it must stay one that may be activated.
            log.critical("%s: stays silent: %s", self.domain.name, error)
            self._trouble.reason = str(error)
            return Event.WITNESS_SILENT
        copied = self.record.generation if self.record.committed else 0
        event, generation = await self.ownership.alone(why, copied=copied)
        if event is Event.SOLE_OWNER:
            self._parts.heard_at = self._ports.clock.now()
            await self._kept.note(generation=generation or self.record.generation, committed=False)
        return event

    async def _open_output(self) -> None:
        await self._kept.note(committed=False)
        was_closed = self._leaving.closed
        failed = await self._leaving.open_output()
        if failed or was_closed:
            self._trouble.reason = failed

    async def _start_guest(self) -> None:
        """See services/unfinished.py."""
        ports = self._ports
        if await start_guest(self.domain, ports.hypervisor, ports.events, self._retry):
            self._trouble.reason = None
            work = announce(ports.announcer, self.domain, ports.events)
            self._announcing = asyncio.create_task(work, name=f"announce {self.domain.name}")
        await self._kept.note(starting="")

    async def _resume_guest(self) -> Event | None:
        running = await resume_guest(
            self.domain,
            self._ports.hypervisor,
            self._ports.events,
            self._retry,
        )
        await self._kept.note(handed=None)
        gone = not running and TABLE.accepts(self.state, Event.GUEST_ENDED)
        return Event.GUEST_ENDED if gone else None

    async def _forget(self) -> None:
        await self._kept.forget()
        self._touch()


def beginning(record: GuestRecord, *, solo: bool) -> tuple[State, tuple[Effect, ...]]:
    """In which state a protection begins, and what is done first. solo: see `Primaries.start`."""
    if record.role == STOOD_DOWN:
        return STARTED_STOOD_DOWN
    if record.handed is not None:
        return STARTED_IN_DOUBT
    if record.starting:
        return STARTED_UNFINISHED
    return STARTED_AGAIN if record.committed else STARTED_SOLO if solo else STARTED_FRESH


def is_over(service: PrimaryService) -> bool:
    """Whether the service has reached a terminal state and carried out all that belongs to it."""
    return service.finished
