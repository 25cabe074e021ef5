"""The backup's side of a host: answers primaries, keeps the copies of each domain, activates one on request."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from remus_agent.errors import (
    AnotherOwner,
    AuthorityError,
    DomainNotFound,
    PeerError,
    ProtocolError,
    RefusedError,
    RemusError,
    ReplicationError,
)
from remus_agent.machines.backup import Event, State
from remus_agent.ports import Connection, Domain
from remus_agent.protocol.replication.frames import FrameType
from remus_agent.protocol.replication.message_frames import decode
from remus_agent.protocol.replication.messages import (
    AskOutcome,
    Beat,
    DiskHello,
    Hello,
    Outcome,
    Plain,
    Reason,
    Refuse,
    Welcome,
)
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.copies import IN_SESSION, LEFT, Copies
from remus_agent.services.copy import Copy
from remus_agent.services.copy_disks import CopyDisks
from remus_agent.services.disk_feed import Older
from remus_agent.services.examine import OVERHEAD_KIB, examine, needed_kib
from remus_agent.services.fencing import check_proof
from remus_agent.services.greeting import answer, check_identity, first_of_connection, what_begins
from remus_agent.services.hand_over import HandOvers
from remus_agent.services.heartbeats import HeardBeats
from remus_agent.services.older_copies import OlderCopies
from remus_agent.services.openings import Opening, Openings, does_not_end
from remus_agent.services.refusing import reason_of
from remus_agent.services.replica_set import DomainReplicas, facts_of
from remus_agent.services.retry_events import VainSessions
from remus_agent.services.settings import Settings
from remus_agent.store_ports import Journal

log = logging.getLogger(__name__)


class BackupService:
    """All copies on this host."""

    def __init__(self, ports: BackupPorts, settings: Settings) -> None:
        self._ports = ports = replace(ports, events=VainSessions(ports.events))
        self._settings = settings
        self._copies = Copies()
        self._older = OlderCopies(self._copies, ports.events)
        self._openings = Openings(settings.host, ports.clock, settings.connect / 2)
        self._replicas: dict[str, DomainReplicas] = {}
        self.beats = HeardBeats(ports.clock, settings)
        self.hand_overs: HandOvers | None = None
        self.owned: Callable[[str], int | None] = lambda _: None
        """Of which generation this host's own sessions of a guest (UUID) are, where it is the primary; None where it is not."""

        self.admit: Callable[[Hello], Awaitable[None]] = _without_asking
        """Called with each session's HELLO before anything is done for it. Raises RemusError for one that must not be opened."""

        self.gives_way: Callable[[Hello], Domain | None] = lambda _: None
        """What this host still has of a guest that a session with this HELLO would have go."""

        self.witnessed = False
        """Whether hosts learn from a witness who owns a guest."""

        self.make_way: Callable[[Hello], Awaitable[None]] = _nothing_in_the_way
        """Called with each session's HELLO: what this host still has of a guest that the other one owns has to go."""

    # Looking at the copies

    def names(self) -> list[str]:
        """See `Copies.names`."""
        return self._copies.names()

    def copy_of(self, domain: str) -> Copy | None:
        """The copy that counts; see `Copies.that_counts`."""
        return self._copies.that_counts(domain)

    def copies_of(self, domain: str) -> list[Copy]:
        """All copies of a domain, the oldest first."""
        return self._copies.of(domain)

    def copies(self) -> Iterator[Copy]:
        """All copies of all domains."""
        return self._copies.all()

    def working_names(self) -> frozenset[str]:
        """What the domains of all copies are called."""
        return frozenset(copy.working_name for copy in self._copies.all())

    def holds(self, domain: str) -> bool:
        """Whether this host has a copy of it that is not discarded and does not run."""
        return any(copy.state not in (State.DISCARDED, State.ACTIVE) for copy in self._copies.of(domain))

    def require_copy(self, domain: str) -> Copy:
        """The copy that counts. Raises DomainNotFound when there is none."""
        copy = self.copy_of(domain)
        if copy is None or copy.state is State.DISCARDED:
            raise DomainNotFound(
                "this host holds no copy of it",
                operation="failover",
                domain=domain,
                hint="run `remusctl list` on the other hosts",
            )
        return copy

    # Sessions

    async def examine(self, hello: Hello) -> tuple[list[Reason], int]:
        """Every reason against taking this domain in, and the free memory in KiB. Changes nothing."""
        replaceable = sum(
            needed_kib(copy.hello)
            for copy in self._copies.of(hello.domain)
            if copy.state in (*IN_SESSION, *LEFT) and copy.hello.uuid == hello.uuid
        )
        stale = self.gives_way(hello)
        if stale is not None:
            replaceable += stale.memory_kib + OVERHEAD_KIB * len(stale.guests)
        return await examine(
            hello,
            self._ports,
            self._settings.host,
            replaceable,
            stale,
            witnessed=self.witnessed,
            groups=self._settings.groups,
            held=self.holds,
        )

    async def on_connection(self, connection: Connection) -> None:
        """A peer has connected: hear what it wants and serve it to the end. Never raises RemusError."""
        try:
            async with asyncio.timeout(self._settings.connect):
                hello = first_of_connection(decode(await connection.receive()))
        except (TimeoutError, PeerError, ProtocolError) as error:
            log.warning("connection from %s: no valid HELLO: %s", connection.peer, error or "timeout")
            if isinstance(error, ProtocolError):
                await self._answer(connection, Refuse(reasons=(reason_of(error),)))
            await connection.close()
            return
        try:
            if isinstance(hello, Beat):
                check_identity(connection, hello.host)
                await self.beats.serve(connection, hello)
            elif isinstance(hello, DiskHello):
                copy = self._copies.with_disk(hello)
                check_identity(connection, copy.hello.host, hello.domain)
                await copy.serve_disk(connection, hello)
            elif isinstance(hello, AskOutcome):
                check_identity(connection, hello.host, hello.domain)
                self._heard(hello)
                await self._answer(connection, await self._need_hand_overs(hello.domain).outcome(hello))
            else:
                check_identity(connection, hello.host, hello.domain)
                self._heard(hello)
                await self._serve(connection, hello)
        except RemusError as error:
            log.warning("%s refused: %s", what_begins(hello), error)
            await self._answer(connection, Refuse(reasons=(reason_of(error),)))
        finally:
            await connection.close()

    def _heard(self, hello: Hello | AskOutcome) -> None:
        """Who asks for a session, or what has become of one, lives, also where that is refused."""
        for copy in self._copies.of(hello.domain):
            if copy.hello.host == hello.host:
                copy.hearing.heard()

    async def on_beats(self, connection: Connection) -> None:
        """A peer has connected over the second path, which carries heartbeats and nothing else. Never raises RemusError."""
        try:
            async with asyncio.timeout(self._settings.connect):
                first = decode(await connection.receive())
            if not isinstance(first, Beat):
                raise ReplicationError(f"expected BEAT, received {type(first).__name__}", operation="second path")
            check_identity(connection, first.host)
            await self.beats.serve(connection, first)
        except (TimeoutError, RemusError) as error:
            log.warning("second path from %s: %s", connection.peer, error or "no heartbeat in time")
        finally:
            await connection.close()

    async def failover(
        self,
        domain: str,
        before_run: Callable[[Copy], Awaitable[None]],
        *,
        generation: int | None,
        session: str | None,
        fenced: dict[str, str],
        accept_loss: bool = False,
    ) -> Copy:
        """Activate the committed copy. Refused without a proof of fencing or when it is not the expected one; accept_loss: not
        when it is stale. before_run: called with the copy when it is built and about to run."""
        copy = self.require_copy(domain)
        if copy.state is State.ACTIVE:
            return copy
        check_proof(domain, copy.hello.host, fenced)
        refuse_another(copy, generation, session)
        with self._replicas_of(domain).failing_over():
            await self._silence_newer(copy)
            await copy.failover(
                fenced["host"],
                fenced["method"],
                fenced["evidence"],
                lambda: before_run(copy),
                accept_loss=accept_loss,
            )
        return copy

    async def _silence_newer(self, copy: Copy) -> None:
        """A newer session shows that the primary of the copy that is to be activated may live: it has to be silent."""
        domain = copy.hello.domain
        for newer in self._copies.of(domain):
            if newer is not copy and newer.state in IN_SESSION:
                await newer.expect_silence()
        if self.copy_of(domain) is not copy:
            raise AuthorityError(
                "a newer session has replaced this copy just now",
                operation="failover",
                domain=domain,
                left="nothing was changed",
                hint="look again with `remusctl status`",
            )

    async def discard(self, domain: str) -> None:
        """Destroy all copies of a domain that are not running, on an operator's word."""
        for copy in self._copies.of(domain):
            if copy.state in (*IN_SESSION, *LEFT):
                await copy.discard()

    async def close(self) -> None:
        """The agent stops: end the connections and destroy every copy that is not active."""
        for copy in self._copies.all():
            await self._close(copy)
        await self._older.cleared(self._settings.connect / 2)

    async def _close(self, copy: Copy) -> None:
        """Whatever becomes of one, the others are closed as well. What stays is paused, and the next agent destroys it."""
        try:
            if not await copy.disconnect(self._settings.connect / 2):
                log.error("%s: left as it is: %s", copy.hello.domain, copy.hangs or "its last epoch is still taken in")
            elif copy.state in LEFT:
                await copy.discard()
        except RemusError as error:
            log.error("%s: not closed in order: %s", copy.hello.domain, error)

    def _replicas_of(self, domain: str) -> DomainReplicas:
        return self._replicas.setdefault(domain, DomainReplicas(domain, self._ports.replicas))

    async def _serve(self, connection: Connection, hello: Hello) -> None:
        if hello.purpose == "probe":
            self._refuse_what_is_taken(hello)
            reasons, free_kib = await self.examine(hello)
            answer = Refuse(reasons=tuple(reasons)) if reasons else self._welcome(hello, free_kib)
            await self._answer(connection, answer)
            return
        async with self._openings.turn(hello.domain) as opening:
            opened = await self._open(hello, opening, connection)
        if isinstance(opened, Refuse):
            await self._answer(connection, opened)
            return
        copy, welcome = opened
        await self._answer(connection, welcome)
        await copy.serve()
        if copy.stop_asked_by_peer:
            await self._stopped_by_peer(hello.domain)
            await self._answer(connection, Plain(FrameType.STOPPED))
        if copy.handed_over:
            await self._answer(connection, await self._need_hand_overs(hello.domain).take(copy, connection))

    async def _open(self, hello: Hello, opening: Opening, connection: Connection) -> Refuse | tuple[Copy, Welcome]:
        """All that comes before a session, in its turn. Raises RemusError."""
        replicas, host = self._replicas_of(hello.domain), self._settings.host
        turn = replicas.turn
        opening.doing = f"{host} asks the witness who owns the guest"
        await self.admit(hello)
        self._refuse_what_is_taken(hello)
        opening.doing = f"{host} destroys what it still has of the guest"
        await self.make_way(hello)
        opening.doing = f"{host} looks at its memory, its guests and the disks"
        reasons, free_kib = await self.examine(hello)
        if reasons:
            return Refuse(reasons=tuple(reasons))
        opening.doing = "the session before ends"
        for old in self._copies.of(hello.domain):
            if not await old.disconnect(self._settings.connect / 2):
                raise RefusedError(
                    f"the session before does not end: {old.hangs or 'its last epoch is still taken in'}",
                    operation="open session",
                    domain=hello.domain,
                    hint=f"nothing where {host} is only slow; else see there what hangs",
                )
        opening.doing = "an older copy is given up"
        self._older.leave_behind(hello)
        await self._older.make_room(hello, free_kib, replicas)
        opening.doing = "what was noted of earlier activations, and of commits, is read"
        if self.hand_overs is not None:
            await self.hand_overs.forget(hello.domain, lambda: replicas.check(turn))
        journal = await self._ports.journals.open(hello.domain)
        opening.doing = "the disks are opened, and brought to the committed epoch"
        try:
            disks = await self._open_disks(hello, journal, turn)
            replicas.check(turn)
        except BaseException:
            await journal.close()
            raise
        # From the last check on nothing is waited for: an activation either sees this session or keeps it out.
        copy = Copy(hello, self._ports, journal, disks, self._settings, self._older.supersede, connection)
        self._copies.add(copy)
        self._ports.events.note(hello.domain, "receiving", session=hello.session, primary=hello.host)
        return copy, self._welcome(hello, free_kib)

    def _welcome(self, hello: Hello, free_kib: int) -> Welcome:
        return Welcome(host=self._settings.host, session=hello.session, free_memory_kib=free_kib)

    def _need_hand_overs(self, domain: str) -> HandOvers:
        if self.hand_overs is None:
            raise RefusedError("this host takes no guest over", operation="switchover", domain=domain)
        return self.hand_overs

    def _refuse_what_is_taken(self, hello: Hello) -> None:
        """A primary whose guest this host has taken over, or is about to."""
        mine = self.owned(hello.uuid)
        if mine is not None and mine > hello.generation:
            raise AnotherOwner(
                f"{self._settings.host} owns the guest: its sessions are of generation {mine}, this one of {hello.generation}",
                operation="open session",
                domain=hello.domain,
                hint="the guest there has to stop; it can be a backup then",
            )
        if any(copy.state in (State.TAKING, State.ACTIVATING) for copy in self._copies.of(hello.domain)):
            raise RefusedError("its copy is being taken over here", operation="open session", domain=hello.domain)

    async def expect_silence(self, domain: str, quiet: float, *, off: str | None = None, end: bool = True) -> None:
        """Wait until every session of the domain was silent for so many seconds, and end it; not where end is False. off: a host
        of which somebody says that it is off, which must not be heard over the second path either. Raises AuthorityError when
        one is not silent."""
        for copy in self.copies_of(domain):
            await copy.expect_silence(quiet, end=end)
        if off is not None:
            await self.beats.expect_silence(off, quiet, domain)

    async def silence(self, domain: str) -> Copy | None:
        """End all sessions of a domain; the committed copy that is left, if there is one. Raises RefusedError when one does not
        end."""
        for copy in self._copies.of(domain):
            if not await copy.disconnect(self._settings.activate):
                raise does_not_end(domain, "take over", copy.hangs)
        left = self.copy_of(domain)
        return left if left is not None and left.state is State.ORPHANED else None

    def taking_over(self, domain: str) -> AbstractContextManager[None]:
        """No session is taken in meanwhile."""
        return self._replicas_of(domain).failing_over()

    def left(self, domain: str) -> None:
        """The guest ran here, and was moved away: the copy that it came from is of the past."""
        self._copies.forget_active(domain)

    def hand_out(self, copy: Copy) -> None:
        """The copy runs, and somebody else looks after its guest from now on."""
        self._copies.remove(copy)

    async def _open_disks(self, hello: Hello, journal: Journal, turn: int) -> CopyDisks:
        """Open the disks of a new session, exclusively for the copies of this domain."""
        replicas = self._replicas_of(hello.domain)
        await replicas.open(hello.session, facts_of(hello.disks), await journal.last(), turn)

        async def give_up() -> None:
            await self._older.give_up(hello, "the first epoch of a disk does not fit what can be staged")

        return CopyDisks(
            hello,
            replicas,
            self._settings,
            self._ports.clock,
            Older(functools.partial(self._older.hold_disk, hello), give_up),
        )

    async def _stopped_by_peer(self, domain: str) -> None:
        for copy in self._copies.of(domain):
            if copy.state in (*IN_SESSION, *LEFT):
                await copy.discard(Event.PEER_STOPS)

    async def _answer(self, connection: Connection, message: Welcome | Refuse | Plain | Outcome) -> None:
        await answer(connection, message, self._settings.connect)


async def _without_asking(hello: Hello) -> None:
    """Without a witness nobody is asked."""


async def _nothing_in_the_way(_: Hello) -> None:
    """Without an agent around it."""


def refuse_another(copy: Copy, generation: int | None, session: str | None) -> None:
    """Raise AuthorityError when the copy is not the one that an operator has seen. None: whichever it is."""
    if (generation is not None and generation != copy.generation) or (session and session != copy.hello.session):
        raise AuthorityError(
            f"this copy has generation {copy.generation} and session {copy.hello.session}, not the expected one",
            operation="failover",
            domain=copy.hello.domain,
            left="nothing was changed",
            hint="look again with `remusctl status`; somebody has acted meanwhile",
        )
