"""Carries out `machines.backup` for one copy of a domain: one session of its primary, and what becomes of what it leaves.

An activation builds the domain whole, then has it noted that it is about to run, then makes it run. So between that note and
the guest's first moment there is nothing that takes time, and what an agent that dies leaves there the next one can finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping

from remus_agent.cost_ports import Part
from remus_agent.errors import AuthorityError, HypervisorError, PeerError, RefusedError, RemusError
from remus_agent.machines.backup import TABLE, Effect, Event, State
from remus_agent.ports import Connection, Domain
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.protocol.replication.message_frames import decode, encode
from remus_agent.protocol.replication.messages import DiskHello, EpochEnd, Hello, MemoryAck, Plain
from remus_agent.services.announcing import announce
from remus_agent.services.awake import Waiting
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.copy_disks import CopyDisks
from remus_agent.services.copy_image import CopyImage
from remus_agent.services.hearing import Hearing
from remus_agent.services.late_disks import said_when_late
from remus_agent.services.openings import does_not_end
from remus_agent.services.refusing import refuse
from remus_agent.services.settings import Settings
from remus_agent.services.working_names import working_name
from remus_agent.store_ports import Journal

log = logging.getLogger(__name__)


class Copy:
    """One copy. `serve` takes in the session; `failover` and `discard` are an operator's."""

    def __init__(
        self,
        hello: Hello,
        ports: BackupPorts,
        journal: Journal,
        disks: CopyDisks,
        settings: Settings,
        on_first_commit: Callable[[Copy], None],
        connection: Connection,
    ) -> None:
        clock = ports.clock
        self.hello = hello
        self.state = State.RECEIVING
        self.since = clock.now()
        self.reason: str | None = None
        self.generation = hello.generation
        self.working_name = working_name(hello)
        self.running: Domain | None = None
        self._journal = journal
        self._announcer = ports.announcer
        self._events = ports.events
        self._clock = clock
        self._disks = disks
        self._disks.on_failure = self._disk_failed
        self._disk_error: RemusError | None = None
        self._settings = settings
        self.hearing = Hearing(hello.domain, clock, settings.silence, settings.heartbeat)
        self._disks.on_heard = self.hearing.heard
        self._image = CopyImage(
            hello,
            ports.hypervisor,
            self.working_name,
            journal,
            disks,
            settings,
            lambda: on_first_commit(self),
            self._epoch_complete,
            self._acknowledge,
        )
        self._connection = connection  # whoever ends the session before `serve` waits for that
        self._disconnected = asyncio.Event()
        self._announcing: asyncio.Task[None] | None = None
        self.stop_asked_by_peer = False
        self.won = False
        """This host was allowed to run it: by the witness's word, or its primary's in a switchover without one."""
        self.handed_over = False
        """The primary has handed the guest over: what becomes of it is somebody else's work (`services.hand_over`)."""

    @property
    def committed_epoch(self) -> int:
        """The newest one; 0: none."""
        return self._image.epoch

    @property
    def held(self) -> Mapping[Part, int]:
        """Bytes of this agent's memory that epochs of it take at this moment."""
        return {"copy": self._image.held_bytes, "disks": self._disks.held_bytes}

    @property
    def last_heard(self) -> float:
        """When anything came from the primary."""
        return self.hearing.last_heard

    async def serve(self) -> None:
        """Take in the session until its connection ends, whatever ends it. After a defect, too, it is over: a copy that looked as
        if its session went on would keep every takeover of it from being made. Never raises RemusError."""
        connection = self._connection
        heartbeat = asyncio.create_task(self._heartbeat(connection), name=f"heartbeat {self.hello.domain}")
        try:
            while not (self.stop_asked_by_peer or self.handed_over):
                await self._take(await self.hearing.receive(connection, self.committed_epoch or None))
        except RemusError as error:
            await self._over(connection, self._disk_error or error)
        except Exception as defect:
            log.critical("%s: its session ended by a defect of this agent", self.hello.domain, exc_info=True)
            self._events.note(self.hello.domain, "defect", reason=repr(defect))
            await self._over(connection, self._image.broken(f"the backup's agent failed by a defect: {defect!r}"))
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)
            async with contextlib.AsyncExitStack() as over:  # each of them, whatever happens to another one
                over.callback(self._disconnected.set)
                # An orphan commits nothing more, and the next session needs the journal.
                over.push_async_callback(self._journal.close)
                over.push_async_callback(self._disks.stop)
            if not (self.stop_asked_by_peer or self.handed_over):
                await connection.close()

    async def serve_disk(self, connection: Connection, hello: DiskHello) -> None:
        """Take in one of the session's disks until its connection ends. Raises RefusedError when it is none of them."""
        await self._disks.serve(connection, hello)

    async def failover(
        self,
        host: str,
        method: str,
        evidence: str,
        before_run: Callable[[], Awaitable[None]],
        *,
        accept_loss: bool = False,
    ) -> Domain:
        """Activate the last committed epoch. The caller has a proof that the primary is dead; a primary that still talks
        disproves it, and the request is refused. before_run: see `take`. accept_loss: also one that the record has left
        behind."""
        if self.state is State.ACTIVE and self.running is not None:
            return self.running
        if self.state is State.READY:
            await self.expect_silence()
        event = Event.LOSS_ACCEPTED if accept_loss and self.state is State.STALE else Event.FAILOVER_ASKED
        if not TABLE.accepts(self.state, event):
            raise AuthorityError(
                f"this copy is {self.state.value} and holds no committed epoch that may be activated",
                operation="failover",
                domain=self.hello.domain,
                hint="see `remusctl status`; only a committed copy whose primary is gone can be activated",
            )
        self._events.note(
            self.hello.domain,
            "failover-asked",
            epoch=self.committed_epoch,
            fenced_host=host,
            method=method,
            evidence=evidence,
        )
        self._advance(event)
        return await self._activate("failover", before_run)

    def ask_to_take(self) -> None:
        """The primary seems to be gone, and the witness is asked. `take` or `refused` follows."""
        self._advance(Event.PRIMARY_GONE)

    def refused(self, event: Event) -> None:
        """The witness has no word for this copy (OWNERSHIP_REFUSED), or says that it is stale, which `clear_up` follows."""
        self._advance(event)

    async def take(self, before_run: Callable[[], Awaitable[None]]) -> Domain:
        """Activate the last committed epoch on the witness's word, or on its primary's in a switchover without a witness.
        before_run: what has to be done when the guest is built here and nothing is left but to let it run. Raises RemusError."""
        self.won = True
        self._advance(Event.OWNERSHIP_WON)
        return await self._activate("take over", before_run)

    @property
    def may_have_run(self) -> bool:
        """Whether the guest was made to run from this copy, or that was tried. Settled when an activation has ended."""
        return self._image.targets.may_have_run

    @property
    def built(self) -> bool:
        """Whether an activation got as far as a whole domain, which holds the guest's disks."""
        return self._image.targets.built

    async def _activate(self, operation: str, before_run: Callable[[], Awaitable[None]]) -> Domain:
        targets = self._image.need_targets()
        with self._standing():
            async with said_when_late(self, self._events, self._clock, self._settings.ack):
                await self._disks.hand_over(self._image.commit)
        try:
            await self._image.build(operation)
        except Exception:  # a defect, too, must not leave it for ever in the state of one that is about to run
            await self._activation_failed()
            raise
        with self._standing():
            await before_run()
        try:
            self.running = await targets.activate()
        except Exception:
            await self._activation_failed()
            raise
        self.generation += 1
        self._advance(Event.ACTIVATED)
        self._announcing = asyncio.create_task(
            announce(self._announcer, self.running, self._events), name=f"announce {self.hello.domain}"
        )
        return self.running

    @contextlib.contextmanager
    def _standing(self) -> Iterator[None]:
        """Around what leaves a whole copy when it fails."""
        try:
            yield
        except Exception as error:
            self.reason = str(error)
            self._advance(Event.NOT_READY)
            if isinstance(error, RemusError):
                error.left = error.left or "nothing was activated, the copy stands"
            raise

    async def discard(self, event: Event = Event.DISCARD_ASKED) -> None:
        """Destroy the copy and forget it."""
        self.give_up(event)
        await self.clear_up()

    def give_up(self, event: Event) -> None:
        """From now on it is never activated; `clear_up` destroys it."""
        if not TABLE.accepts(self.state, event):
            raise RefusedError(
                f"this copy is {self.state.value}", operation="discard the copy", domain=self.hello.domain
            )
        self._advance(event)

    async def clear_up(self) -> None:
        """Destroy a copy that was given up."""
        await self._abort()
        if not self.stop_asked_by_peer:
            await self._connection.close()

    async def disconnect(self, patience: float) -> bool:
        """The primary has opened another session, so this connection is dead: end it and what it staged. False where that is not
        over within so many seconds."""
        if not self._disconnected.is_set():
            self._connection.abort()  # to close it waits for a primary that is not there, while its guest is away
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._disconnected.wait()
        return self._disconnected.is_set()

    @property
    def hangs(self) -> str | None:
        """What it does not come back from, though its primary has given up waiting for it; None: nothing."""
        busy = 0.0 if self._disconnected.is_set() else self.hearing.busy_for
        if busy <= self._settings.ack:
            return None
        return (
            f"it has been taking in epoch {self.committed_epoch + 1} for {busy:.0f} s: the journal, a disk or the toolstack does"
            " not answer; see dmesg"
        )

    # Receiving

    async def _take(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.PREAMBLE:
                await self._image.preamble(frame)
            case FrameType.STREAM:
                await self._image.stream(frame)
            case FrameType.EPOCH_END:
                message = decode(frame)
                if isinstance(message, EpochEnd):
                    await self._image.epoch_end(message)
            case FrameType.STOP:
                self.stop_asked_by_peer = True
            case FrameType.HAND_OVER:
                decode(frame)
                if not self._image.last or not TABLE.accepts(self.state, Event.HANDED_OVER):
                    raise self._image.broken("HAND_OVER without a committed last checkpoint")
                self._advance(Event.HANDED_OVER)
                self.handed_over = True
            case FrameType.HEARTBEAT:
                decode(frame)
            case _:
                raise self._image.broken(f"unexpected {frame.type.name}")

    def _epoch_complete(self) -> None:
        """Raises RefusedError where an operator has discarded the copy while the epoch was committed."""
        if self.state is State.DISCARDED:
            raise RefusedError("its copy was discarded meanwhile, by an operator", domain=self.hello.domain)
        self._advance(Event.EPOCH_COMPLETE)

    async def _acknowledge(self, ack: MemoryAck) -> PeerError | None:
        """Acknowledge; the error when the primary is gone."""
        try:
            await self._connection.send(encode(ack))
        except PeerError as error:
            return error
        return None

    async def _disk_failed(self, error: RemusError) -> None:
        """What ends a disk ends the session: the primary is told, and the end of its connection ends the rest."""
        if self._disk_error is None:
            self._disk_error = error
        if not self._disconnected.is_set():
            await refuse(self._connection, error, self.hello.domain, self._settings.connect)
            await self._connection.close()

    async def _over(self, connection: Connection, error: RemusError) -> None:
        try:
            await refuse(connection, error, self.hello.domain, self._settings.connect)
            await self._disks.stop(error)
        finally:
            await self._end(error)

    async def _end(self, error: RemusError) -> None:
        self.reason = str(error)
        if self.state not in (State.RECEIVING, State.READY):
            return
        log.warning("%s: session ended: %s", self.hello.domain, error)
        broken = isinstance(error, HypervisorError) or not self._image.whole
        event = Event.COPY_BROKEN if broken else Event.CONNECTION_ENDED
        for effect in self._advance(event):
            if effect is Effect.ABORT:
                await self._abort()
            elif effect is Effect.DROP_STAGED:
                self._image.drop_staged()
                await self._drop_disks()

    async def _heartbeat(self, connection: Connection) -> None:
        lost = hung = False
        while True:
            await self._clock.sleep(self._settings.heartbeat)
            self.hearing.look()
            why = self.hangs
            if why is not None and not hung:
                log.error("%s: %s", self.hello.domain, why)
                self._events.note(self.hello.domain, "copy-hangs", epoch=self.committed_epoch or None, reason=why)
            hung = why is not None
            try:
                if not lost:
                    await connection.send(encode(Plain(FrameType.HEARTBEAT, self.committed_epoch)))
            except PeerError:
                lost = True  # the receiving side notices and reports it

    # Ending

    async def expect_silence(self, quiet: float | None = None, *, end: bool = True) -> None:
        """Wait until a connection that should be dead has shown it, by silence for so many seconds (three heartbeats, unless
        told otherwise); then end it, if that is wanted."""
        quiet = quiet or 3 * self._settings.heartbeat
        waiting = Waiting(self._clock, self.hello.host, self.hello.domain, quiet)
        while self.state in (State.RECEIVING, State.READY):
            if self.hearing.silent_for >= quiet:
                if end and not await self.disconnect(self._settings.activate):
                    raise does_not_end(self.hello.domain, "failover", self.hangs)
                return
            if waiting.is_heard(self.last_heard):
                raise AuthorityError(
                    f"the primary is alive: {self.hello.host} was heard {self._clock.now() - self.last_heard:.1f} s ago",
                    operation="failover",
                    domain=self.hello.domain,
                    epoch=self.committed_epoch,
                    left="nothing was changed, protection goes on",
                    hint="fence the primary's host first; to give up the copy there, unprotect on the primary",
                )
            await self._clock.sleep(self._settings.heartbeat / 4)

    @property
    def primary_heard(self) -> float:
        """When the primary was last heard, for a detector. Now, while an epoch is being staged or applied."""
        if self.state in (State.RECEIVING, State.READY):
            return self._clock.now() - self.hearing.silent_for
        return self.last_heard

    async def _activation_failed(self) -> None:
        self._advance(Event.ACTIVATION_FAILED)
        await self._abort()

    async def _drop_disks(self) -> None:
        try:
            await self._disks.drop()
        except RemusError as error:
            log.error("%s: %s", self.hello.domain, error)  # they are opened anew before anything uses them

    async def _abort(self) -> None:
        self._image.forget()
        async with contextlib.AsyncExitStack() as over:  # each of them, whatever happens to another one
            over.push_async_callback(self._abort_targets)
            over.push_async_callback(self._disks.leave)
            over.push_async_callback(self._disks.stop)

    async def _abort_targets(self) -> None:
        try:
            await self._image.targets.abort()
        except RemusError as error:
            self.reason = str(error)
            log.error("%s: %s", self.hello.domain, error)

    def _advance(self, event: Event) -> tuple[Effect, ...]:
        row = TABLE.step(self.state, event)
        if row.then is not self.state:
            log.info("%s: copy %s -> %s: %s", self.hello.domain, self.state.value, row.then.value, event.value)
            self.since = self._clock.now()
            self._events.note(
                self.hello.domain,
                row.then.value,
                epoch=self.committed_epoch or None,
                because=event.value,
                session=self.hello.session,
                **({"reason": self.reason} if self.reason else {}),
            )
        self.state = row.then
        return row.effects
