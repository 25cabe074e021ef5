"""One host's agent: every domain it protects or keeps a copy of, and what the control socket asks of it.

What is done, and how it is found out, is in modules of its own; here they are put together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from remus_agent import __version__
from remus_agent.cost_ports import Cost
from remus_agent.errors import ConfigError
from remus_agent.observe.status import Status
from remus_agent.ports import OutputBuffers
from remus_agent.relay_ports import Reserved
from remus_agent.services.backup import BackupService
from remus_agent.services.costing import Costing
from remus_agent.services.defects import Defects
from remus_agent.services.failover_trial import failover_trial
from remus_agent.services.forgetting import Forgetting
from remus_agent.services.fresh_word import fresh_word
from remus_agent.services.hand_over import ByWord, HandOvers
from remus_agent.services.lasting import lasting
from remus_agent.services.making_way import MakingWay
from remus_agent.services.old_words import OldWords
from remus_agent.services.override import operators_word
from remus_agent.services.pausing import Pauses
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary import PrimaryService
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.probing import Probing
from remus_agent.services.protecting import Protecting, address_of
from remus_agent.services.put_off import PutOff
from remus_agent.services.report import none_status
from remus_agent.services.resumption import Resumption
from remus_agent.services.roles import Roles, Seams
from remus_agent.services.selftest import SelfTest
from remus_agent.services.settings import Settings
from remus_agent.services.statuses import Overview, Statuses
from remus_agent.services.sweep import sweep_copies, sweep_outputs, sweep_taps
from remus_agent.services.taken_domains import TakenDomains
from remus_agent.services.topology import Topology
from remus_agent.services.watch import Progress
from remus_agent.services.watchdog import WatchdogKeeper
from remus_agent.store_ports import GuestStore


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
        release: str | None = None,
    ) -> None:
        """paths: second addresses of peers, over which heartbeats are sent to them. release: that runs; None: none is known."""
        paths = paths or {}
        self._release = release
        hypervisor, clock = ports.hypervisor, ports.clock
        self.settings = settings
        self.peers = peers
        self.backup = backup
        self._ports = ports
        self._paths = paths
        self._outputs = outputs
        self._primaries = primaries = Primaries(settings, peers, ports, outputs, backup)
        self._put_off = put_off = PutOff(clock)
        self._roles = roles = self._with_witness()
        self._by_word = ByWord(ports.store, backup.taking_over, clock, settings)
        self._look_after_sessions()
        self._topology = Topology(
            settings.host, peers, paths, clock, hypervisor, ports.witness, backup, roles, primaries
        )
        seconds = settings.watchdog_seconds if roles is not None else 0
        self._watchdog = watchdog = WatchdogKeeper(
            ports.watchdog,
            seconds,
            clock,
            ports.events,
            lambda: [*primaries.under_authority(), *put_off.under_authority()],
        )
        self._taken = taken = TakenDomains(settings, hypervisor, primaries, put_off, backup, clock)
        self._protecting = Protecting(settings, peers, ports, backup, primaries, taken, roles, watchdog)
        self._probing = Probing(settings, peers, ports, primaries, taken, watchdog)
        self._pauses = Pauses(ports.pauses, clock, ports.events, settings.retry, self._protecting)
        self._old_words = old_words = OldWords(
            hypervisor, ports.store, backup.beats, clock, settings, witnessed=roles is not None
        )
        self._costing = costing = Costing(ports.costs, backup.copies)
        self._statuses = Statuses(
            hypervisor, clock, primaries, backup, taken, self._pauses, roles, watchdog, old_words, put_off, costing
        )
        self._forgetting = Forgetting(settings.host, ports, backup, primaries.of_guest)
        self._resumption = Resumption(peers, settings, ports, primaries, roles, old_words, put_off)
        self._defects = Defects(self._resumption, clock, settings.retry)
        primaries.after_defect = put_off.look_again = self._defects.after
        self._pausing: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def _with_witness(self) -> Roles | None:
        if self._ports.witness is None:
            return None
        seams = Seams(lambda: [*self._primaries.guests(), *self._put_off.guests()], self._primaries.adopt, self._paths)
        roles = Roles(self._ports.witness, self.settings, self._ports, self.backup, seams)
        self._primaries.rights = roles.ownership
        return roles

    def _look_after_sessions(self) -> None:
        """What the backup asks of the rest of the agent when a session arrives, or is handed over."""
        backup, ports = self.backup, self._ports
        way = MakingWay(self._primaries, self.settings.connect / 2)
        if self._roles is not None:
            backup.owned = way.owned
            backup.witnessed = True
        backup.hand_overs = HandOvers(
            self._roles or self._by_word, backup.copies_of, ports.hypervisor, self.settings, ports.clock
        )
        backup.gives_way = way.gives_way
        backup.make_way = way.make_way

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
        be resumed: see `Resumption.run`."""
        hypervisor, events = self._ports.hypervisor, self._ports.events
        self._watchdog.take_over()
        await sweep_outputs(self._outputs, hypervisor, events)
        await self._pauses.load()
        found = await self._resumption.run()
        # Last, so that nobody who waits for a tap waits for this too.
        await sweep_taps(self._ports.taps, found.kept, events)
        if self._roles is not None:
            self._roles.start(found.records)
        self._watchdog.start()
        sweeping = sweep_copies(
            hypervisor,
            self._ports.clock,
            events,
            found.unread,
            lambda: found.starting | self.backup.working_names(),
        )
        self._sweeping = asyncio.create_task(sweeping, name="sweep copies")
        pausing = lasting(self._pauses.run, "pauses", self._ports.clock, events, self.settings.retry)
        self._pausing = asyncio.create_task(pausing, name="pauses")

    async def close(self) -> None:
        """The agent stops. Guests run on; held output stays held."""
        await self._watchdog.close()  # first: what follows may take longer than it waits
        await self._defects.close()
        tasks = [
            *self._primaries.tasks.values(),
            *(task for task in (self._sweeping, self._pausing) if task is not None),
        ]
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
            "release": self._release,
            "xen_version": facts.xen_version,
            "cpu_policy": facts.cpu_policy,
            "free_memory_kib": facts.free_memory_kib,
            "peers": {name: {"address": address} for name, address in self.peers.items()},
            "watchdog": self.watchdog(),
            "shared_cost": None if (shared := await self.shared_cost()) is None else asdict(shared),
        }

    def watchdog(self) -> dict[str, Any] | None:
        """See `WatchdogKeeper.describe`."""
        return self._watchdog.describe()

    async def shared_cost(self) -> Cost | None:
        """What its process uses for all guests together, or for none; None where that is not known."""
        account = await self._costing.look()
        return None if account is None else account.shared

    def last_protector(self, name: str) -> PrimaryService | None:
        """What looks after a domain that is protected here, or has done so since the agent started."""
        return self._primaries.get(name)

    async def overview(self) -> list[Status]:
        """Every domain this agent has to do with."""
        return (await self.moment()).domains

    async def moment(self) -> Overview:
        """The same, and what of their cost is nobody's alone."""
        return await self._statuses.overview()

    async def topology(self) -> dict[str, Any]:
        """Every guest as this host sees it; see `Topology.view`."""
        return await self._topology.view(self)

    async def status(self, name: str) -> Status:
        """One domain. Raises DomainNotFound for a name that neither the agent nor Xen knows."""
        return await self._statuses.of(name)

    def records(self, name: str, limit: int) -> list[dict[str, Any]]:
        """Figures of the last epochs of a domain that is protected here."""
        primary = self._primaries.required(name, "records")
        return [asdict(record) for record in list(primary.epochs)[-limit:]]

    async def probe(self, name: str, peer: str) -> dict[str, Any]:
        """Whether this domain could be protected to that peer, with every reason against it. Changes nothing."""
        return await self._probing.probe(name, peer)

    async def fence_check(self, host: str) -> dict[str, Any]:
        """What the fence agent of a peer says; nothing is ever switched. Raises ConfigError when none is configured for it,
        FencingError when it does not work."""
        address_of(self.peers, host)
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
        """Start protecting a running domain; see `Protecting.protect`."""
        self._old_words.refuse(name, "protect")
        await self._protecting.protect(
            name,
            peer,
            interval_ms=interval_ms,
            output_limit_bytes=output_limit_bytes,
            wait=wait,
            timeout=timeout,
            progress=progress,
        )
        return await self.status(name)

    async def reserve(self, name: str, seconds: float) -> Reserved:
        """Leave a domain to a relay; see `TakenDomains.reserve`."""
        return await self._taken.reserve(name, seconds)

    async def unprotect(self, name: str, *, force: bool, timeout: float, progress: Progress) -> Status:
        """End protection, also one that is paused; see `Protecting.unprotect`."""
        if await self._old_words.give_up(name, force=force):
            return none_status(name, "what was built here to run was destroyed")
        await self._pauses.forget(name, "its protection was ended for good")
        await self._protecting.unprotect(name, force=force, timeout=timeout, progress=progress)
        return await self.status(name)

    async def require_unprotect(self, name: str, *, force: bool) -> Status:
        """What `unprotect` would be about. Raises RemusError where it would be refused now. Changes nothing."""
        if self._old_words.why(name) is None:
            await self._protecting.require_end(name, force=force)
        elif not force:
            self._old_words.refuse(name, "unprotect")
        return await self.status(name)

    async def require_pause(self, name: str) -> Status:
        """The same of `pause`."""
        await self._pauses.require(name)
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

    async def switchover(
        self, name: str, *, timeout: float, dry_run: bool, generation: int | None, progress: Progress
    ) -> dict[str, Any]:
        """Move a protected guest to its backup, with nothing lost; see `Protecting.switchover`."""
        return await self._protecting.switchover(
            name, timeout=timeout, dry_run=dry_run, generation=generation, progress=progress
        )

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
        async with fresh_word(self._ports.clock, self.settings) as word:
            if self._old_words.why(name) is not None:
                record = await self._old_words.look(
                    name, fenced, generation=generation, session=session, accept_loss=accept_loss
                )
                await self._old_words.renew(record, word, fenced)
                await self._resumption.again(name)
                self._old_words.require_finished(name)
            elif self._roles is not None:
                await self._roles.failover(
                    name, word, generation=generation, session=session, fenced=fenced, accept_loss=accept_loss
                )
                # It is on record, and a new backup is looked for when the witness knows of it.
            else:
                await self._by_word.failover(
                    lambda before_run: self.backup.failover(
                        name, before_run, generation=generation, session=session, fenced=fenced
                    ),
                    word,
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
        if self._old_words.why(name) is not None:
            return self._old_words.trial(
                await self._old_words.look(
                    name, fenced, generation=generation, session=session, accept_loss=accept_loss
                )
            )
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
        async with self._taken.lock:  # nobody begins to protect it meanwhile
            return await self._forgetting.forget(uuid, force=force, generation=generation, dry_run=dry_run)
