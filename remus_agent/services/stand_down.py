"""A host that has lost a guest to another one: the guest here is paused, and destroyed when the new owner is known to run it.
Nothing that it has sent gets out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from remus_agent.errors import DomainNotFound, RemusError
from remus_agent.faults import FaultName, active
from remus_agent.machines.primary import Event
from remus_agent.ports import Domain, Hypervisor, OutputBuffer, OutputBuffers
from remus_agent.services.asking import Asked, first_of
from remus_agent.services.kept_record import KeptRecord
from remus_agent.services.leaving import close_disks
from remus_agent.services.ownership import PrimaryRights
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.retry_events import Complaints
from remus_agent.services.session_parts import SessionParts
from remus_agent.services.trouble import Trouble
from remus_agent.store_ports import STOOD_DOWN

log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two attempts to drop what the plugs hold."""


class StandDown:
    """Of one guest. destroy: it, with what it has sent. retry: seconds between two looks at the record."""

    def __init__(
        self,
        domain: Domain,
        output: OutputBuffer,
        ports: PrimaryPorts,
        rights: PrimaryRights,
        parts: SessionParts,
        kept: KeptRecord,
        trouble: Trouble,
        destroy: Callable[[Domain], Awaitable[None]],
        asked: Asked,
        retry: Callable[[], Awaitable[None]],
    ) -> None:
        self._domain = domain
        self._output = output
        self._hypervisor = ports.hypervisor
        self._events = ports.events
        self._complaints = Complaints(ports.events)
        self._clock = ports.clock
        self._rights = rights
        self._parts = parts
        self._kept = kept
        self._trouble = trouble
        self._destroy = destroy
        self._asked = asked
        self._retry = retry
        self._owner_runs = asyncio.Event()
        self._holds: Domain | None = None
        """The guest whose output is held since it stands down."""

    def owner_runs(self) -> None:
        """The new owner has opened a session."""
        self._owner_runs.set()

    async def pause(self) -> Event:
        """Another host owns it: it runs no more, and what it has sent is never let out."""
        # First what a restart must find: whatever comes, this guest is another host's.
        await self._kept.note(role=STOOD_DOWN, committed=True, starting="")
        if active(FaultName.DESTROY_AT_ONCE):
            return Event.OWNER_RUNS
        try:
            now = await self._there()
            self._output.follow(now)
            await self._hold(now)
            await self._hypervisor.pause(now)
            await self._output.drop()
        except DomainNotFound as error:
            log.warning("%s: is gone: %s", self._domain.name, error)
            return Event.GUEST_ENDED
        except RemusError as error:
            log.error("%s: cannot be paused: %s", self._domain.name, error)
            self._complaints.note(self._domain.name, "stale-guest-not-paused", reason=str(error))
            return Event.GUEST_NOT_PAUSED
        self._complaints.over("stale-guest-not-paused")
        return Event.GUEST_PAUSED

    async def _hold(self, now: Domain) -> None:
        """Before it is paused, which may fail for long: a guest that ran on alone has its output open. Where it cannot be held,
        pausing is all that is left."""
        if self._holds == now:
            return
        try:
            await self._output.install(closed=True)
            self._holds = now
        except RemusError as error:
            log.error("%s: its output cannot be held before it is paused: %s", now.name, error)

    async def await_owner(self) -> Event:
        """Wait a while for the new owner's session, then look at the record."""
        self._trouble.reason = (
            f"another host owns it; the guest is paused here until {self._kept.now.peer} opens a session, which shows that it"
            " runs it, or gives it back"
        )
        generation = self._kept.now.generation
        asked = await self._asked.interrupts(first_of(self._owner_runs.wait, self._retry))
        if asked is not None:
            return asked
        if self._owner_runs.is_set():
            return Event.OWNER_RUNS
        try:
            if not await self._hypervisor.is_paused(await self._there()):
                return Event.GUEST_RUNS
        except DomainNotFound:
            return Event.GUEST_ENDED
        except RemusError as error:
            log.warning("%s: whether it is still there, paused, is not known: %s", self._domain.name, error)
        return Event.HANDED_BACK if await self._rights.handed_back(generation) else Event.RETRY_DUE

    async def resume(self) -> Event:
        """It was given back: it runs on. Its output stays held."""
        self._holds = None
        try:
            now = await self._there()
            disks = await self._parts.disks_left()
            if disks is not None:
                await disks.open()  # first of all: the guest's writes wait for it
            await self._hypervisor.resume(now)  # where it was handed over, it is down for its last epoch
            await self._hypervisor.unpause(now)
        except DomainNotFound:
            return Event.GUEST_ENDED
        except RemusError as error:
            log.error("%s: cannot go on: %s", self._domain.name, error)
            return Event.RESUME_FAILED
        self._events.note(self._domain.name, "given-back")
        self._trouble.reason = None
        self._parts.heard_at = self._clock.now()
        await self._kept.note(role="primary", handed=None)
        return Event.GUEST_RESUMED

    async def destroy(self) -> Event:
        """The other host runs it, or an operator does not want it."""
        try:
            await self._destroy(self._domain)
            await close_disks(self._parts.disks_left, given_up=True)
        except RemusError as error:
            log.error("%s: cannot be destroyed: %s", self._domain.name, error)
            self._complaints.note(self._domain.name, "stale-guest-stands", reason=str(error))
            return Event.STALE_GUEST_STANDS
        return Event.STALE_GUEST_GONE

    async def _there(self) -> Domain:
        """The guest as it is now: somebody may have started it anew, or members of a group. Raises DomainNotFound when it is
        gone, and another RemusError when that is not known."""
        now = await self._hypervisor.domain(self._domain.name)
        if now.uuid != self._domain.uuid:
            raise DomainNotFound("another domain has taken its name", domain=now.name)
        return now


async def destroy_stale(domain: Domain, hypervisor: Hypervisor, outputs: OutputBuffers) -> None:
    """Destroy the guest, of a group all members, and drop what the plugs hold, never the other way round: a plug that is gone
    holds nothing back. Dom0 cannot finish with a guest's devices before the frames are dropped, so both go on side by side.
    Raises RemusError."""
    try:
        there = await hypervisor.domain(domain.name)
    except DomainNotFound:
        there = None
    if there is not None and there.uuid == domain.uuid:
        destroying = asyncio.ensure_future(hypervisor.destroy(domain.name))
        try:
            while not destroying.done():
                await outputs.sweep(await hypervisor.domids())  # it spares the guest until Xen has it no more
                await asyncio.wait({destroying}, timeout=_LOOK)
            destroying.result()
        finally:
            destroying.cancel()
    await outputs.sweep(await hypervisor.domids())
    log.warning("%s: destroyed here, because another host owns it", domain.name)
