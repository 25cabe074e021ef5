"""Beginning and ending protections at somebody's word, and moving a guest: who asks waits for what comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from remus_agent.errors import ConfigError, DiskError, DomainNotFound, OutputBufferError, PeerTimeout, RefusedError
from remus_agent.machines.primary import NOT_OURS, State
from remus_agent.ports import Domain
from remus_agent.services import switchover
from remus_agent.services.backup import BackupService
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary import PrimaryService, is_over
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.report import primary_status
from remus_agent.services.roles import Roles
from remus_agent.services.settings import Settings
from remus_agent.services.taken_domains import TakenDomains
from remus_agent.services.watch import Progress, watch
from remus_agent.services.watchdog import WatchdogKeeper
from remus_agent.store_ports import GuestRecord, PauseNote

log = logging.getLogger(__name__)


class Protecting:
    """On one host; also what `pausing.Protections` asks for. peers: their addresses. roles: None without a witness."""

    def __init__(
        self,
        settings: Settings,
        peers: Mapping[str, str],
        ports: PrimaryPorts,
        backup: BackupService,
        primaries: Primaries,
        taken: TakenDomains,
        roles: Roles | None,
        watchdog: WatchdogKeeper,
    ) -> None:
        self._settings = settings
        self._peers = peers
        self._ports = ports
        self._backup = backup
        self._primaries = primaries
        self._taken = taken
        self._roles = roles
        self._watchdog = watchdog
        self._turns: dict[str, asyncio.Lock] = {}

    def _turn(self, name: str) -> asyncio.Lock:
        """For whoever begins to protect this guest, or looks whether it is protected in order to end that."""
        return self._turns.setdefault(name, asyncio.Lock())

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
    ) -> None:
        """Start protecting a running domain; one that runs on alone looks for its backup at once. With wait, return when it is
        protected: when the first epoch is committed."""
        address = address_of(self._peers, peer)
        alone = self._primaries.alone(name, peer)
        if alone is not None:
            await self._look_for_backup(alone, wait=wait, timeout=timeout, progress=progress)
            return
        async with self._turn(name), self._taken.lock:
            self._taken.refuse_member(name, "protect")
            self._taken.refuse_what_is_taken(name, "protect")
            self._taken.refuse_copies(name, "protect")
            self._taken.refuse_copies_of_members(name, "protect")
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
                members=self._settings.groups.get(name, ()),
            )
            source = await self._ports.hypervisor.open_source(domain)
            await source.close()
            await self._ports.taps.of(domain)
            await self._ports.store.save(record)
            service = self._primaries.start(domain, record)
            log.info("%s: protecting to %s (%s)", name, peer, address)
        if wait:
            await self._until_protected(service, timeout, progress)

    async def unprotect(self, name: str, *, force: bool, timeout: float, progress: Progress) -> None:
        """End protection: the copy is destroyed first, then held output flows. On a backup: destroy the copy (force)."""
        self._taken.refuse_put_off(name, "unprotect")
        # One that is about to be protected is protected first, or that would come behind its end.
        async with self._turn(name):
            service = self._primaries.get(name)
        if service is None or is_over(service):
            if self._holds_copy(name, service, force=force):
                await self._backup.discard(name)
            return
        if service.state not in NOT_OURS:
            await service.require_local_disks()
        was_silent = service.state in (State.SILENT, State.RECONNECTING)

        def unconfirmed() -> bool:
            return service.state is State.SILENT and not was_silent

        ends = self._ports.clock.now() + timeout
        service.ask_stop(force=force)
        await self._watch(service, timeout, progress, "unprotect", lambda: is_over(service) or unconfirmed())
        # Its session failed before the backup could confirm it; the operator has vouched for it.
        if force and unconfirmed():
            service.ask_stop(force=True)
            await self._watch(service, ends - self._ports.clock.now(), progress, "unprotect", lambda: is_over(service))
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

    async def require_end(self, name: str, *, force: bool) -> None:
        """Raises RemusError where `unprotect` would be refused now. Changes nothing."""
        self._taken.refuse_put_off(name, "unprotect")
        async with self._turn(name):
            service = self._primaries.get(name)
        if service is None or is_over(service):
            self._holds_copy(name, service, force=force)
            return
        if service.state not in NOT_OURS:
            await service.require_local_disks()
        service.require_stop(force=force)

    def _holds_copy(self, name: str, service: PrimaryService | None, *, force: bool) -> bool:
        """Whether there is a copy here that `unprotect` destroys. service: whose protection is over; None: there was none. Raises
        RefusedError where this host is about to run it, where `force` is missing, and for a member of a group."""
        copy = self._backup.copy_of(name)
        if copy is not None and copy.state.value in ("taking", "activating"):
            raise RefusedError(
                f"this host is about to run it: {copy.reason or copy.state.value}",
                operation="unprotect",
                domain=name,
                left="nothing was changed",
                hint=f"see `remusctl status {name}`, and ask again when it runs here, or its copy stands",
            )
        if copy is not None and copy.state.value in ("receiving", "ready", "orphaned", "stale"):
            if not force:
                raise _refuse_on_backup(name)
            return True
        if service is None:
            self._taken.refuse_member(name, "unprotect")
        return False

    async def switchover(
        self, name: str, *, timeout: float, dry_run: bool, generation: int | None, progress: Progress
    ) -> dict[str, Any]:
        """Move a protected guest to its backup, with nothing lost. timeout: seconds that its last epoch may take."""
        service = self._primaries.required(name, "switchover")
        if is_over(service):
            raise DomainNotFound("it is not protected on this host", operation="switchover", domain=name)
        switchover.refuse_unless_protected(service, service.record.generation, generation)
        peer = service.record.peer
        if dry_run:
            return {**switchover.facts(service, peer), "generation": service.record.generation}
        service.switchover.ask(timeout)
        longest = timeout + self._settings.suspend + self._settings.activate + 2 * self._settings.ack
        await self._watch(
            service, longest, progress, "switchover", lambda: is_over(service) or not service.switchover.asked
        )
        switchover.raise_unless_departed(service, peer)
        status = await primary_status(service, self._ports.clock.now())
        return {**switchover.facts(service, peer), "status": status.as_dict()}

    # What `pausing.Protections` asks for

    def protector(self, name: str) -> PrimaryService | None:
        """What protects this guest now."""
        return self._primaries.get(name) if self._primaries.protects(name) else None

    def has_copy(self, name: str) -> bool:
        """Whether this host is its backup."""
        copy = self._backup.copy_of(name)
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
        service = self._primaries.get(name)
        await self.unprotect(name, force=False, timeout=timeout, progress=progress)
        if service is not None and service.state is State.DEPARTED:
            peer = service.record.peer
            raise RefusedError(
                f"a switchover was faster: it was moved to {peer}",
                operation="pause",
                domain=name,
                left=f"it runs on {peer}, nothing is paused",
                hint=f"pause it on {peer}, once it is protected there",
            )

    # Helpers

    async def _claim(self, domain: Domain, peer: str) -> int:
        """The generation with which a domain that runs here with its output open is to be replicated."""
        return self._taken.generation(domain.name) if self._roles is None else await self._roles.claim(domain, peer)

    async def _look_for_backup(
        self, service: PrimaryService, *, wait: bool, timeout: float, progress: Progress
    ) -> None:
        """Try now. With wait, return when it is protected; raises when this attempt failed."""
        tried = service.state is not State.SOLO
        service.lull.end()

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
        task = self._primaries.tasks[service.domain.name]
        await watch(service, task, self._ports.clock, seconds, progress, what, done)


def address_of(peers: Mapping[str, str], peer: str) -> str:
    """Where a peer listens. Raises ConfigError for one that is not configured."""
    try:
        return peers[peer]
    except KeyError:
        raise ConfigError(
            f"no peer {peer!r} is configured; there is {', '.join(sorted(peers)) or 'none'}",
            hint="name one of them, or add it to [replication.peers]",
        ) from None


def _refuse_on_backup(domain: str) -> RefusedError:
    """The error for an operation that belongs on the primary."""
    return RefusedError(
        "this host is the backup of it",
        operation="unprotect",
        domain=domain,
        left="nothing was changed",
        hint="run it on the primary; to destroy the copy here all the same, use --force",
    )
