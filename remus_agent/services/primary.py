"""Carries out `machines.primary` for one domain: sessions, seeding, epochs, output commit.

The driver is one task: it performs an effect, the effect's outcome is the machine's next event. What an operator asks
arrives between effects or interrupts a wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from remus_agent.errors import (
    AnotherOwner,
    GuestEnded,
    OwnershipLost,
    PeerError,
    PeerRefused,
    PeerTimeout,
    RefusedError,
    RemusError,
)
from remus_agent.faults import FaultName, active, pause_at
from remus_agent.machines.epoch import OutputCommit
from remus_agent.machines.primary import (
    HELD,
    NOT_OURS,
    STARTED_AGAIN,
    STARTED_FRESH,
    STARTED_IN_DOUBT,
    STARTED_SOLO,
    STARTED_STOOD_DOWN,
    STARTED_UNFINISHED,
    TABLE,
    Effect,
    Event,
    State,
)
from remus_agent.observe.figures import EpochFigures
from remus_agent.observe.status import DiskStatus, Seeding
from remus_agent.ports import STOOD_DOWN, BufferState, Checkpoint, Domain, GuestRecord, OutputBuffer, Source
from remus_agent.services.announcing import announce
from remus_agent.services.asking import Asked, Pause
from remus_agent.services.attached import DeviceWatch
from remus_agent.services.copying import CopyMeter
from remus_agent.services.disks import DiskSet
from remus_agent.services.epochs import EpochRecord
from remus_agent.services.leaving import Leaving, close_disks
from remus_agent.services.ownership import PrimaryRights, Unwitnessed
from remus_agent.services.primary_ports import PrimaryPorts, hello_for
from remus_agent.services.session import PrimarySession, open_session
from remus_agent.services.settings import Settings
from remus_agent.services.stand_down import StandDown
from remus_agent.services.switchover import SwitchoverRequest, ask_backup, resume_guest
from remus_agent.services.unfinished import start_guest

log = logging.getLogger(__name__)

KEPT_EPOCHS = 4096


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
        self.record = record
        self._begin = _begin(record, solo=solo)
        self.state = self._begin[0]
        self.ownership: PrimaryRights = ownership or Unwitnessed()
        self.since = ports.clock.now()
        self.reason: str | None = None
        self.error: RemusError | None = None
        self._memory_seeding: Seeding | None = None
        self._disk_meter: CopyMeter | None = None
        self.epochs: deque[EpochRecord] = deque(maxlen=KEPT_EPOCHS)
        self.figures = EpochFigures()
        self.commit = OutputCommit()
        self.acked_epoch = 0
        self.last_ack: float | None = None
        self.changed = asyncio.Event()
        self.finished = False
        self._address = address
        self._output = output
        self._ports = ports
        self._settings = settings
        self._session: PrimarySession | None = None
        self._source: Source | None = None
        self._resumed = resumed
        self._disks: DiskSet | None = None
        self._devices = DeviceWatch(domain, output, ports.hypervisor, ports.clock, resumed=resumed)
        self._asked = Asked()
        self.pause = Pause()
        self.switchover = SwitchoverRequest()
        self._depart = depart
        self._announcing: asyncio.Task[None] | None = None
        self._resumed_at = 0.0
        self._heard_at = ports.clock.now()
        """When the backup last acknowledged anything, or this began."""
        self._leaving = Leaving(domain, output, ports.events, self.ownership, self._disks_left)
        self._stand_down = StandDown(
            domain,
            output,
            ports.hypervisor,
            ports.events,
            self.ownership,
            self._disks_left,
            destroy,
            self._asked,
            self._retry,
        )
        self._perform: dict[Effect, Callable[[], Awaitable[Event | None]]] = {
            Effect.OPEN_SESSION: self._open_session,
            Effect.SEED: self._seed,
            Effect.RUN_EPOCHS: self._run_epochs,
            Effect.ABANDON_SESSION: self._abandon_session,
            Effect.WAIT_FOR_RETRY: self._wait_for_retry,
            Effect.DISCARD_COPY: self._discard_copy,
            Effect.FREE_OUTPUT: lambda: self._leaving.free_output(committed=self.record.committed),
            Effect.REGISTER: self._register,
            Effect.BECOME_SOLE_OWNER: self._become_sole_owner,
            Effect.OPEN_OUTPUT: self._open_output,
            Effect.PAUSE_GUEST: self._pause_guest,
            Effect.AWAIT_OWNER: self._await_owner,
            Effect.TAKE_BACK: self._take_back,
            Effect.DESTROY_STALE_GUEST: self._stand_down.destroy,
            Effect.START_GUEST: self._start_guest,
            Effect.FORGET: self._forget,
            Effect.TAKE_LAST: self._take_last,
            Effect.HAND_OVER: self._hand_over,
            Effect.ASK_OUTCOME: self._ask_outcome,
            Effect.RESUME_GUEST: self._resume_guest,
            Effect.DESTROY_HANDED: self._destroy_handed,
        }

    @property
    def session_id(self) -> str | None:
        """The session that runs now."""
        return self._session.id if self._session else None

    @property
    def heard(self) -> float | None:
        """When anything came from the backup; None: never."""
        return self._session.last_heard if self._session else self.last_ack

    @property
    def held_because(self) -> RemusError | None:
        """Why output is still held, or a tap still in place, although nothing speaks against ending it."""
        return self._leaving.held_because

    @property
    def seeding(self) -> Seeding | None:
        """How far the copy at the start of the session is."""
        if self._disk_meter is not None and self._disks is not None:
            progress = self._disks.progress
            return self._disk_meter.at(progress.done, progress.total)
        return self._memory_seeding

    @property
    def disks(self) -> tuple[DiskStatus, ...]:
        """Each protected disk."""
        return self._disks.status() if self._disks is not None else ()

    async def run(self) -> None:
        """Live until a terminal state. On cancellation (the agent stops) the guest runs on with its output held as it is."""
        effects: tuple[Effect, ...]
        self.state, effects = self._begin
        watching = asyncio.create_task(self._devices.run(lambda: self._session, lambda: self.state in HELD))
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
            await asyncio.shield(self._abandon_session())
            if self._disks is not None:
                await self._disks.leave()

    async def buffer_state(self) -> BufferState:
        """What the plugs hold now."""
        return await self._output.state()

    def ask_stop(self, *, force: bool) -> None:
        """End protection. Refused when the copy's end can't be confirmed and `force` doesn't vouch for it."""
        event = Event.STOP_FORCED if force else Event.STOP_ASKED
        if not force and self.state in (State.HANDED, State.IN_DOUBT):
            raise RefusedError(
                f"it was handed over to {self.record.peer}, which has not said whether it runs it",
                operation="unprotect",
                domain=self.domain.name,
                left="the guest is down here, its output is held",
                hint=f"make sure that {self.record.peer} does not run it, and repeat with --force: then it goes on here",
            )
        if not force and self.state is State.STARTING:
            raise RefusedError(
                "it was taken over and has not run here yet: the witness has to say again that this host may run it",
                operation="unprotect",
                domain=self.domain.name,
                left="the guest is paused here",
                hint="it runs as soon as the witness can be asked; where it is not wanted any more, --force destroys it here",
            )
        unsure = self.state in (State.SILENT, State.RECONNECTING)
        if not force and self.state in NOT_OURS:
            raise RefusedError(
                "another host owns it, and has not shown that it runs it: the guest that is paused here may be the only one",
                operation="unprotect",
                domain=self.domain.name,
                left="the guest is paused here",
                hint="see `remusctl status` on the other host; where it runs there, or is not wanted any more, --force destroys"
                " the paused guest here",
            )
        if not force and unsure and not isinstance(self.ownership, Unwitnessed):
            event = Event.RETIRE_ASKED
        elif not force and unsure:
            raise RefusedError(
                "the backup can't be asked to discard its copy, so nobody knows whether it will be activated",
                operation="unprotect",
                domain=self.domain.name,
                left="the guest runs, its output is held",
                hint="repair the backup or the link; or destroy the copy there and repeat with --force",
            )
        self._asked.put(event)

    def _advance(self, event: Event) -> tuple[Effect, ...]:
        row = TABLE.step(self.state, event)
        if row.then is not self.state:
            log.info("%s: %s -> %s: %s", self.domain.name, self.state.value, row.then.value, event.value)
            self.since = self._ports.clock.now()
            self._ports.events.note(
                self.domain.name,
                row.then.value,
                epoch=self.acked_epoch or None,
                because=event.value,
                **({"reason": self.reason} if self.reason else {}),
            )
        self.state = row.then
        self.switchover.moved(row.then)
        if row.then is State.PROTECTED:
            self.reason = None
        self._touch()
        return row.effects

    def _touch(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    # Effects: each returns the machine's next event, or None when another effect follows.

    async def _open_session(self) -> Event:
        try:
            domain = await self._ports.hypervisor.domain(self.domain.name)
            if domain.uuid != self.domain.uuid:
                raise GuestEnded("another domain has taken its name", domain=domain.name)
            disks = await self._known_disks(domain)
            if self._resumed:
                await disks.open()  # first of all: the guest's writes wait for it
            held = self.record.committed
            await self._devices.adopt(domain, hold=held)
            self._source = await self._ports.hypervisor.open_source(domain)
            await self._note(generation=await self.ownership.before_session(self.record.generation, held=held))
            facts = await self._ports.hypervisor.facts()
            hello = hello_for(
                domain,
                facts,
                self._settings.host,
                generation=self.record.generation,
                purpose="protect",
                disks=disks.hello,
            )
            session = await open_session(self._ports.connector, self._address, hello, self._settings, self._ports.clock)
            self._session = session
            await disks.open()
            await session.guard(disks.connect(self._ports.connector, self._address, hello, session))
        except RemusError as error:
            return self._failed(error)
        return Event.SESSION_OPENED

    async def _known_disks(self, domain: Domain) -> DiskSet:
        """The domain's disks, the same in every session."""
        if self._disks is None:
            taps = await self._ports.taps.of(domain)
            self._devices.cover(domain)
            self._disks = DiskSet(
                taps,
                self._settings,
                self._ports.clock,
                left_open=self._resumed,
                on_failure=lambda vdev, error: self._ports.events.note(
                    domain.name, "local-disk-failed", epoch=self.acked_epoch or None, vdev=vdev, reason=str(error)
                ),
            )
        return self._disks

    async def require_local_disks(self) -> None:
        """Raises DiskError when the backup's copy is the only good one of a disk."""
        if self._disks is not None:
            await self._disks.require_local()

    async def _seed(self) -> Event:
        session, source, disks = self._in_session()
        try:
            closed = self.record.committed and not active(FaultName.RESTART_OPENS_OUTPUT)
            await self._output.install(closed=closed)
            names = frozenset[str]() if active(FaultName.DISK_ACK_IGNORED) else disks.names
            self.commit = OutputCommit(disks=names)
            asked = await self._copy_disks(session, disks)
            if asked is not None:
                return asked
            await source.begin()
            await session.send_preamble(source.preamble)
            pages = 0
            meter = CopyMeter(self._ports.clock, "pages")
            async for piece in source.seed():
                await session.send_records(1, piece.records)
                pages += piece.pages
                self._memory_seeding = meter.at(piece.done, piece.total)
                asked = self._asked.next()
                if asked is not None:
                    return asked
            event = await self._one_epoch(1, seeded_pages=pages)
            if event is not None:
                return event
        except RemusError as error:
            event = self._failed(error)
            uncertain = event is Event.SESSION_LOST and self.commit.waiting == 1
            return Event.COMMIT_UNCERTAIN if uncertain else event
        finally:
            self._memory_seeding = None
        return Event.COMMITTED

    async def _copy_disks(self, session: PrimarySession, disks: DiskSet) -> Event | None:
        """Before memory, which takes less time: what the guest writes to its disks meanwhile belongs to epoch 1 as well."""
        if not disks.names:
            return None
        self._disk_meter = CopyMeter(self._ports.clock, "bytes")
        try:
            return await self._asked.interrupts(session.guard(disks.copy()))
        finally:
            self._disk_meter = None

    async def _run_epochs(self) -> Event:
        try:
            while True:
                asked = self._asked.next() or await self._pace()
                if asked is not None:
                    return asked
                if self.switchover.asked:
                    return Event.SWITCHOVER_ASKED
                event = await self._one_epoch(self.commit.running)
                if event is not None:
                    return event
        except RemusError as error:
            return self._failed(error)

    async def _one_epoch(self, epoch: int, seeded_pages: int = 0, *, last: bool = False) -> Event | None:
        """Take, send and commit one checkpoint, then release its output. An event when an operator interrupts the wait. last: the
        guest stays down."""
        session, source, disks = self._in_session()
        clock = self._ports.clock
        if epoch == 1:
            # From here on the backup may commit without our hearing of it: a restart must find output held.
            if not self.record.committed:
                self._heard_at = clock.now()
            self.record = replace(self.record, committed=True)
            await self._ports.store.save(self.record)
        pause_at("before-suspend")
        started = clock.now()
        checkpoint = await source.checkpoint(epoch, self._at_barrier, self._settings.suspend, stay_down=last)
        self._resumed_at = clock.now()
        pause_at("resumed")
        sent_bytes = await self._ship(session, checkpoint, seeded_pages, last=last)
        sent = clock.now()
        pause_at("awaiting-ack")
        if active(FaultName.ACK_WAIT_REMOVED):
            self.commit = replace(self.commit, memory=True, disks_acked=self.commit.disks)
        elif epoch == 1 or last:
            # Not to be interrupted: whether the backup has committed must be known before anything else is decided.
            await self._acknowledged(session, disks, epoch)
        else:
            event = await self._asked.interrupts(self._acknowledged(session, disks, epoch))
            if event is not None:
                return event
        self.last_ack = self._heard_at = clock.now()
        pause_at("acked")
        if last:
            # A guest that is down looks like one that is on its way out, so that nobody has compared its devices.
            self._devices.compare(await self._ports.hypervisor.domain(self.domain.name))
        await self.ownership.may_release(sent, self.record.generation)
        if self.commit.releasable == epoch:
            await self._output.release()
            self.commit = self.commit.released(epoch)
        self.acked_epoch = epoch
        previous = self.epochs[-1].started if self.epochs and epoch > 1 else None
        figures = disks.figures(epoch, sent)
        ack = self.last_ack - sent
        record = EpochRecord.of(checkpoint, sent_bytes, started, sent - self._resumed_at, ack, previous, figures)
        self.epochs.append(record)
        record.add_to(self.figures)
        return None

    async def _acknowledged(self, session: PrimarySession, disks: DiskSet, epoch: int) -> None:
        """Wait for memory's acknowledgement, which says that everything is committed, and for every disk's."""
        await self._devices.during(session.wait_ack(epoch))
        self.commit = self.commit.memory_ack(epoch)
        disks.committed(epoch)
        if self.commit.disks:
            for name in await session.guard(disks.wait_ack(epoch)):
                self.commit = self.commit.disk_ack(epoch, name)

    async def _ship(self, session: PrimarySession, checkpoint: Checkpoint, seeded_pages: int, *, last: bool) -> int:
        sent = 0
        for group in checkpoint.records:
            sent += await session.send_records(checkpoint.epoch, group)
        pause_at("sending")
        await session.end_epoch(checkpoint.epoch, checkpoint.pages + seeded_pages, last=last)
        return sent

    def _at_barrier(self) -> None:
        """In the suspended window: the running epoch ends here, for output and disks alike."""
        pause_at("suspended")
        self.commit = self.commit.barrier(self.commit.running)
        self._output.barrier()
        if self._disks is not None:
            self._disks.barrier(self.commit.running - 1)

    async def _pace(self) -> Event | None:
        """Let the guest run for the interval since it was resumed."""
        left = self._resumed_at + self.record.interval_ms / 1000 - self._ports.clock.now()
        if left <= 0:
            return None
        return await self._asked.interrupts(self.switchover.cuts_short(lambda: self._ports.clock.sleep(left)))

    async def _abandon_session(self) -> None:
        await self.ownership.forget()
        session, self._session = self._session, None
        source, self._source = self._source, None
        if self._disks is not None:
            await self._disks.end()
        if session is not None:
            await session.close()
        if source is not None:
            try:
                await source.close()
            except RemusError as error:
                log.error("%s: %s", self.domain.name, error)

    async def _retry(self) -> None:
        await self._ports.clock.sleep(self._settings.retry)

    async def _wait_for_retry(self) -> Event:
        if self.state is State.SILENT:
            await self._devices.hold()
        manual = self.state is State.SOLO and not self._settings.automatic_reprotect
        due = None if manual else self._retry
        asked = await self._asked.interrupts(self.pause.wait(due))
        if asked is not None:
            return asked
        alone = self.state is State.SILENT and self.ownership.solo_due(self._heard_at)
        return Event.SOLO_DUE if alone else Event.RETRY_DUE

    async def _discard_copy(self) -> Event:
        session, _, disks = self._in_session()
        try:
            await disks.require_local()
            await session.discard_copy()
        except RemusError as error:
            return self._failed(error)
        return Event.COPY_DISCARDED

    async def _register(self) -> None:
        session, _, _ = self._in_session()
        self.ownership.register(session, self.record.generation)

    async def _become_sole_owner(self) -> Event:
        why = f"the backup {self.record.peer} cannot be reached"
        if self.state is State.STARTING:
            why = "it was built here and about to run when its agent died"
            self.reason = f"{why}: it is paused until the witness has said again that this host may run it"
        event, generation = await self.ownership.alone(why)
        if event is Event.SOLE_OWNER:
            self._heard_at = self._ports.clock.now()
            await self._note(generation=generation or self.record.generation, committed=False)
        return event

    async def _open_output(self) -> None:
        await self._note(committed=False)
        self.reason = await self._leaving.open_output() or self.reason

    async def _start_guest(self) -> None:
        """See services/unfinished.py."""
        ports = self._ports
        if await start_guest(
            self.domain, ports.hypervisor, ports.events, lambda: ports.clock.sleep(self._settings.retry)
        ):
            self.reason = None
            work = announce(ports.announcer, self.domain, ports.events)
            self._announcing = asyncio.create_task(work, name=f"announce {self.domain.name}")
        await self._note(starting="")

    # Another host owns it; see services/stand_down.py

    async def _pause_guest(self) -> Event:
        # First what a restart must find: whatever comes, this guest is another host's.
        await self._note(role=STOOD_DOWN, committed=True, starting="")
        return await self._stand_down.pause()

    async def _await_owner(self) -> Event:
        self.reason = (
            f"another host owns it; the guest is paused here until {self.record.peer} opens a session, which shows that it"
            " runs it, or gives it back"
        )
        return await self._stand_down.await_owner(self.record.generation)

    async def _take_back(self) -> Event:
        event = await self._stand_down.resume()
        if event is Event.GUEST_RESUMED:
            self.reason = None
            self._heard_at = self._ports.clock.now()
            await self._note(role="primary", handed=None)
        return event

    def owner_runs(self) -> None:
        """The owner of the guest that was given up here has opened a session."""
        self._stand_down.owner_runs()

    # A switchover; see services/switchover.py

    async def _take_last(self) -> Event:
        seconds = self.switchover.seconds
        try:
            async with asyncio.timeout(seconds):
                await self._one_epoch(self.commit.running, last=True)
        except TimeoutError:
            return self._failed(
                PeerTimeout(f"the last epoch was not committed within {seconds:g} s", operation="switchover")
            )
        except RemusError as error:
            return self._failed(error)
        return Event.LAST_COMMITTED

    async def _hand_over(self) -> Event:
        session, source, _ = self._in_session()
        try:
            self.record = replace(self.record, handed=session.id)
            await self._ports.store.save(self.record)
            await source.leave_down()
            if session.over is not None:
                raise session.over  # nothing is sent any more
        except RemusError as error:
            self._failed(error)
            return Event.DECLINED
        if active(FaultName.SWITCHOVER_RESUMES):
            await self._ports.hypervisor.resume(self.domain)
        try:
            outcome = await session.hand_over(self._settings.activate + self._settings.ack)
        except RemusError as error:
            self._failed(error)
            return Event.SESSION_LOST
        if outcome.result == "running":
            return Event.TAKEN_OVER
        self._failed(PeerError(f"the backup does not run it: {outcome.reason}", operation="switchover"))
        return Event.DECLINED if outcome.result == "declined" else Event.SESSION_LOST

    async def _ask_outcome(self) -> Event:
        answer = await ask_backup(
            self._ports.connector, self._address, self.record.handed or "", self.domain, self._settings
        )
        if answer is not None:
            self.reason = answer.reason or self.reason
            if answer.result != "unknown":
                return Event.TAKEN_OVER if answer.result == "running" else Event.DECLINED
        if await self.ownership.handed_back(self.record.generation):
            return Event.HANDED_BACK
        if answer is None or self.ownership.solo_due(self._heard_at) or self._in_doubt_for_long():
            event, generation = await self.ownership.alone("a switchover whose outcome the backup does not say")
            if event is Event.SOLE_OWNER:
                self._heard_at = self._ports.clock.now()
                await self._note(generation=generation or self.record.generation, committed=False)
            if event is not Event.WITNESS_SILENT:
                return event
        return Event.OUTCOME_UNKNOWN

    def _in_doubt_for_long(self) -> bool:
        """Longer than an activation takes that goes well."""
        return self._ports.clock.now() - self.since >= self._settings.activate

    async def _resume_guest(self) -> Event | None:
        running = await resume_guest(
            self.domain,
            self._ports.hypervisor,
            self._ports.events,
            self._retry,
        )
        await self._note(handed=None)
        gone = not running and TABLE.accepts(self.state, Event.GUEST_ENDED)
        return Event.GUEST_ENDED if gone else None

    async def _destroy_handed(self) -> Event:
        try:
            await self._depart(self.domain)
            await close_disks(self._disks_left)
        except RemusError as error:
            self._failed(error)
            self._ports.events.note(self.domain.name, "handed-over-guest-stands", reason=str(error))
            return Event.GUEST_STANDS
        self.reason = f"it was moved to {self.record.peer}"
        return Event.GUEST_GONE

    async def _disks_left(self) -> DiskSet | None:
        """Also those that an earlier agent has left."""
        if self._disks is None and self._resumed:
            try:
                await self._known_disks(self.domain)
            except RefusedError as error:
                log.warning("%s: its disks are not known any more: %s", self.domain.name, error)
        return self._disks

    async def _note(self, **changes: Any) -> None:
        """Keep what a restart must know. A failure to do so is not worse than a crash just before."""
        record = replace(self.record, **changes)
        if record == self.record:
            return
        self.record = record
        try:
            await self._ports.store.save(record)
        except RemusError as error:
            log.error("%s: %s", self.domain.name, error)

    async def _forget(self) -> None:
        try:
            await self._ports.store.remove(self.domain.name)
        except RemusError as error:
            log.error("%s: %s", self.domain.name, error)
        self._touch()

    def _in_session(self) -> tuple[PrimarySession, Source, DiskSet]:
        if self._session is None or self._source is None or self._disks is None:
            raise RuntimeError("effect outside of a session")
        return self._session, self._source, self._disks

    def _failed(self, error: RemusError) -> Event:
        error.domain = error.domain or self.domain.name
        self.reason = str(error)
        self.error = error
        level = logging.WARNING if isinstance(error, PeerError) else logging.ERROR
        log.log(level, "%s: %s", self.domain.name, error)
        if isinstance(error, OwnershipLost) or (isinstance(error, PeerRefused) and AnotherOwner.code in error.reasons):
            return Event.ANOTHER_OWNS
        return Event.GUEST_ENDED if isinstance(error, GuestEnded) else Event.SESSION_LOST


def _begin(record: GuestRecord, *, solo: bool) -> tuple[State, tuple[Effect, ...]]:
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
