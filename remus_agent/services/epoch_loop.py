"""One epoch after the other: take a checkpoint, send it, wait until it is committed, release exactly its output.

The order of these steps is the guarantee (G1); `docs/architecture.md`, Life of an epoch, says what each is for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from remus_agent.errors import RemusError
from remus_agent.faults import FaultName, active, pause_at
from remus_agent.machines.epoch import OutputCommit
from remus_agent.machines.primary import Event
from remus_agent.observe.figures import EpochFigures
from remus_agent.ports import OutputBuffer
from remus_agent.services.asking import Asked
from remus_agent.services.disks import DiskSet
from remus_agent.services.epochs import EpochRecord
from remus_agent.services.kept_record import KeptRecord
from remus_agent.services.ownership import PrimaryRights
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.session import PrimarySession
from remus_agent.services.session_parts import SessionParts
from remus_agent.services.settings import Settings
from remus_agent.services.switchover import SwitchoverRequest
from remus_agent.services.trouble import Trouble
from remus_agent.source_ports import Checkpoint

KEPT_EPOCHS: Final = 4096


class EpochLoop:
    """Of one guest, over all its sessions. name: the guest's. asked, switchover: what an operator wants of it."""

    def __init__(
        self,
        name: str,
        output: OutputBuffer,
        ports: PrimaryPorts,
        settings: Settings,
        rights: PrimaryRights,
        parts: SessionParts,
        kept: KeptRecord,
        trouble: Trouble,
        asked: Asked,
        switchover: SwitchoverRequest,
    ) -> None:
        self.records: deque[EpochRecord] = deque(maxlen=KEPT_EPOCHS)
        self.figures = EpochFigures()
        self.commit = OutputCommit()
        self.acked = 0
        """The newest epoch of the session that is acknowledged, and released."""
        self.last_ack: float | None = None
        self._name = name
        self._output = output
        self._ports = ports
        self._settings = settings
        self._rights = rights
        self._parts = parts
        self._kept = kept
        self._trouble = trouble
        self._asked = asked
        self._switchover = switchover
        self._resumed_at = 0.0

    async def run(self) -> Event:
        """Until somebody asks for something else, or it fails."""
        try:
            while True:
                asked = self._asked.next() or await self._pace()
                if asked is not None:
                    return asked
                if self._switchover.asked:
                    return Event.SWITCHOVER_ASKED
                event = await self.one(self.commit.running)
                if event is not None:
                    return event
        except RemusError as error:
            return self._trouble.failed(error)

    async def one(self, epoch: int, seeded_pages: int = 0, *, last: bool = False) -> Event | None:
        """Take, send and commit one checkpoint, then release its output. An event when an operator interrupts the wait. last: the
        guest stays down. Raises RemusError."""
        session, source, disks = self._parts.in_session()
        clock = self._ports.clock
        if epoch == 1:
            # From here on the backup may commit without our hearing of it: a restart must find output held.
            if not self._kept.now.committed:
                self._parts.heard_at = clock.now()
            await self._kept.save(committed=True)
        pause_at("before-suspend")
        started = clock.now()
        checkpoint = await source.checkpoint(epoch, self._at_barrier, self._settings.suspend, stay_down=last)
        self._resumed_at = clock.now()
        pause_at("resumed")
        sent_bytes = await self._send(session, checkpoint)
        # Before its end is handed to the kernel: a host that is frozen just after that must not take the epoch for a young one.
        ends = clock.now()
        await session.end_epoch(epoch, checkpoint.pages + seeded_pages, last=last)
        sent = clock.now()
        pause_at("awaiting-ack")
        if active(FaultName.ACK_WAIT_REMOVED):
            self.commit = replace(self.commit, memory=True, disks_acked=self.commit.disks)
        elif epoch == 1 or last:
            # Not to be interrupted: whether the backup has committed must be known before anything else is decided.
            await self._acknowledged(session, disks, epoch)
        else:
            event = await self._asked.interrupts(self._acknowledged(session, disks, epoch))
            if event is not None:
                return event
        self.last_ack = self._parts.heard_at = clock.now()
        pause_at("acked")
        if last:
            # A guest that is down looks like one that is on its way out, so that nobody has compared its devices.
            self._parts.devices.compare(await self._ports.hypervisor.domain(self._name))
        await self._rights.may_release(ends, self._kept.now.generation)
        if self.commit.releasable == epoch:
            await self._output.release()
            self.commit = self.commit.released(epoch)
        self.acked = epoch
        previous = self.records[-1].started if self.records and epoch > 1 else None
        figures = disks.figures(epoch, sent)
        ack = self.last_ack - sent
        record = EpochRecord.of(checkpoint, sent_bytes, started, sent - self._resumed_at, ack, previous, figures)
        self.records.append(record)
        record.add_to(self.figures)
        return None

    async def _acknowledged(self, session: PrimarySession, disks: DiskSet, epoch: int) -> None:
        """Wait for memory's acknowledgement, which says that everything is committed, and for every disk's."""
        await self._parts.devices.during(session.wait_ack(epoch))
        self.commit = self.commit.memory_ack(epoch)
        disks.committed(epoch)
        if self.commit.disks:
            for name in await session.guard(lambda: disks.wait_ack(epoch)):
                self.commit = self.commit.disk_ack(epoch, name)

    async def _send(self, session: PrimarySession, checkpoint: Checkpoint) -> int:
        """All of it but its end. How many bytes."""
        sent = 0
        for member, guest in enumerate(checkpoint.guests):
            for group in guest.records:
                sent += await session.send_records(checkpoint.epoch, group, member)
        pause_at("sending")
        return sent

    def _at_barrier(self) -> None:
        """In the suspended window: the running epoch ends here, for output and disks alike."""
        pause_at("suspended")
        self.commit = self.commit.barrier(self.commit.running)
        self._output.barrier()
        if self._parts.disks is not None:
            self._parts.disks.barrier(self.commit.running - 1)

    async def _pace(self) -> Event | None:
        """Let the guest run for the interval since it was resumed."""
        left = self._resumed_at + self._kept.now.interval_ms / 1000 - self._ports.clock.now()
        if left <= 0:
            return None
        return await self._asked.interrupts(self._switchover.cuts_short(lambda: self._ports.clock.sleep(left)))
