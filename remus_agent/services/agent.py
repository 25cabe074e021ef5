"""One host's agent: every domain it protects or keeps a copy of, and what the control socket asks of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from remus_agent import __version__
from remus_agent.errors import (
    AlreadyProtected,
    ConfigError,
    DiskError,
    DomainNotFound,
    OutputBufferError,
    PeerTimeout,
    RefusedError,
    RemusError,
)
from remus_agent.machines.primary import ALONE, NOT_OURS, State
from remus_agent.machines.watchdog import AUTHORITY
from remus_agent.observe.status import Status
from remus_agent.ports import STOOD_DOWN, Domain, GuestRecord, GuestStore, OutputBuffers, PauseNote, Reserved
from remus_agent.protocol.replication.messages import Hello, Refuse
from remus_agent.services import switchover
from remus_agent.services.backup import BackupService, refuse_on_backup
from remus_agent.services.disks import hello_disks
from remus_agent.services.failover_trial import failover_trial
from remus_agent.services.forgetting import Forgetting
from remus_agent.services.hand_over import ByWord, HandOvers
from remus_agent.services.override import operators_word
from remus_agent.services.pausing import Pauses
from remus_agent.services.primary import PrimaryService, is_over
from remus_agent.services.primary_ports import PrimaryPorts, hello_for
from remus_agent.services.report import copy_status, none_status, primary_status
from remus_agent.services.roles import Roles, Seams
from remus_agent.services.selftest import SelfTest
from remus_agent.services.session import ask
from remus_agent.services.settings import Settings
from remus_agent.services.stand_down import destroy_stale
from remus_agent.services.sweep import sweep_copies, sweep_outputs, sweep_taps
from remus_agent.services.topology import Topology
from remus_agent.services.unfinished import Unfinished
from remus_agent.services.watch import Progress, watch
from remus_agent.services.watchdog import WatchdogKeeper

log = logging.getLogger(__name__)


class AgentService:
    """The agent's memory of who is what, and the verbs of the control socket."""

    def __init__(
        self,
        settings: Settings,
        peers: dict[str, str],
        ports: PrimaryPorts,
        outputs: OutputBuffers,
        backup: BackupService,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        """paths: second addresses of peers, over which heartbeats are sent to them."""
        self.settings = settings
        self.peers = peers
        self.backup = backup
        self._ports = ports
        self._paths = paths or {}
        self._outputs = outputs
        self._primaries: dict[str, PrimaryService] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._reserved: dict[str, float] = {}
        """Domains that are left to a relay, and until when."""
        self._roles: Roles | None = None
        if ports.witness is not None:
            seams = Seams(self._guests, self._adopt, paths or {})
            self._roles = Roles(ports.witness, settings, ports, backup, seams)
            backup.owned = self._owned
            backup.witnessed = True
        self._by_word = ByWord(ports.store, backup.taking_over)
        backup.hand_overs = HandOvers(
            self._roles or self._by_word,
            backup.copies_of,
            ports.hypervisor,
            settings,
            ports.clock,
        )
        backup.gives_way = self._gives_way
        backup.make_way = self._make_way
        self._topology = Topology(
            settings.host,
            peers,
            paths or {},
            ports.clock,
            ports.hypervisor,
            ports.witness,
            backup,
            self._roles,
            self._primaries,
        )
        self._pauses = Pauses(ports.pauses, ports.clock, ports.events, settings.retry, self)
        self._pausing: asyncio.Task[None] | None = None
        self._unfinished = Unfinished(
            ports.hypervisor, ports.store, ports.events, ports.announcer, witnessed=ports.witness is not None
        )
        self._sweeping: asyncio.Task[None] | None = None
        self._forgetting = Forgetting(settings.host, ports, backup, self._protector)
        seconds = settings.watchdog_seconds if self._roles is not None else 0
        self._watchdog = WatchdogKeeper(ports.watchdog, seconds, ports.clock, ports.events, self._under_authority)

    def selftest(
        self, disk: Callable[[], Awaitable[None]], tls: Callable[[], Awaitable[Mapping[str, Any]]] | None
    ) -> SelfTest:
        """Of this host; see `SelfTest`."""
        return SelfTest(self.settings, self.peers, self._paths, self._ports, self, disk, tls)

    @property
    def store(self) -> GuestStore:
        """The durable records."""
        return self._ports.store

    async def resume(self) -> None:
        """After a start: clear up after guests that are gone, then go on with every protection that is on record and
        whose guest still runs here. Taps of all others are taken away, but not where a protection is on record that cannot
        be resumed (its peer is not configured, its record is damaged): output is held then, and its tap stays as it is too."""
        self._watchdog.take_over()
        await sweep_outputs(self._outputs, self._ports.hypervisor, self._ports.events)
        await self._pauses.load()
        loaded = await self._ports.store.load_all()
        kept = {error.domain for error in loaded.damaged if error.domain is not None}
        for error in loaded.damaged:
            log.error("%s", error)
            self._ports.events.note(error.domain or "?", "record-damaged", reason=str(error))
        records = [record for each in loaded.records if (record := await self._unfinished.settle(each)) is not None]
        starting = frozenset(record.starting for record in loaded.records if record.starting)
        for record in records:
            overridden = bool(record.override) and self._roles is not None
            if record.role not in ("primary", STOOD_DOWN) and not overridden:
                continue
            try:
                domain = await self._ports.hypervisor.domain(record.name)
                if domain.uuid != record.uuid:
                    raise DomainNotFound("another domain has taken its name", domain=record.name)
            except DomainNotFound as error:
                left = self._left_of(record)
                self._ports.events.note(record.name, "guest-gone", reason=str(error), left=left)
                log.warning("%s: no longer runs here; its protection is forgotten: %s; %s", record.name, error, left)
                await self._ports.store.remove(record.name)
                continue
            kept.add(record.name)
            if overridden and self._roles is not None:
                self._roles.resume_override(record)
                continue
            if record.peer not in self.peers:
                log.error("%s: its peer %s is no longer configured", record.name, record.peer)
                self._ports.events.note(record.name, "peer-unknown", peer=record.peer)
                continue
            self._start(domain, record, resumed=True)
        # Last, so that nobody who waits for a tap waits for this too.
        await sweep_taps(self._ports.taps, frozenset(kept), self._ports.events)
        if self._roles is not None:
            self._roles.start(records)
        self._watchdog.start()
        sweeping = sweep_copies(
            self._ports.hypervisor,
            self._ports.clock,
            self._ports.events,
            lambda: starting | self.backup.working_names(),
        )
        self._sweeping = asyncio.create_task(sweeping, name="sweep copies")
        self._pausing = asyncio.create_task(self._pauses.run(), name="pauses")

    def _left_of(self, record: GuestRecord) -> str:
        """What there is of a guest that ran here, or was just about to."""
        if self._roles is None:
            return f"a copy may be on {record.peer}"
        if record.starting:
            return (
                f"it was about to run here, and nobody knows whether it did: the guest may be paused on {record.peer} because"
                " this host owns it, and nothing lets that go on by itself"
            )
        return (
            f"a copy may be on {record.peer}, or the guest is paused there because this host owns it: that is older than what"
            " clients know, and nothing lets it go on by itself"
        )

    async def close(self) -> None:
        """The agent stops. Guests run on; held output stays held."""
        await self._watchdog.close()  # first: what follows may take longer than it waits
        tasks = [*self._tasks.values(), *(task for task in (self._sweeping, self._pausing) if task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._roles is not None:
            await self._roles.close()
        await self.backup.close()

    # Reading

    async def agent(self) -> dict[str, Any]:
        """This agent and its host."""
        facts = await self._ports.hypervisor.facts()
        return {
            "host": self.settings.host,
            "version": __version__,
            "xen_version": facts.xen_version,
            "cpu_policy": facts.cpu_policy,
            "free_memory_kib": facts.free_memory_kib,
            "peers": {name: {"address": address} for name, address in self.peers.items()},
            "watchdog": self.watchdog(),
        }

    def watchdog(self) -> dict[str, Any] | None:
        """See `WatchdogKeeper.describe`."""
        return self._watchdog.describe()

    def last_protector(self, name: str) -> PrimaryService | None:
        """What looks after a domain that is protected here, or has done so since the agent started."""
        return self._primaries.get(name)

    async def overview(self) -> list[Status]:
        """Every domain this agent has to do with."""
        overrides = self._roles.overrides if self._roles is not None else ()
        names = sorted({*self._primaries, *self.backup.names(), *overrides, *self._pauses.names()})
        return [await self.status(name) for name in names]

    async def topology(self) -> dict[str, Any]:
        """Every guest as this host sees it; see `Topology.view`."""
        return await self._topology.view(self)

    async def status(self, name: str) -> Status:
        """One domain. Raises DomainNotFound for a name that neither the agent nor Xen knows."""
        primary = self._primaries.get(name)
        paused = None if self._is_protected(name) else self._pauses.status(name)
        if paused is not None:
            return paused
        if primary is not None and not (is_over(primary) and self.backup.copy_of(name) is not None):
            return await primary_status(primary, self._ports.clock.now(), self._watchdog.problem)
        copy = self.backup.copy_of(name)
        if copy is not None:
            override = self._roles.overrides.get(name) if self._roles is not None else None
            return copy_status(copy, self._ports.clock.now(), override)
        domain = await self._ports.hypervisor.domain(name)
        override = self._roles.overrides.get(name) if self._roles is not None else None
        relayed = "left to a relay of its checkpoints" if self._is_reserved(name) else None
        return none_status(domain.name, override or relayed)

    def records(self, name: str, limit: int) -> list[dict[str, Any]]:
        """Figures of the last epochs of a domain that is protected here."""
        primary = self._primary(name, "records")
        return [asdict(record) for record in list(primary.epochs)[-limit:]]

    async def probe(self, name: str, peer: str) -> dict[str, Any]:
        """Whether this domain could be protected to that peer, with every reason against it. Changes nothing."""
        reasons: list[dict[str, Any]] = []
        facts: dict[str, Any] = {}
        address = self._address(peer)
        try:
            domain = await self._ports.hypervisor.domain(name)
            alone = self._runs_alone(name, peer)
            if alone is None:
                self._refuse_what_is_taken(name, "probe")
            if self._watchdog.problem is not None:
                raise self._watchdog.problem
            generation = 1 if alone is None else alone.record.generation
            source = await self._ports.hypervisor.open_source(domain)
            await source.close()
            disks = hello_disks(await self._ports.taps.of(domain))
            host = await self._ports.hypervisor.facts()
            facts = {"memory_kib": domain.memory_kib, "guest_type": domain.guest_type.value, **asdict(host)}
            hello = hello_for(domain, host, self.settings.host, generation=generation, purpose="probe", disks=disks)
            connection, answer = await ask(self._ports.connector, address, hello, self.settings)
            await connection.close()
            if isinstance(answer, Refuse):
                reasons += [
                    {"code": reason.code, "message": reason.message, "hint": reason.hint} for reason in answer.reasons
                ]
        except RemusError as error:
            reasons.append({"code": error.code, "message": error.message, "hint": error.hint or ""})
        return {"ok": not reasons, "reasons": reasons, "facts": facts}

    async def fence_check(self, host: str) -> dict[str, Any]:
        """What the fence agent of a peer says; nothing is ever switched. Raises ConfigError when none is configured for it,
        FencingError when it does not work."""
        self._address(host)
        fencing = self._ports.fencing
        if fencing is None or not fencing.covers(host):
            raise ConfigError(
                f"no fence agent is configured for {host}", operation="fence-check", hint=f"add [fencing.{host}]"
            )
        found = await fencing.check(host)
        return {**asdict(found), "power": found.power.value, "unknown_options": list(found.unknown_options)}

    # Acting

    async def protect(
        self,
        name: str,
        peer: str,
        *,
        interval_ms: int,
        output_limit_bytes: int,
        wait: bool,
        timeout: float,
        progress: Progress,
    ) -> Status:
        """Start protecting a running domain; one that runs on alone looks for its backup at once. With wait, return when it is
        protected: when the first epoch is committed."""
        address = self._address(peer)
        alone = self._runs_alone(name, peer)
        if alone is not None:
            await self._look_for_backup(alone, wait=wait, timeout=timeout, progress=progress)
            return await self.status(name)
        async with self._lock:
            self._refuse_what_is_taken(name, "protect")
            self._refuse_copies(name, "protect")
            self._watchdog.require(name)
            domain = await self._ports.hypervisor.domain(name)
            record = GuestRecord(
                name=name,
                uuid=domain.uuid,
                role="primary",
                peer=peer,
                generation=await self._claim(domain, peer),
                committed=False,
                interval_ms=interval_ms,
                output_limit_bytes=output_limit_bytes,
            )
            source = await self._ports.hypervisor.open_source(domain)
            await source.close()
            await self._ports.taps.of(domain)
            await self._ports.store.save(record)
            address_checked = address
            service = self._start(domain, record)
            log.info("%s: protecting to %s (%s)", name, peer, address_checked)
        if wait:
            await self._until_protected(service, timeout, progress)
        return await self.status(name)

    async def reserve(self, name: str, seconds: float) -> Reserved:
        """Leave a domain to a relay of checkpoints that somebody else takes, for so many seconds from now on (0: it is over).
        The domain need not run here: a relay can send what was taken earlier."""
        async with self._lock:
            if self._is_protected(name):
                raise AlreadyProtected(
                    f"this host's agent protects it, to {self._primaries[name].record.peer}",
                    operation="relay",
                    domain=name,
                    left="nothing was changed",
                    hint=f"only one may take its checkpoints; first: remusctl unprotect {name}",
                )
            self._refuse_copies(name, "relay")
            if seconds > 0:
                self._reserved[name] = self._ports.clock.now() + seconds
            else:
                self._reserved.pop(name, None)
        return Reserved(self.settings.host, self._generation(name), await self._ports.hypervisor.facts())

    async def unprotect(self, name: str, *, force: bool, timeout: float, progress: Progress) -> Status:
        """End protection: the copy is destroyed first, then held output flows. On a backup: destroy the copy (force)."""
        await self._pauses.forget(name, "its protection was ended for good")
        await self._unprotect(name, force=force, timeout=timeout, progress=progress)
        return await self.status(name)

    async def pause(self, name: str, *, seconds: float, reason: str, timeout: float, progress: Progress) -> Status:
        """Suspend a protection; see `Pauses.pause`."""
        await self._pauses.pause(name, seconds, reason, timeout, progress)
        return await self.status(name)

    async def resume_protection(self, name: str, *, wait: bool, timeout: float, progress: Progress) -> Status:
        """End a pause; with wait, return when it is protected again. Where that fails it is tried again by itself."""
        note = await self._pauses.resume(name)
        return await self.protect(
            name,
            note.peer,
            interval_ms=note.interval_ms,
            output_limit_bytes=note.output_limit_bytes,
            wait=wait,
            timeout=timeout,
            progress=progress,
        )

    async def _unprotect(self, name: str, *, force: bool, timeout: float, progress: Progress) -> None:
        service = self._primaries.get(name)
        if service is None or is_over(service):
            copy = self.backup.copy_of(name)
            if copy is not None and copy.state.value in ("receiving", "ready", "orphaned", "stale"):
                if not force:
                    raise refuse_on_backup(name)
                await self.backup.discard(name)
            return
        if service.state not in NOT_OURS:
            await service.require_local_disks()
        service.ask_stop(force=force)
        await self._watch(service, timeout, progress, "unprotect", lambda: is_over(service))
        if service.held_because is not None:
            output = isinstance(service.held_because, OutputBufferError)
            what = "the guest's output is still held" if output else "a disk of it is still tapped"
            raise (OutputBufferError if output else DiskError)(
                f"the copy is gone, but {what}: {service.held_because}",
                operation="unprotect",
                domain=name,
                left=f"stopping: the guest runs, {what}, the agent tries again every few seconds",
                hint="see `remusctl status`, and `journalctl -u remus-agent` on this host",
            )
        if not is_over(service):
            raise RefusedError(
                "the backup did not confirm that its copy is gone",
                operation="unprotect",
                domain=name,
                left=f"{service.state.value}: the guest runs, its output is held",
                hint="destroy the copy on the backup and repeat with --force",
            )

    async def switchover(
        self, name: str, *, timeout: float, dry_run: bool, generation: int | None, progress: Progress
    ) -> dict[str, Any]:
        """Move a protected guest to its backup, with nothing lost. timeout: seconds that its last epoch may take."""
        service = self._primary(name, "switchover")
        if is_over(service):
            raise DomainNotFound("it is not protected on this host", operation="switchover", domain=name)
        switchover.refuse_unless_protected(service, service.record.generation, generation)
        peer = service.record.peer
        if dry_run:
            return {**switchover.facts(service, peer), "generation": service.record.generation}
        service.switchover.ask(timeout)
        longest = timeout + self.settings.suspend + self.settings.activate + 2 * self.settings.ack
        await self._watch(
            service, longest, progress, "switchover", lambda: is_over(service) or not service.switchover.asked
        )
        switchover.raise_unless_departed(service, peer)
        status = await primary_status(service, self._ports.clock.now())
        return {**switchover.facts(service, peer), "status": status.as_dict()}

    async def failover(
        self,
        name: str,
        *,
        generation: int | None,
        session: str | None,
        fenced: dict[str, str],
        accept_loss: bool = False,
    ) -> Status:
        """Activate this host's copy; see `BackupService.failover`, and with a witness `Roles.failover`."""
        if self._roles is not None:
            await self._roles.failover(
                name, generation=generation, session=session, fenced=fenced, accept_loss=accept_loss
            )
            # It is on record, and a new backup is looked for when the witness knows of it.
            return await self.status(name)
        await self._by_word.failover(
            lambda before_run: self.backup.failover(
                name, before_run, generation=generation, session=session, fenced=fenced
            ),
            lambda: operators_word(fenced),
        )
        return await self.status(name)

    async def failover_trial(
        self,
        name: str,
        *,
        generation: int | None,
        session: str | None,
        fenced: dict[str, str],
        accept_loss: bool,
    ) -> dict[str, Any]:
        """What `failover` would do; see `failover_trial`."""
        return await failover_trial(
            name,
            self.backup,
            self._ports.witness,
            self.settings,
            generation=generation,
            session=session,
            fenced=fenced,
            accept_loss=accept_loss,
        )

    async def forget(self, uuid: str, *, force: bool, generation: int | None, dry_run: bool) -> dict[str, Any]:
        """Remove the witness's record of a guest that is gone for good; see `Forgetting.forget`."""
        async with self._lock:  # nobody begins to protect it meanwhile
            return await self._forgetting.forget(uuid, force=force, generation=generation, dry_run=dry_run)

    # What `pausing.Protections` asks for

    def protector(self, name: str) -> PrimaryService | None:
        """What protects this guest now."""
        return self._primaries.get(name) if self._is_protected(name) else None

    def has_copy(self, name: str) -> bool:
        """Whether this host is its backup."""
        copy = self.backup.copy_of(name)
        return copy is not None and copy.state.value not in ("active", "discarded")

    async def begin(self, note: PauseNote) -> None:
        """Protect a guest again whose pause is over."""
        domain = await self._ports.hypervisor.domain(note.name)
        if domain.uuid != note.uuid:
            raise DomainNotFound("another domain has taken its name", domain=note.name)
        await self.protect(
            note.name,
            note.peer,
            interval_ms=note.interval_ms,
            output_limit_bytes=note.output_limit_bytes,
            wait=False,
            timeout=0.0,
            progress=lambda *_, **__: None,
        )

    def failure(self, name: str) -> str | None:
        """Why its last protection ended, if it failed."""
        service = self._primaries.get(name)
        return None if service is None or service.state is not State.FAILED else service.reason

    async def end(self, name: str, timeout: float, progress: Progress) -> None:
        """End a protection that is to be paused."""
        await self._unprotect(name, force=False, timeout=timeout, progress=progress)

    # Helpers

    async def _depart(self, domain: Domain) -> None:
        """The backup runs the guest by now."""
        await destroy_stale(domain, self._ports.hypervisor, self._outputs)
        self.backup.left(domain.name)

    def _guests(self) -> list[str]:
        return [service.domain.uuid for service in self._running()]

    def _running(self) -> list[PrimaryService]:
        return [each for each in self._primaries.values() if not is_over(each) and each.state not in NOT_OURS]

    def _under_authority(self) -> list[str]:
        return [name for name, each in self._primaries.items() if not is_over(each) and AUTHORITY[each.state]]

    def _protector(self, uuid: str) -> PrimaryService | None:
        mine = (each for each in self._primaries.values() if each.domain.uuid == uuid)
        return next((each for each in mine if not is_over(each)), None)

    def _owned(self, uuid: str) -> int | None:
        """See `BackupService.owned`."""
        mine = [each.record.generation for each in self._running() if each.domain.uuid == uuid]
        return max(mine, default=None)

    def _gives_way(self, hello: Hello) -> Domain | None:
        """See `BackupService.gives_way`: what is paused here because that host owns it."""
        paused = (
            each for each in self._primaries.values() if each.domain.uuid == hello.uuid and each.state in NOT_OURS
        )
        return next((each.domain for each in paused if each.record.peer == hello.host and not is_over(each)), None)

    async def _make_way(self, hello: Hello) -> None:
        """See `BackupService.make_way`: a session of the new owner of a guest that is paused here shows that it runs there."""
        for name, service in list(self._primaries.items()):
            if service.domain.uuid != hello.uuid or service.state not in NOT_OURS:
                continue
            if hello.generation <= service.record.generation:
                raise RefusedError(
                    f"the session is of generation {hello.generation}, older than the guest that is paused here",
                    operation="open session",
                    domain=name,
                )
            log.info("%s: %s runs it, so it is destroyed here", name, hello.host)
            service.owner_runs()
            await asyncio.wait({self._tasks[name]}, timeout=self.settings.connect / 2)
            if not is_over(service):
                raise RefusedError(
                    "the guest that was given up here is not destroyed yet", operation="open session", domain=name
                )

    def _adopt(self, domain: Domain, record: GuestRecord) -> None:
        if record.peer in self.peers:
            self._start(domain, record, solo=True)
        else:
            log.error("%s: its peer %s is not configured, so it stays unprotected", record.name, record.peer)

    async def _claim(self, domain: Domain, peer: str) -> int:
        """The generation with which a domain that runs here with its output open is to be replicated."""
        return self._generation(domain.name) if self._roles is None else await self._roles.claim(domain, peer)

    def _start(
        self, domain: Domain, record: GuestRecord, *, resumed: bool = False, solo: bool = False
    ) -> PrimaryService:
        roles = self._roles
        service = PrimaryService(
            domain,
            record,
            self.peers[record.peer],
            self._outputs.of(domain, record.output_limit_bytes),
            self._ports,
            self.settings,
            resumed=resumed,
            solo=roles is not None and (solo or resumed),
            ownership=None if roles is None else roles.ownership(record),
            destroy=lambda domain: destroy_stale(domain, self._ports.hypervisor, self._outputs),
            depart=self._depart,
        )
        self._primaries[domain.name] = service
        task = asyncio.create_task(service.run(), name=f"primary {domain.name}")
        task.add_done_callback(lambda done: self._report_end(domain.name, done))
        task.add_done_callback(lambda _: self._forget_departed(domain.name, service))
        self._tasks[domain.name] = task
        return service

    def _report_end(self, name: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.critical("%s: its protection ended by a defect; output stays held", name, exc_info=error)
            self._ports.events.note(name, "defect", reason=repr(error))

    def _forget_departed(self, name: str, service: PrimaryService) -> None:
        """A guest that was moved away is none of this host's any more."""
        if service.state is State.DEPARTED and self._primaries.get(name) is service:
            del self._primaries[name], self._tasks[name]

    def _is_protected(self, name: str) -> bool:
        service = self._primaries.get(name)
        return service is not None and not is_over(service)

    def _is_reserved(self, name: str) -> bool:
        return self._reserved.get(name, 0.0) > self._ports.clock.now()

    def _generation(self, name: str) -> int:
        """With which a domain that runs here is replicated."""
        copy = self.backup.copy_of(name)
        return copy.generation if copy is not None else 1

    def _refuse_what_is_taken(self, name: str, operation: str) -> None:
        if self._is_protected(name):
            service = self._primaries[name]
            peer = service.record.peer
            why = f"it is protected already, to {peer}"
            if service.state in ALONE:
                why = f"it runs on alone; its backup is {peer}"
            if service.state in NOT_OURS:
                why = f"{peer} owns it, and what is paused here may be the only one there is"
            raise AlreadyProtected(
                why,
                operation=operation,
                domain=name,
                left="nothing was changed",
            )
        if self._is_reserved(name):
            raise RefusedError(
                "a relay sends its checkpoints to another host (remusctl stream send)",
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint="only one may take its checkpoints: end the relay first",
            )

    def _refuse_copies(self, name: str, operation: str) -> None:
        copy = self.backup.copy_of(name)
        if copy is not None and copy.state.value in ("receiving", "ready", "orphaned", "stale", "activating"):
            raise RefusedError(
                "this host holds a copy of it as backup",
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint=f"{operation} it on the host where it runs",
            )

    def _primary(self, name: str, operation: str) -> PrimaryService:
        service = self._primaries.get(name)
        if service is None:
            raise DomainNotFound("it is not protected on this host", operation=operation, domain=name)
        return service

    def _address(self, peer: str) -> str:
        try:
            return self.peers[peer]
        except KeyError:
            raise ConfigError(
                f"no peer {peer!r} is configured; there is {', '.join(sorted(self.peers)) or 'none'}",
                hint="name one of them, or add it to [replication.peers]",
            ) from None

    def _runs_alone(self, name: str, peer: str) -> PrimaryService | None:
        """What looks after a guest that runs on without its backup, this peer, output open."""
        service = self._primaries.get(name)
        alone = service is not None and not is_over(service) and service.state in ALONE
        return service if alone and service is not None and service.record.peer == peer else None

    async def _look_for_backup(
        self, service: PrimaryService, *, wait: bool, timeout: float, progress: Progress
    ) -> None:
        """Try now. With wait, return when it is protected; raises when this attempt failed."""
        tried = service.state is not State.SOLO
        service.pause.end()

        def settled() -> bool:
            nonlocal tried
            tried = tried or service.state is not State.SOLO
            return is_over(service) or service.state is State.PROTECTED or (tried and service.state is State.SOLO)

        if wait:
            await self._until_protected(service, timeout, progress, settled)

    async def _until_protected(
        self, service: PrimaryService, seconds: float, progress: Progress, settled: Callable[[], bool] | None = None
    ) -> None:
        there = frozenset({State.PROTECTED, State.SILENT})
        usual = lambda: is_over(service) or service.state in there  # noqa: E731
        await self._watch(service, seconds, progress, "protect", settled or usual)
        if service.state is State.PROTECTED:
            return
        if service.error is not None:
            error = service.error
            error.left = error.left or f"{service.state.value}: the guest runs on"
            raise error
        if service.state not in (State.FREEING, State.STOPPED):
            raise PeerTimeout(
                f"not protected within {seconds:g} s",
                operation="protect",
                domain=service.domain.name,
                left=f"{service.state.value}: seeding goes on",
                hint="watch it with `remusctl status`, or wait longer with a larger timeout",
            )

    async def _watch(
        self, service: PrimaryService, seconds: float, progress: Progress, what: str, done: Callable[[], bool]
    ) -> None:
        task = self._tasks[service.domain.name]
        await watch(service, task, self._ports.clock, seconds, progress, what, done)
