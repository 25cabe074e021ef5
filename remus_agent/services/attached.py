"""Whether a guest still has the disks and interfaces that its protection covers, which `xl block-attach` and the like change.

A write to a disk that nobody replicates must not be acknowledged to a client, and a frame of an interface that nobody holds
must not leave. So devices are compared in every epoch, after its barrier and before its output is released: what the guest did
with a device that was attached before that barrier is never answered. Beside that they are compared every few seconds, because
copying and retrying take longer than an epoch.

What differs ends the session. Disks must be the same again before another one begins; interfaces are taken in by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from remus_agent.errors import DiskError, OutputBufferError, RemusError
from remus_agent.faults import FaultName, active
from remus_agent.ports import Clock, Domain, Hypervisor, OutputBuffer, Vbd, Vif
from remus_agent.protocol.groups import disk_place
from remus_agent.services.session import PrimarySession

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Between two looks beside the epochs."""


class DeviceWatch:
    """The devices of one protected domain. domain: as it was when the output buffer was made for it. resumed: an earlier agent
    began the protection, so which interfaces are held is not known."""

    def __init__(
        self, domain: Domain, output: OutputBuffer, hypervisor: Hypervisor, clock: Clock, *, resumed: bool
    ) -> None:
        self._domain = domain
        self._output = output
        self._hypervisor = hypervisor
        self._clock = clock
        self._vifs: tuple[Vif, ...] | None = None if resumed else domain.vifs
        self._disks: frozenset[Vbd] | None = None

    def cover(self, domain: Domain) -> None:
        """The taps were made for the disks that the domain has here."""
        self._disks = _replicated(domain)

    async def look(self) -> None:
        """Raises DiskError or OutputBufferError when the domain has other devices now than its protection covers, and what the
        hypervisor raises. A domain that is on its way out says nothing about its devices, and is noticed elsewhere."""
        now = await self._hypervisor.devices(self._domain)
        if now is not None and not active(FaultName.DEVICES_UNCOMPARED):
            self.compare(now)

    def compare(self, now: Domain) -> None:
        """The same with devices that were read already. Raises DiskError, OutputBufferError."""
        if now.vifs != self._vifs:
            raise OutputBufferError(
                f"its interfaces are others now ({_names(now.vifs)}) than those that are held ({_names(self._vifs or ())})",
                operation="compare devices",
                domain=now.name,
                left="the guest runs; its output is held if a copy of it may be activated",
                hint="nothing: the next session takes them in",
            )
        self._require_disks(now)

    async def during(self, work: Awaitable[None]) -> None:
        """Wait for the work and look meanwhile. Raises what either raises."""
        looking = asyncio.create_task(self.look(), name=f"look {self._domain.name}")
        try:
            await work
            await looking
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def adopt(self, now: Domain, *, hold: bool) -> None:
        """Between sessions: the interfaces are those of `now` from here on. hold: their output is held when this returns. Raises
        OutputBufferError; and DiskError when the disks are not those that are covered."""
        if now.vifs != self._vifs:
            self._output.follow(now)
            if hold:
                await self._output.install(closed=True)
            self._vifs = now.vifs
        self._require_disks(now)

    async def hold(self) -> None:
        """No session can begin just now: hold what interfaces there are all the same. A failure is logged; the next call tries
        again."""
        try:
            now = await self._hypervisor.devices(self._domain)
            if now is not None:
                await self.adopt(now, hold=True)
        except DiskError as error:
            log.info("%s: no session can begin: %s", self._domain.name, error)
        except RemusError as error:
            log.error("%s: whether all its output is held is not known: %s", self._domain.name, error)

    async def run(self, session: Callable[[], PrimarySession | None], silent: Callable[[], bool]) -> None:
        """Look every few seconds until cancelled. session: which to end. silent: whether there is none and output is held."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            running = session()
            if running is None:
                if silent():
                    await self.hold()
                continue
            try:
                await self.look()
            except RemusError as error:
                running.fail(error)

    def _require_disks(self, now: Domain) -> None:
        if self._disks is None:
            return
        found = _replicated(now)
        attached, detached = found - self._disks, self._disks - found
        if not attached and not detached:
            return
        name = now.name
        what = [f"{vbd} was attached, and nobody replicates it" for vbd in sorted(attached, key=str)]
        what += [f"{vbd} was detached" for vbd in sorted(detached, key=str)]
        steps = [f"detach it (xl block-detach {_xl(name, vbd)})" for vbd in sorted(attached, key=str)]
        steps += [f"attach {vbd} again" for vbd in sorted(detached, key=str)]
        raise DiskError(
            f"its disks changed after its protection began: {'; '.join(what)}",
            operation="compare devices",
            domain=name,
            left="the guest runs; its output is held if a copy of it may be activated",
            hint=f"{' and '.join(steps)}, and protection goes on by itself; or have all its disks behind the mapper "
            "(docs/operations.md), then end its protection and begin it again",
        )


def _replicated(domain: Domain) -> frozenset[Vbd]:
    """CD images and read-only disks pass through: they may come and go."""
    return frozenset(vbd for vbd in domain.disks if vbd.writable and not vbd.cdrom)


def _xl(domain: str, vbd: Vbd) -> str:
    """The guest and its disk, as xl wants them."""
    return " ".join(disk_place(domain, vbd.vdev))


def _names(vifs: tuple[Vif, ...]) -> str:
    return ", ".join(vif.device for vif in vifs) or "none"
