"""Carries out `machines.primary` for one domain: sessions, seeding, epochs, output commit.

The driver is one task: it performs an effect, the effect's outcome is the machine's next event. What an operator asks
arrives between effects or interrupts a wait.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from remus_agent.errors import GuestEnded, PeerError, RefusedError, RemusError
from remus_agent.faults import FaultName, active, pause_at
from remus_agent.machines.epoch import OutputCommit
from remus_agent.machines.primary import STARTED_AGAIN, STARTED_FRESH, TABLE, Effect, Event, State
from remus_agent.ports import (
    BufferState,
    Checkpoint,
    Clock,
    Connector,
    Domain,
    EventSink,
    GuestRecord,
    GuestStore,
    HostFacts,
    Hypervisor,
    OutputBuffer,
    Source,
)
from remus_agent.protocol.replication.messages import Hello
from remus_agent.services.epochs import EpochRecord
from remus_agent.services.session import PrimarySession, open_session
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

KEPT_EPOCHS = 4096


@dataclass(frozen=True, slots=True)
class PrimaryPorts:
    """What a primary works with."""

    hypervisor: Hypervisor
    connector: Connector
    store: GuestStore
    events: EventSink
    clock: Clock


def hello_for(domain: Domain, facts: HostFacts, host: str, *, generation: int, purpose: str) -> Hello:
    """The HELLO of a new session for this domain."""
    return Hello(
        purpose="probe" if purpose == "probe" else "protect",
        session=str(uuid.uuid4()),
        generation=generation,
        domain=domain.name,
        uuid=domain.uuid,
        guest_type=domain.guest_type.value,
        memory_kib=domain.memory_kib,
        xen_version=facts.xen_version,
        cpu_policy=facts.policy_for(domain.guest_type),
        host=host,
    )


class PrimaryService:
    """Protection of one domain on its primary. `run` is its whole life; the other methods may be called meanwhile."""

    def __init__(
        self,
        domain: Domain,
        record: GuestRecord,
        address: str,
        output: OutputBuffer,
        ports: PrimaryPorts,
        settings: Settings,
    ) -> None:
        self.domain = domain
        self.record = record
        self.state = State.RECONNECTING if record.committed else State.CONNECTING
        self.since = ports.clock.now()
        self.reason: str | None = None
        self.error: RemusError | None = None
        self.held_because: str | None = None
        """Why output is still held although nothing speaks against letting it out."""
        self.seeding: tuple[int, int] | None = None
        self.epochs: deque[EpochRecord] = deque(maxlen=KEPT_EPOCHS)
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
        self._asked: asyncio.Queue[Event] = asyncio.Queue()
        self._resumed_at = 0.0
        self._perform: dict[Effect, Callable[[], Awaitable[Event | None]]] = {
            Effect.OPEN_SESSION: self._open_session,
            Effect.SEED: self._seed,
            Effect.RUN_EPOCHS: self._run_epochs,
            Effect.ABANDON_SESSION: self._abandon_session,
            Effect.WAIT_FOR_RETRY: self._wait_for_retry,
            Effect.DISCARD_COPY: self._discard_copy,
            Effect.FREE_OUTPUT: self._free_output,
            Effect.FORGET: self._forget,
        }

    @property
    def session_id(self) -> str | None:
        """The session that runs now."""
        return self._session.id if self._session else None

    async def run(self) -> None:
        """Live until a terminal state. On cancellation (the agent stops) the guest runs on with its output held as it is."""
        effects: tuple[Effect, ...]
        self.state, effects = STARTED_AGAIN if self.record.committed else STARTED_FRESH
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
            await asyncio.shield(self._abandon_session())

    async def buffer_state(self) -> BufferState:
        """What the plugs hold now."""
        return await self._output.state()

    def ask_stop(self, *, force: bool) -> None:
        """End protection. Refused when the copy's end can't be confirmed and `force` doesn't vouch for it."""
        event = Event.STOP_FORCED if force else Event.STOP_ASKED
        if not force and self.state in (State.SILENT, State.RECONNECTING):
            raise RefusedError(
                "the backup can't be asked to discard its copy, so nobody knows whether it will be activated",
                operation="unprotect",
                domain=self.domain.name,
                left="the guest runs, its output is held",
                hint="repair the backup or the link; or destroy the copy there and repeat with --force",
            )
        self._asked.put_nowait(event)

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
            self._source = await self._ports.hypervisor.open_source(domain)
            facts = await self._ports.hypervisor.facts()
            hello = hello_for(domain, facts, self._settings.host, generation=self.record.generation, purpose="protect")
            self._session = await open_session(
                self._ports.connector, self._address, hello, self._settings, self._ports.clock
            )
        except RemusError as error:
            return self._failed(error)
        return Event.SESSION_OPENED

    async def _seed(self) -> Event:
        session, source = self._in_session()
        try:
            closed = self.record.committed and not active(FaultName.RESTART_OPENS_OUTPUT)
            await self._output.install(closed=closed)
            await source.begin()
            self.commit = OutputCommit()
            await session.send_preamble(source.preamble)
            pages = 0
            async for piece in source.seed():
                await session.send_records(1, piece.records)
                pages += piece.pages
                self.seeding = (piece.done, piece.total)
                asked = self._next_asked()
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
            self.seeding = None
        return Event.COMMITTED

    async def _run_epochs(self) -> Event:
        try:
            while True:
                asked = self._next_asked() or await self._pace()
                if asked is not None:
                    return asked
                event = await self._one_epoch(self.commit.running)
                if event is not None:
                    return event
        except RemusError as error:
            return self._failed(error)

    async def _one_epoch(self, epoch: int, seeded_pages: int = 0) -> Event | None:
        """Take, send and commit one checkpoint, then release its output. An event when an operator interrupts the wait."""
        session, source = self._in_session()
        clock = self._ports.clock
        if epoch == 1:
            # From here on the backup may commit without our hearing of it: a restart must find output held.
            self.record = replace(self.record, committed=True)
            await self._ports.store.save(self.record)
        pause_at("before-suspend")
        started = clock.now()
        checkpoint = await source.checkpoint(epoch, self._at_barrier, self._settings.suspend)
        self._resumed_at = clock.now()
        pause_at("resumed")
        sent_bytes = await self._ship(session, checkpoint, seeded_pages)
        sent = clock.now()
        pause_at("awaiting-ack")
        if active(FaultName.ACK_WAIT_REMOVED):
            pass
        elif epoch == 1:
            # Not to be interrupted: whether the backup has committed must be known before anything else is decided.
            await session.wait_ack(epoch)
        else:
            event = await self._interruptible(session.wait_ack(epoch))
            if event is not None:
                return event
        self.last_ack = clock.now()
        pause_at("acked")
        self.commit = self.commit.memory_ack(epoch)
        if self.commit.releasable == epoch:
            await self._output.release()
            self.commit = self.commit.released(epoch)
        self.acked_epoch = epoch
        previous = self.epochs[-1].started if self.epochs and epoch > 1 else None
        self.epochs.append(
            EpochRecord.of(checkpoint, sent_bytes, started, sent - self._resumed_at, self.last_ack - sent, previous)
        )
        return None

    async def _ship(self, session: PrimarySession, checkpoint: Checkpoint, seeded_pages: int) -> int:
        sent = 0
        for group in checkpoint.records:
            sent += await session.send_records(checkpoint.epoch, group)
        pause_at("sending")
        await session.end_epoch(checkpoint.epoch, checkpoint.pages + seeded_pages)
        return sent

    def _at_barrier(self) -> None:
        """In the suspended window: the running epoch ends here, for output and disks alike."""
        pause_at("suspended")
        self.commit = self.commit.barrier(self.commit.running)
        self._output.barrier()

    async def _pace(self) -> Event | None:
        """Let the guest run for the interval since it was resumed."""
        left = self._resumed_at + self.record.interval_ms / 1000 - self._ports.clock.now()
        if left <= 0:
            return None
        return await self._interruptible(self._ports.clock.sleep(left))

    async def _abandon_session(self) -> None:
        session, self._session = self._session, None
        source, self._source = self._source, None
        if session is not None:
            await session.close()
        if source is not None:
            try:
                await source.close()
            except RemusError as error:
                log.error("%s: %s", self.domain.name, error)

    async def _wait_for_retry(self) -> Event:
        return await self._interruptible(self._ports.clock.sleep(self._settings.retry)) or Event.RETRY_DUE

    async def _discard_copy(self) -> Event:
        session, _ = self._in_session()
        try:
            await session.discard_copy()
        except RemusError as error:
            return self._failed(error)
        return Event.COPY_DISCARDED

    async def _free_output(self) -> Event:
        try:
            await self._output.remove()
        except RemusError as error:
            log.error("%s: %s", self.domain.name, error)
            if self.held_because is None:
                self._ports.events.note(self.domain.name, "output-not-freed", reason=str(error))
            self.held_because = str(error)
            return Event.OUTPUT_HELD
        self.held_because = None
        return Event.OUTPUT_FREE

    async def _forget(self) -> None:
        try:
            await self._ports.store.remove(self.domain.name)
        except RemusError as error:
            log.error("%s: %s", self.domain.name, error)
        self._touch()

    def _in_session(self) -> tuple[PrimarySession, Source]:
        if self._session is None or self._source is None:
            raise RuntimeError("effect outside of a session")
        return self._session, self._source

    def _failed(self, error: RemusError) -> Event:
        error.domain = error.domain or self.domain.name
        self.reason = str(error)
        self.error = error
        level = logging.WARNING if isinstance(error, PeerError) else logging.ERROR
        log.log(level, "%s: %s", self.domain.name, error)
        return Event.GUEST_ENDED if isinstance(error, GuestEnded) else Event.SESSION_LOST

    def _next_asked(self) -> Event | None:
        return None if self._asked.empty() else self._asked.get_nowait()

    async def _interruptible(self, work: Awaitable[None]) -> Event | None:
        """Wait for the work, or for what an operator asks: then the work is cancelled and the event returned."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._asked.get())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and not task.done():
                return asked.result()
            task.result()
            if asked.done():
                self._asked.put_nowait(asked.result())
            return None
        finally:
            for future in (task, asked):
                if not future.done():
                    future.cancel()
            await asyncio.gather(task, asked, return_exceptions=True)


def is_over(service: PrimaryService) -> bool:
    """Whether the service has reached a terminal state and carried out all that belongs to it."""
    return service.finished
