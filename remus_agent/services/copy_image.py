"""What a copy consists of beside its disks, and how the frames of an epoch become part of it.

The order inside an epoch's end is the point of it all: verify, wait until the disks have staged it, commit to the journal,
acknowledge, apply. Nothing of an epoch reaches the paused domain before the commit, except in epoch 1, where there is no
committed state to damage; its disks (`services.copy_disks`) look after an older copy there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from remus_agent.errors import HypervisorError, PeerError, ProtocolError, ReplicationError
from remus_agent.faults import FaultName, active
from remus_agent.ports import GuestType, Hypervisor, Target
from remus_agent.protocol.replication.digest import EpochDigest, commit_digest
from remus_agent.protocol.replication.frames import Buffer, Frame
from remus_agent.protocol.replication.messages import EpochEnd, Hello, MemoryAck
from remus_agent.protocol.stream.epoch import EpochParser
from remus_agent.services.copy_disks import CopyDisks
from remus_agent.services.settings import Settings
from remus_agent.store_ports import CommitRecord, Journal

LARGEST_PFN: Final = 1 << 36
"""Frame numbers above this can't exist on x86 (48 bits of physical address)."""


class CopyImage:
    """Of one copy. first_commit: called when the first epoch is durable, before anybody hears of it. committed: called when an
    epoch is, before it is acknowledged. acknowledge: returns the error when the primary is gone."""

    def __init__(
        self,
        hello: Hello,
        hypervisor: Hypervisor,
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
        self.target: Target | None = None
        self._hello = hello
        self._hypervisor = hypervisor
        self._journal = journal
        self._disks = disks
        self._settings = settings
        self._first_commit = first_commit
        self._committed = committed
        self._acknowledge = acknowledge
        self._tail: list[Buffer] = []
        self._emulator: list[Buffer] = []
        self._guest = GuestType(hello.guest_type)
        self._staged = EpochParser(LARGEST_PFN, self._guest)
        self._digest = EpochDigest()

    def need_target(self) -> Target:
        """The domain. Raises ReplicationError before there is one."""
        if self.target is None:
            raise self.broken("records before PREAMBLE")
        return self.target

    async def preamble(self, frame: Frame, working_name: str) -> None:
        """Begin to build the domain. Raises RemusError."""
        if self.target is not None:
            raise self.broken("second PREAMBLE in one session")
        payload = frame.joined()
        self._digest.update(payload)
        self.target = await self._hypervisor.open_target(payload, working_name)

    async def stream(self, frame: Frame) -> None:
        """Stage records of the open epoch. Raises RemusError."""
        target = self.need_target()
        self._refuse_after_last()
        if frame.epoch != self.epoch + 1:
            raise self.broken(f"records of epoch {frame.epoch} while {self.epoch + 1} is open")
        payload = frame.payload[0]
        self._digest.update(payload)
        self._staged.feed(payload)
        if self.epoch == 0 or active(FaultName.FEED_BEFORE_COMMIT):
            await target.feed(self._staged.take_pages())
        elif self._digest.stream_bytes > self._hello.memory_kib * 1024 + self._settings.staging_bytes:
            raise self.broken("the epoch is larger than the guest's memory")

    async def epoch_end(self, end: EpochEnd) -> None:
        """Commit and apply the open epoch. Raises RemusError, PeerError also when it is committed and applied."""
        target = self.need_target()
        self._refuse_after_last()
        if end.epoch != self.epoch + 1:
            raise self.broken(f"end of epoch {end.epoch} while {self.epoch + 1} is open")
        digest = self._digest.digest()
        whole = (end.stream_bytes, end.digest) == (self._digest.stream_bytes, digest)
        if not whole and not active(FaultName.DIGEST_UNCHECKED):
            raise self.broken(
                f"epoch {end.epoch} arrived damaged ({self._digest.stream_bytes} bytes, {end.stream_bytes} were sent)"
            )
        staged = self._staged.finish()
        if staged.pages != end.pages:
            raise self.broken(f"epoch {end.epoch} has {staged.pages} pages instead of {end.pages}")
        disks = await self._disks.staged(end.epoch)
        record = CommitRecord(self._hello.session, self._hello.generation, end.epoch, commit_digest(digest, disks))
        await self._journal.commit(record)
        self.whole = False
        self.commit = record
        self._disks.committed(end.epoch)
        if self.epoch == 0:
            # Before anybody hears of this commit: an older copy must not outlive this one, should what follows fail.
            self._first_commit()
        self._tail = [bytes(part) for part in staged.tail]
        self._emulator = [bytes(part) for part in staged.emulator]
        self.epoch = end.epoch
        self.last = end.last
        self._committed()
        lost = await self._acknowledge(MemoryAck(epoch=end.epoch, digest=digest))
        self.drop_staged()
        await target.feed(staged.page_records)
        self.whole = True
        await self._disks.apply()
        if lost is not None:
            raise lost  # only now: what is committed has to be applied, whoever has heard of it

    def drop_staged(self) -> None:
        """Forget what has arrived of the open epoch."""
        self._staged = EpochParser(LARGEST_PFN, self._guest)
        self._digest = EpochDigest()

    async def build(self, target: Target, operation: str) -> None:
        """Make the domain of the committed epoch whole, which takes most of the time of an activation. Raises RemusError."""
        try:
            async with asyncio.timeout(self._settings.activate):
                await target.build(self._tail, self._emulator)
        except TimeoutError:
            raise HypervisorError(
                f"the toolstack did not finish the domain within {self._settings.activate:g} s",
                operation=operation,
                domain=self._hello.domain,
                epoch=self.epoch,
                left="the copy was destroyed",
            ) from None

    def forget(self) -> None:
        """It is never activated: drop all that the domain does not hold yet."""
        self.drop_staged()
        self._tail, self._emulator = [], []

    def broken(self, message: str) -> ProtocolError:
        """The error for a primary that does not keep to the protocol."""
        return ReplicationError(
            message,
            operation="receive an epoch",
            domain=self._hello.domain,
            epoch=self.epoch + 1,
            left=f"the copy stands at epoch {self.epoch}" if self.epoch else "nothing was committed",
        )

    def _refuse_after_last(self) -> None:
        if self.last:
            raise self.broken("something follows the last checkpoint")
