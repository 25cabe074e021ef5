"""The guests of which this host is the primary, by name: what protects each, and the task that this is.

One whose protection has ended stays known, with what came of it, until another one begins or the guest was moved away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

from remus_agent.errors import AlreadyProtected, DomainNotFound
from remus_agent.machines.primary import ALONE, NOT_OURS, State
from remus_agent.machines.watchdog import AUTHORITY
from remus_agent.ports import Domain, OutputBuffers
from remus_agent.services.backup import BackupService
from remus_agent.services.ownership import PrimaryRights
from remus_agent.services.primary import PrimaryService, is_over
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.settings import Settings
from remus_agent.services.stand_down import destroy_stale
from remus_agent.store_ports import GuestRecord

log = logging.getLogger(__name__)


class Primaries(Mapping[str, PrimaryService]):
    """Of one host. peers: their addresses."""

    def __init__(
        self,
        settings: Settings,
        peers: Mapping[str, str],
        ports: PrimaryPorts,
        outputs: OutputBuffers,
        backup: BackupService,
    ) -> None:
        self.rights: Callable[[GuestRecord], PrimaryRights] | None = None
        """What a guest's primary may do, by the witness. None: there is no witness."""
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.after_defect: Callable[[str], None] = lambda _: None
        """Called with the name of a guest whose protection has ended by one."""
        self._settings = settings
        self._peers = peers
        self._ports = ports
        self._outputs = outputs
        self._backup = backup
        self._services: dict[str, PrimaryService] = {}

    def __getitem__(self, name: str) -> PrimaryService:
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    # Looking at them

    def protects(self, name: str) -> bool:
        """Whether a domain is protected now."""
        service = self.get(name)
        return service is not None and not is_over(service)

    def required(self, name: str, operation: str) -> PrimaryService:
        """What protects a domain, or has done so. Raises DomainNotFound."""
        service = self.get(name)
        if service is None:
            raise DomainNotFound("it is not protected on this host", operation=operation, domain=name)
        return service

    def of_guest(self, uuid: str) -> PrimaryService | None:
        """What protects the guest of this UUID now, or stands down for its owner."""
        mine = (each for each in self.values() if each.domain.uuid == uuid)
        return next((each for each in mine if not is_over(each)), None)

    def alone(self, name: str, peer: str) -> PrimaryService | None:
        """What looks after a guest that runs on without its backup, this peer, output open."""
        service = self.get(name)
        alone = service is not None and not is_over(service) and service.state in ALONE
        return service if alone and service is not None and service.record.peer == peer else None

    def running(self) -> list[PrimaryService]:
        """Of guests that are this host's own."""
        return [each for each in self.values() if not is_over(each) and each.state not in NOT_OURS]

    def guests(self) -> list[str]:
        """UUIDs of guests that are this host's own."""
        return [service.domain.uuid for service in self.running()]

    def under_authority(self) -> list[str]:
        """Names of guests over which this host holds authority."""
        return [name for name, each in self.items() if not is_over(each) and AUTHORITY[each.state]]

    # Beginning and ending

    def start(
        self, domain: Domain, record: GuestRecord, *, resumed: bool = False, solo: bool = False
    ) -> PrimaryService:
        """Protect a guest from now on. resumed: an earlier agent began it. solo: it runs alone, output open. Raises
        AlreadyProtected: two that take the checkpoints of one guest take the dirty pages away from each other."""
        name = domain.name
        if self.protects(name) and not self.tasks[name].done():  # one that a defect has ended is begun anew
            raise AlreadyProtected("this host's agent protects it already", operation="protect", domain=name)
        rights = self.rights
        service = PrimaryService(
            domain,
            record,
            self._peers[record.peer],
            self._outputs.of(domain, record.output_limit_bytes),
            self._ports,
            self._settings,
            resumed=resumed,
            solo=rights is not None and (solo or resumed),
            ownership=None if rights is None else rights(record),
            destroy=lambda domain: destroy_stale(domain, self._ports.hypervisor, self._outputs),
            depart=self._depart,
        )
        self._services[name] = service
        task = asyncio.create_task(service.run(), name=f"primary {name}")
        task.add_done_callback(lambda done: self._report_end(service, done))
        task.add_done_callback(lambda _: self._forget_departed(name, service))
        self.tasks[name] = task
        return service

    def adopt(self, domain: Domain, record: GuestRecord) -> None:
        """Become the primary, alone, of a guest that runs here."""
        if record.peer in self._peers:
            self.start(domain, record, solo=True)
        else:
            log.error("%s: its peer %s is not configured, so it stays unprotected", record.name, record.peer)

    async def _depart(self, domain: Domain) -> None:
        """The backup runs the guest by now."""
        await destroy_stale(domain, self._ports.hypervisor, self._outputs)
        self._backup.left(domain.name)

    def _report_end(self, service: PrimaryService, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            name = service.domain.name
            log.critical("%s: its protection ended by a defect; output stays held", name, exc_info=error)
            service.defect = repr(error)
            self._ports.events.note(name, "defect", reason=service.defect)
            self.after_defect(name)

    def _forget_departed(self, name: str, service: PrimaryService) -> None:
        """A guest that was moved away is none of this host's any more."""
        if service.state is State.DEPARTED and self.get(name) is service:
            del self._services[name], self.tasks[name]
