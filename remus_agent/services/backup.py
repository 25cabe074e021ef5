"""The backup's side of a host: answers primaries, keeps the copies of each domain, activates one on request.

A domain has at most two copies: the newest committed one, and one that is arriving in a newer session. The committed one
is destroyed only after the arriving one has committed, so a primary that comes back and dies again loses nothing; where
memory does not suffice for both, the older is given up first, which is noted.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from remus_agent.errors import (
    AuthorityError,
    DomainNotFound,
    PeerError,
    ProtocolError,
    RefusedError,
    RemusError,
)
from remus_agent.machines.backup import Event, State
from remus_agent.ports import (
    Announcer,
    Clock,
    Connection,
    Domain,
    EventSink,
    GuestType,
    Hypervisor,
    Journals,
)
from remus_agent.protocol.replication.frames import FrameType
from remus_agent.protocol.replication.messages import Hello, Plain, Reason, Refuse, Welcome, encode, expect
from remus_agent.services.copy import Copy
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

OVERHEAD_KIB = 24 * 1024
"""What Xen and the toolstack need for a small domain beside its memory: page tables, shadow pool, structures."""


@dataclass(frozen=True, slots=True)
class BackupPorts:
    """What a backup works with."""

    hypervisor: Hypervisor
    journals: Journals
    announcer: Announcer
    events: EventSink
    clock: Clock


class BackupService:
    """All copies on this host."""

    def __init__(self, ports: BackupPorts, settings: Settings) -> None:
        self._ports = ports
        self._settings = settings
        self._copies: dict[str, list[Copy]] = {}
        self._background: set[asyncio.Task[None]] = set()

    def names(self) -> list[str]:
        """Domains of which this host has a copy, or has had one since the agent started."""
        return sorted(self._copies)

    def copy_of(self, domain: str) -> Copy | None:
        """The copy that counts: a committed one before one that is only arriving."""
        copies = self._copies.get(domain, [])
        live = [copy for copy in copies if copy.state is not State.DISCARDED]
        committed = [copy for copy in live if copy.committed_epoch]
        return next(iter(committed or live or copies), None)

    async def examine(self, hello: Hello) -> tuple[list[Reason], int]:
        """Every reason against taking this domain in, and the free memory in KiB. Changes nothing."""
        reasons: list[Reason] = []
        facts = await self._ports.hypervisor.facts()
        guest_type = GuestType(hello.guest_type)
        if hello.xen_version != facts.xen_version:
            reasons.append(
                _reason(
                    "xen-version",
                    f"{hello.host} runs Xen {hello.xen_version}, {self._settings.host} runs Xen {facts.xen_version}",
                    "bring both hosts to the same Xen packages",
                )
            )
        if hello.cpu_policy != facts.policy_for(guest_type):
            reasons.append(
                _reason(
                    "cpu-policy",
                    f"the processors of {hello.host} and {self._settings.host} offer different features to guests",
                    "use hosts with the same processors and microcode, or level them with Xen's cpuid options",
                )
            )
        if guest_type is GuestType.HVM and not facts.device_model:
            reasons.append(
                _reason(
                    "device-model",
                    f"{self._settings.host} has no device model, without which an HVM guest cannot run there",
                    "install qemu-system-xen on the backup",
                )
            )
        running = await self._running(hello.domain)
        if running is not None:
            reasons.append(
                _reason(
                    "runs-here",
                    f"{self._settings.host} itself runs a domain {hello.domain} (domid {running.domid})",
                    "if that is the same guest after a failover, destroy the stale one first",
                )
            )
        replaceable = sum(
            copy.hello.memory_kib + OVERHEAD_KIB
            for copy in self._copies.get(hello.domain, [])
            if copy.state in (State.ORPHANED, State.READY, State.RECEIVING) and copy.hello.uuid == hello.uuid
        )
        needed = hello.memory_kib + OVERHEAD_KIB
        if facts.free_memory_kib + replaceable < needed:
            reasons.append(
                _reason(
                    "memory",
                    f"{self._settings.host} has {facts.free_memory_kib // 1024} MiB of free memory,"
                    f" a copy of {hello.domain} needs {needed // 1024} MiB",
                    "free memory on the backup (smaller dom0, fewer guests)",
                )
            )
        return reasons, facts.free_memory_kib

    async def on_connection(self, connection: Connection) -> None:
        """A peer has connected: hear what it wants and serve it to the end. Never raises RemusError."""
        try:
            async with asyncio.timeout(self._settings.connect):
                hello = expect(await connection.receive(), Hello)
        except (TimeoutError, PeerError, ProtocolError) as error:
            log.warning("connection from %s: no valid HELLO: %s", connection.peer, error or "timeout")
            if isinstance(error, ProtocolError):
                await self._answer(
                    connection, Refuse(reasons=(_reason(error.code, error.message[:4000], error.hint or ""),))
                )
            await connection.close()
            return
        try:
            await self._serve(connection, hello)
        except RemusError as error:
            log.warning("%s: session refused: %s", hello.domain, error)
            await self._answer(
                connection, Refuse(reasons=(_reason(error.code, error.message[:4000], error.hint or ""),))
            )
        finally:
            await connection.close()

    async def failover(
        self, domain: str, *, generation: int | None, session: str | None, fenced: dict[str, str]
    ) -> Copy:
        """Activate the committed copy. Refused without a proof of fencing or when it is not the expected one."""
        copy = self.copy_of(domain)
        if copy is None or copy.state is State.DISCARDED:
            raise DomainNotFound(
                "this host holds no copy of it",
                operation="failover",
                domain=domain,
                hint="run `remusctl list` on the other hosts",
            )
        if copy.state is State.ACTIVE:
            return copy
        missing = [key for key in ("host", "method", "evidence") if not fenced.get(key)]
        if missing:
            raise AuthorityError(
                f"no proof that the primary is dead ({', '.join(missing)} of `fenced` missing)",
                operation="failover",
                domain=domain,
                left="nothing was changed",
                hint="fence the primary's host and name it with the method and what confirmed it",
            )
        if fenced["host"] != copy.hello.host:
            raise AuthorityError(
                f"{fenced['host']} was fenced, but the primary runs on {copy.hello.host}",
                operation="failover",
                domain=domain,
                left="nothing was changed",
                hint=f"confirm that {copy.hello.host} is dead",
            )
        if (generation is not None and generation != copy.generation) or (session and session != copy.hello.session):
            raise AuthorityError(
                f"this copy has generation {copy.generation} and session {copy.hello.session}, not the expected one",
                operation="failover",
                domain=domain,
                left="nothing was changed",
                hint="look again with `remusctl status`; somebody has acted meanwhile",
            )
        await copy.failover(fenced["host"], fenced["method"], fenced["evidence"])
        return copy

    async def discard(self, domain: str) -> None:
        """Destroy all copies of a domain that are not running, on an operator's word."""
        for copy in self._copies.get(domain, []):
            if copy.state in (State.RECEIVING, State.READY, State.ORPHANED):
                await copy.discard()

    async def close(self) -> None:
        """The agent stops: end the connections and destroy every copy that is not active."""
        for copies in self._copies.values():
            for copy in copies:
                await copy.disconnect()
                if copy.state is State.ORPHANED:
                    await copy.discard()
        for task in list(self._background):
            await task

    async def _serve(self, connection: Connection, hello: Hello) -> None:
        reasons, free_kib = await self.examine(hello)
        if reasons:
            await self._answer(connection, Refuse(reasons=tuple(reasons)))
            return
        welcome = Welcome(host=self._settings.host, session=hello.session, free_memory_kib=free_kib)
        if hello.purpose == "probe":
            await self._answer(connection, welcome)
            return
        for old in self._copies.get(hello.domain, []):
            await old.disconnect()
        await self._make_room(hello, free_kib)
        journal = await self._ports.journals.open(hello.domain)
        copy = Copy(
            hello,
            self._ports.hypervisor,
            journal,
            self._ports.announcer,
            self._ports.events,
            self._ports.clock,
            self._settings,
            self._supersede,
        )
        kept = [old for old in self._copies.get(hello.domain, []) if old.state is not State.DISCARDED]
        self._copies[hello.domain] = [*kept, copy]
        self._ports.events.note(hello.domain, "receiving", session=hello.session, primary=hello.host)
        await self._answer(connection, welcome)
        await copy.serve(connection)
        if copy.stop_asked_by_peer:
            await self._stopped_by_peer(hello.domain)
            await self._answer(connection, Plain(FrameType.STOPPED))

    async def _make_room(self, hello: Hello, free_kib: int) -> None:
        if free_kib >= hello.memory_kib + OVERHEAD_KIB:
            return
        for old in self._copies.get(hello.domain, []):
            if old.state is State.ORPHANED:
                log.warning("%s: the older copy is given up, memory does not suffice for two", hello.domain)
                self._ports.events.note(
                    hello.domain, "older-copy-given-up", epoch=old.committed_epoch, free_kib=free_kib
                )
                await old.discard(Event.SUPERSEDED)

    async def _supersede(self, newest: Copy) -> None:
        """A new session has committed: older copies are destroyed, beside the epoch loop."""
        for old in self._copies.get(newest.hello.domain, []):
            if old is not newest and old.state is State.ORPHANED:
                task = asyncio.create_task(old.discard(Event.SUPERSEDED), name=f"supersede {newest.hello.domain}")
                self._background.add(task)
                task.add_done_callback(self._background.discard)

    async def _stopped_by_peer(self, domain: str) -> None:
        for copy in self._copies.get(domain, []):
            if copy.state in (State.RECEIVING, State.READY, State.ORPHANED):
                await copy.discard(Event.PEER_STOPS)

    async def _running(self, name: str) -> Domain | None:
        try:
            return await self._ports.hypervisor.domain(name)
        except DomainNotFound:
            return None

    async def _answer(self, connection: Connection, message: Welcome | Refuse | Plain) -> None:
        try:
            async with asyncio.timeout(self._settings.connect):
                await connection.send(encode(message))
        except (PeerError, TimeoutError) as error:
            log.info("could not answer %s: %s", connection.peer, error)


def _reason(code: str, message: str, hint: str) -> Reason:
    return Reason(code=code, message=message, hint=hint)


def refuse_on_backup(domain: str) -> RefusedError:
    """The error for an operation that belongs on the primary."""
    return RefusedError(
        "this host is the backup of it",
        operation="unprotect",
        domain=domain,
        left="nothing was changed",
        hint="run it on the primary; to destroy the copy here all the same, use --force",
    )
