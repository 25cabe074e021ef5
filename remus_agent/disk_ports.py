"""What the services need of protected disks, as interfaces (ADR 0005). `adapters.disk` implements them, `adapters.sim`
fakes them. Adapters raise only errors of `remus_agent.errors`, mostly DiskError and JournalError.

    Taps  ── WriteTap      (primary: sees every write of one protected disk)
    Replicas ── Replica    (backup: one device that is brought to each committed epoch)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from remus_agent.ports import Domain
from remus_agent.protocol.disk.operations import Extent
from remus_agent.protocol.disk.pieces import CopyProgress, DiskData, DiskEnd
from remus_agent.store_ports import CommitRecord

__all__ = [
    "CopyProgress",
    "Digests",
    "DiskData",
    "DiskEnd",
    "DiskFacts",
    "Replica",
    "Replicas",
    "Taps",
    "WriteTap",
]


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A protected disk. vdev: its name in the guest (`xvda`). size: bytes. block: logical sector size in bytes."""

    vdev: str
    size: int
    block: int


class Digests(Protocol):
    """Digests of the backup's disk."""

    async def __call__(self, offset: int, length: int) -> bytes:
        """xxh3_128 of each whole region from offset on, one after the other (16 bytes each)."""
        ...


class WriteTap(Protocol):
    """One disk of one domain on its primary. In a session it logs writes by epoch, without one it only tracks which regions
    changed. What is not `async` returns within microseconds, but for `barrier`."""

    @property
    def facts(self) -> DiskFacts: ...

    @property
    def map_id(self) -> str:
        """Identity of the region map. Known from `open` on."""
        ...

    async def open(self) -> None:
        """Put the tap behind the guest's disk. Every write is tracked when this returns. After an error the disk is as
        before."""
        ...

    async def begin(self, *, same_base: bool) -> None:
        """A session begins with epoch 1. same_base: the backup's disk carries our map's identity, so only what the map names
        has to be copied; otherwise everything."""
        ...

    async def copy(self, digests: Digests | None) -> None:
        """Log all regions that have to be copied; return when none is left. digests: asked first where regions may be equal, so
        that those do not travel; None: nobody can be asked. Raises DiskError when the session ends meanwhile."""
        ...

    @property
    def progress(self) -> CopyProgress: ...

    def barrier(self, epoch: int) -> None:
        """The running epoch ends: writes completed to the guest so far are in it or in earlier ones. Called while the guest is
        down, in the thread that has it down, so it takes well below a millisecond. Raises DiskError when there may be writes that
        the tap does not know of."""
        ...

    async def next(self) -> DiskData | DiskEnd:
        """The next piece to send, of the closed epoch first. Waits for one. Raises DiskError when the log overflowed, which
        ends the session."""
        ...

    def committed(self, epoch: int) -> None:
        """The backup has committed this epoch: its regions do not differ any more."""
        ...

    async def require_local(self) -> None:
        """Raises LocalDiskFailed when the local device has failed below the tap: what was written since then is on the backup
        only, and the guest's disk must not be led back to it. Returns when it is whole, or the tap is not open."""
        ...

    async def look(self) -> None:
        """The same. A session ends whose tap the kernel does not use any more, if that was not noticed."""
        ...

    async def refuse(self) -> None:
        """The tap lets go of the disk: while the local device has failed, whatever the guest reads or writes fails. Safe to call
        twice."""
        ...

    def end(self) -> None:
        """The session is over: drop the log, only track from now on. Safe to call twice."""
        ...

    async def close(self, *, given_up: bool = False) -> None:
        """Take the tap away: the guest's disk is linear again, the map is forgotten. Raises LocalDiskFailed and leaves it when
        the local device has failed; with given_up, of a guest that another host owns and that is gone here, the disk leads
        nowhere then. Safe to call twice."""
        ...


class Taps(Protocol):
    """Makes the taps of a domain."""

    async def of(self, domain: Domain) -> tuple[WriteTap, ...]:
        """One tap for each writable disk, in the order of the configuration. Changes nothing. Raises RefusedError with every
        disk that can't be protected and the change to make."""
        ...

    async def sweep(self, keep: frozenset[str]) -> list[str]:
        """Take away the taps that an earlier agent has left behind disks of all domains but these: such a disk is linear
        again, its map is forgotten. Returns what was put back, for the log. Raises DiskError after all were tried."""
        ...


class Replica(Protocol):
    """One disk of one domain on its backup: opened exclusively, led nowhere by its mapper device. One user at a time."""

    @property
    def facts(self) -> DiskFacts: ...

    @property
    def map_id(self) -> str | None:
        """Identity of the map that names everything in which this disk can differ from the primary's; None if there is
        none."""
        ...

    @property
    def capacity(self) -> int:
        """Bytes of extents (16 bytes and data each) that an epoch may have to be staged."""
        ...

    async def begin(self, map_id: str, session: str) -> None:
        """A session with this map begins. Durable when it returns. Content is not touched."""
        ...

    async def seed(self, extents: Sequence[Extent]) -> None:
        """Apply at once, before the session's first commit. The first call marks the disk as being seeded, durably, before
        anything is changed: from then on no older copy can be activated with it."""
        ...

    async def stage(self, epoch: int, extents: Sequence[Extent]) -> None:
        """Make an epoch durable in the journal, with everything seeded before it. The epoch before was applied."""
        ...

    async def apply(self, epoch: int) -> None:
        """The epoch was committed: bring the device to it. Durable when it returns."""
        ...

    async def drop(self) -> None:
        """Forget what is staged and not committed."""
        ...

    async def digests(self, offset: int, length: int) -> bytes:
        """xxh3_128 of each region of the device from offset on, 16 bytes each."""
        ...

    @property
    def released(self) -> bool:
        """`hand_over` has let go of the device: it can't be a copy again. If it then failed, it may be called again, and nothing
        else."""
        ...

    async def hand_over(self) -> None:
        """For activation: forget the map's identity, close the device and let the mapper device lead to it."""
        ...

    async def close(self) -> None:
        """Close the device; the mapper device goes on leading nowhere. Safe to call twice and after hand_over."""
        ...


class Replicas(Protocol):
    """The disks that this host can be a backup for."""

    async def examine(self, domain: str, disks: Sequence[DiskFacts]) -> list[str]:
        """Every reason against holding copies of these disks. Changes nothing."""
        ...

    async def open(self, domain: str, disk: DiskFacts, committed: CommitRecord | None) -> Replica:
        """Open one exclusively and bring it to the committed epoch: what the journal holds up to it is applied, the rest
        dropped. Raises DiskError, JournalError."""
        ...
