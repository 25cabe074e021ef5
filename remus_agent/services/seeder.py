"""The start of a session: disks and memory are copied while the guest runs, then the first checkpoint is committed."""

from __future__ import annotations

from remus_agent.errors import RemusError
from remus_agent.faults import FaultName, active
from remus_agent.machines.epoch import OutputCommit
from remus_agent.machines.primary import Event
from remus_agent.observe.status import Seeding
from remus_agent.ports import Clock, OutputBuffer
from remus_agent.services.asking import Asked
from remus_agent.services.copying import CopyMeter
from remus_agent.services.disks import DiskSet
from remus_agent.services.epoch_loop import EpochLoop
from remus_agent.services.kept_record import KeptRecord
from remus_agent.services.session import PrimarySession
from remus_agent.services.session_parts import SessionParts
from remus_agent.services.trouble import Trouble


class Seeder:
    """Of one guest."""

    def __init__(
        self,
        output: OutputBuffer,
        clock: Clock,
        parts: SessionParts,
        epochs: EpochLoop,
        kept: KeptRecord,
        trouble: Trouble,
        asked: Asked,
    ) -> None:
        self._output = output
        self._clock = clock
        self._parts = parts
        self._epochs = epochs
        self._kept = kept
        self._trouble = trouble
        self._asked = asked
        self._memory: Seeding | None = None
        self._disk_meter: CopyMeter | None = None

    @property
    def progress(self) -> Seeding | None:
        """How far the copy at the start of the session is."""
        if self._disk_meter is not None and self._parts.disks is not None:
            progress = self._parts.disks.progress
            return self._disk_meter.at(progress.done, progress.total)
        return self._memory

    async def run(self) -> Event:
        """The outcome. Output is held from here on, if a copy may be activated."""
        session, source, disks = self._parts.in_session()
        try:
            closed = self._kept.now.committed and not active(FaultName.RESTART_OPENS_OUTPUT)
            await self._output.install(closed=closed)
            names = frozenset[str]() if active(FaultName.DISK_ACK_IGNORED) else disks.names
            self._epochs.commit = OutputCommit(disks=names)
            asked = await self._copy_disks(session, disks)
            if asked is not None:
                return asked
            await source.begin()
            for member, preamble in enumerate(source.preambles):
                await session.send_preamble(preamble, member)
            pages = 0
            meter = CopyMeter(self._clock, "pages")
            async for piece in source.seed():
                await session.send_records(1, piece.records, piece.member)
                pages += piece.pages
                self._memory = meter.at(piece.done, piece.total)
                asked = self._asked.next()
                if asked is not None:
                    return asked
            event = await self._epochs.one(1, seeded_pages=pages)
            if event is not None:
                return event
        except RemusError as error:
            event = self._trouble.failed(error)
            uncertain = event is Event.SESSION_LOST and self._epochs.commit.waiting == 1
            return Event.COMMIT_UNCERTAIN if uncertain else event
        finally:
            self._memory = None
        return Event.COMMITTED

    async def _copy_disks(self, session: PrimarySession, disks: DiskSet) -> Event | None:
        """Before memory, which takes less time: what the guest writes to its disks meanwhile belongs to epoch 1 as well."""
        if not disks.names:
            return None
        self._disk_meter = CopyMeter(self._clock, "bytes")
        try:
            return await self._asked.interrupts(session.guard(disks.copy))
        finally:
            self._disk_meter = None
