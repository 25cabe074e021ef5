"""What a copy consists of beside its disks, and how the frames of an epoch become part of it.

The order inside an epoch's end is the point of it all: verify, wait until the disks have staged it, commit to the journal,
acknowledge, apply. Nothing of an epoch reaches the paused domain before the commit, except in epoch 1, where there is no
committed state to damage; its disks (`services.copy_disks`) look after an older copy there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from remus_agent.errors import HypervisorError, PeerError, ProtocolError, ReplicationError
from remus_agent.faults import FaultName, active
from remus_agent.ports import GuestType, Hypervisor
from remus_agent.protocol.replication.digest import EpochDigest, commit_digest
from remus_agent.protocol.replication.frames import Frame
from remus_agent.protocol.replication.messages import EpochEnd, Hello, MemoryAck
from remus_agent.protocol.stream.epoch import EpochParser
from remus_agent.services.copy_disks import CopyDisks
from remus_agent.services.copy_targets import CopyTargets, GuestState
from remus_agent.services.deadlines import awake_within
from remus_agent.services.settings import Settings
from remus_agent.store_ports import CommitRecord, Journal

LARGEST_PFN: Final = 1 << 36
"""Frame numbers above this can't exist on x86 (48 bits of physical address)."""


class CopyImage:
    """Of one copy, of a guest or of all members of a group. first_commit: called when the first epoch is durable, before
    anybody hears of it. committed: called when an
    epoch is, before it is acknowledged. acknowledge: returns the error when the primary is gone."""

    def __init__(
        self,
        hello: Hello,
        hypervisor: Hypervisor,
        working_name: str,
        journal: Journal,
        disks: CopyDisks,
        settings: Settings,
        first_commit: Callable[[], None],
        committed: Callable[[], object],
        acknowledge: Callable[[MemoryAck], Awaitable[PeerError | None]],
    ) -> None:
        self.epoch = 0
        """The committed one."""
        self.last = False
        """Whether its primary has said that no epoch follows this one."""
        self.whole = True
        """Whether memory is at the committed epoch: not from a commit on until the domain has been given its pages."""
        self.commit: CommitRecord | None = None
        self.targets = CopyTargets(hello, hypervisor, working_name)
        self._hello = hello
        self._journal = journal
        self._disks = disks
        self._settings = settings
        self._first_commit = first_commit
        self._committed = committed
        self._acknowledge = acknowledge
        self._arrived_bytes = 0
        """Of an epoch after the first one, until the domain has been given its pages."""
        self._states: list[GuestState] = []
        self._guests = [GuestType(guest.guest_type) for guest in hello.guests]
        self._staged = self._parsers()
        self._digest = EpochDigest()

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that it takes: what has arrived and was not given to the domain yet, and what an activation needs."""
        states = (part for state in self._states for part in (*state.tail, *state.emulator))
        return self._arrived_bytes + sum(map(len, states))

    def need_targets(self) -> CopyTargets:
        """The domains. Raises ReplicationError before all are there."""
        if not self.targets.complete:
            raise self.broken("records before PREAMBLE")
        return self.targets

    async def preamble(self, frame: Frame) -> None:
        """Begin to build a domain. Raises RemusError."""
        if frame.member >= len(self._guests):
            raise self.broken(f"PREAMBLE of member {frame.member}, and there are {len(self._guests)}")
        if frame.member in self.targets:
            raise self.broken("second PREAMBLE in one session")
        payload = frame.joined()
        self._digest.update(payload)
        await self.targets.open(frame.member, payload)

    async def stream(self, frame: Frame) -> None:
        """Stage records of the open epoch. Raises RemusError."""
        targets = self.need_targets()
        self._refuse_after_last()
        if frame.member >= len(self._guests):
            raise self.broken(f"records of member {frame.member}, and there are {len(self._guests)}")
        if frame.epoch != self.epoch + 1:
            raise self.broken(f"records of epoch {frame.epoch} while {self.epoch + 1} is open")
        if not frame.payload:
            raise self.broken("STREAM without records")
        payload = frame.payload[0]
        self._digest.update(payload)
        staged = self._staged[frame.member]
        staged.feed(payload)
        if self.epoch > 0:
            self._arrived_bytes += frame.payload_bytes
        if self.epoch == 0 or active(FaultName.FEED_BEFORE_COMMIT):
            await targets.feed_one(frame.member, staged.take_pages())
        elif self._digest.stream_bytes > self._hello.memory_kib * 1024 + self._settings.staging_bytes:
            raise self.broken("the epoch is larger than the guest's memory")

    async def epoch_end(self, end: EpochEnd) -> None:
        """Commit and apply the open epoch. Raises RemusError, PeerError also when it is committed and applied."""
        targets = self.need_targets()
        self._refuse_after_last()
        if end.epoch != self.epoch + 1:
            raise self.broken(f"end of epoch {end.epoch} while {self.epoch + 1} is open")
        digest = self._digest.digest()
        whole = (end.stream_bytes, end.digest) == (self._digest.stream_bytes, digest)
        if not whole and not active(FaultName.DIGEST_UNCHECKED):
            raise self.broken(
                f"epoch {end.epoch} arrived damaged ({self._digest.stream_bytes} bytes, {end.stream_bytes} were sent)"
            )
        staged = [guest.finish() for guest in self._staged]
        pages = sum(guest.pages for guest in staged)
        if pages != end.pages:
            raise self.broken(f"epoch {end.epoch} has {pages} pages instead of {end.pages}")
        disks = await self._disks.staged(end.epoch)
        record = CommitRecord(self._hello.session, self._hello.generation, end.epoch, commit_digest(digest, disks))
        await self._journal.commit(record)
        self.whole = False
        self.commit = record
        self._disks.committed(end.epoch)
        if self.epoch == 0:
            # Before anybody hears of this commit: an older copy must not outlive this one, should what follows fail.
            self._first_commit()
        self._states = [
            GuestState([bytes(part) for part in guest.tail], [bytes(part) for part in guest.emulator])
            for guest in staged
        ]
        self.epoch = end.epoch
        self.last = end.last
        self._committed()
        lost = await self._acknowledge(MemoryAck(epoch=end.epoch, digest=digest))
        arrived = self._arrived_bytes
        self.drop_staged()
        self._arrived_bytes = arrived
        await targets.feed([guest.page_records for guest in staged])
        self._arrived_bytes = 0
        self.whole = True
        await self._disks.apply()
        if lost is not None:
            raise lost  # only now: what is committed has to be applied, whoever has heard of it

    def drop_staged(self) -> None:
        """Forget what has arrived of the open epoch."""
        self._staged = self._parsers()
        self._digest = EpochDigest()
        self._arrived_bytes = 0

    async def build(self, operation: str) -> None:
        """Make the domains of the committed epoch whole, which takes most of the time of an activation. A toolstack that hangs
        leaves nothing that could be activated; one that was frozen with its host has the rest of its time. Raises RemusError."""
        try:
            await awake_within(self._settings.activate, lambda: self.targets.build(self._states))
        except TimeoutError:
            raise HypervisorError(
                f"the toolstack did not finish the domain within {self._settings.activate:g} s",
                operation=operation,
                domain=self._hello.domain,
                epoch=self.epoch,
                left="the copy was destroyed",
                hint="see dmesg and /var/log/xen on this host; it can be taken over again once its primary has made a new copy",
            ) from None

    def forget(self) -> None:
        """It is never activated: drop all that the domain does not hold yet."""
        self.drop_staged()
        self._states = []

    def broken(self, message: str) -> ProtocolError:
        """The error for a primary that does not keep to the protocol."""
        return ReplicationError(
            message,
            operation="receive an epoch",
            domain=self._hello.domain,
            epoch=self.epoch + 1,
            left=f"the copy stands at epoch {self.epoch}" if self.epoch else "nothing was committed",
        )

    def _parsers(self) -> list[EpochParser]:
        return [EpochParser(LARGEST_PFN, guest) for guest in self._guests]

    def _refuse_after_last(self) -> None:
        if self.last:
            raise self.broken("something follows the last checkpoint")
