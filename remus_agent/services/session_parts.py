"""What a session of a primary is made of: the connection to its backup, the source of checkpoints, the disks.

One session follows the other; the guest's disks, and what is known of its devices, outlive them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from msgspec import UNSET

from remus_agent.errors import GuestEnded, RefusedError, RemusError
from remus_agent.ports import Domain, OutputBuffer
from remus_agent.services.attached import DeviceWatch
from remus_agent.services.disks import DiskSet
from remus_agent.services.kept_record import KeptRecord
from remus_agent.services.ownership import PrimaryRights
from remus_agent.services.primary_ports import PrimaryPorts, hello_for
from remus_agent.services.session import PrimarySession, open_session
from remus_agent.services.settings import Settings
from remus_agent.source_ports import Source

log = logging.getLogger(__name__)


class SessionParts:
    """Of one guest. address: of its backup. disk_failed: told which disk's own device has failed, and how. resumed: an earlier
    agent began the protection, so its taps may stand and wait to be served again."""

    def __init__(
        self,
        domain: Domain,
        address: str,
        output: OutputBuffer,
        ports: PrimaryPorts,
        settings: Settings,
        rights: PrimaryRights,
        kept: KeptRecord,
        disk_failed: Callable[[str, RemusError], None],
        *,
        resumed: bool,
    ) -> None:
        self.session: PrimarySession | None = None
        self.disks: DiskSet | None = None
        self.devices = DeviceWatch(domain, output, ports.hypervisor, ports.clock, resumed=resumed)
        self.heard_at = ports.clock.now()
        """When the backup last acknowledged anything, or the waiting for that began."""
        self._source: Source | None = None
        self._domain = domain
        self._address = address
        self._ports = ports
        self._settings = settings
        self._rights = rights
        self._kept = kept
        self._disk_failed = disk_failed
        self._resumed = resumed

    def in_session(self) -> tuple[PrimarySession, Source, DiskSet]:
        """Those of the session that runs."""
        if self.session is None or self._source is None or self.disks is None:
            raise RuntimeError("effect outside of a session")
        return self.session, self._source, self.disks

    async def open(self) -> None:
        """Open a session. Raises RemusError; then `abandon` clears up."""
        ports = self._ports
        domain = await ports.hypervisor.domain(self._domain.name)
        if domain.uuid != self._domain.uuid:
            raise GuestEnded("another domain has taken its name", domain=domain.name)
        disks = await self._known_disks(domain)
        if self._resumed:
            await disks.open()  # first of all: the guest's writes wait for it
        held = self._kept.now.committed
        await self.devices.adopt(domain, hold=held)
        self._source = await ports.hypervisor.open_source(domain)
        await self._kept.note(generation=await self._rights.before_session(self._kept.now.generation, held=held))
        facts = await ports.hypervisor.facts()
        kept, usual = self._kept.now, self._settings
        hello = hello_for(
            domain,
            facts,
            usual.host,
            generation=kept.generation,
            purpose="protect",
            disks=disks.hello,
            # What is usual is left to whoever takes it over, so that an agent that does not know these fields takes its HELLO.
            interval_ms=UNSET if kept.interval_ms == usual.interval_ms else kept.interval_ms,
            output_limit_bytes=UNSET
            if kept.output_limit_bytes == usual.output_limit_bytes
            else kept.output_limit_bytes,
        )
        session = await open_session(ports.connector, self._address, hello, self._settings, ports.clock)
        self.session = session
        await disks.open()
        await session.guard(lambda: disks.connect(ports.connector, self._address, hello, session))

    async def abandon(self) -> None:
        """End the session in any state; the disks stay tapped."""
        session, self.session = self.session, None
        source, self._source = self._source, None
        async with contextlib.AsyncExitStack() as over:  # each of them, whatever happens to another one
            if source is not None:
                over.push_async_callback(self._close, source)
            if session is not None:
                over.push_async_callback(session.close)
            if self.disks is not None:
                over.push_async_callback(self.disks.end)
            over.push_async_callback(self._rights.forget)

    async def _close(self, source: Source) -> None:
        try:
            await source.close()
        except RemusError as error:
            log.error("%s: %s", self._domain.name, error)

    async def disks_left(self) -> DiskSet | None:
        """Also those that an earlier agent has left."""
        if self.disks is None and self._resumed:
            try:
                await self._known_disks(self._domain)
            except RefusedError as error:
                log.warning("%s: its disks are not known any more: %s", self._domain.name, error)
        return self.disks

    async def _known_disks(self, domain: Domain) -> DiskSet:
        """The domain's disks, the same in every session."""
        if self.disks is None:
            taps = await self._ports.taps.of(domain)
            self.devices.cover(domain)
            self.disks = DiskSet(
                taps,
                self._settings,
                self._ports.clock,
                left_open=self._resumed,
                on_failure=self._disk_failed,
                alone=lambda: not self._kept.now.committed,
            )
        return self.disks
