"""The replicas of one domain on its backup. Each disk is opened once; the sessions of the domain share it in turn.

An older copy whose primary is gone stays activatable while a newer session stages its first epoch, because that changes no
content. So a replica stays open until no copy of the domain needs it. Once something has failed on a replica it is opened anew
before it is used again, which brings it to the committed epoch whatever state the failure has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence

from remus_agent.disk_ports import DiskFacts, Replica, Replicas
from remus_agent.errors import DiskError, RefusedError, RemusError
from remus_agent.protocol.replication.messages import HelloDisk
from remus_agent.services.together import all_done
from remus_agent.store_ports import CommitRecord

log = logging.getLogger(__name__)


def facts_of(disks: Sequence[HelloDisk]) -> tuple[DiskFacts, ...]:
    """The disks that a HELLO names."""
    return tuple(DiskFacts(disk.vdev, disk.size, disk.block) for disk in disks)


class DomainReplicas:
    """Users are named by their sessions."""

    def __init__(self, domain: str, replicas: Replicas) -> None:
        self.turn = 0
        """Counts failovers: what was examined before one must not be opened after it."""
        self._domain = domain
        self._replicas = replicas
        self._open: dict[str, Replica] = {}
        self._handed: set[str] = set()
        self._users: set[str] = set()
        self._lock = asyncio.Lock()
        self._suspect = False
        self._failing_over = 0

    def of(self, vdev: str) -> Replica:
        """An open one."""
        try:
            return self._open[vdev]
        except KeyError:
            raise DiskError(f"the copy of disk {vdev} is not open", domain=self._domain) from None

    def differ(self, disks: Sequence[DiskFacts]) -> bool:
        """Whether one of the disks is open with another size, which no copy survives."""
        return any(disk.vdev in self._open and self._open[disk.vdev].facts != disk for disk in disks)

    def suspect(self) -> None:
        """Something has failed on a replica, or was left half done."""
        self._suspect = True

    async def open(self, session: str, disks: Sequence[DiskFacts], committed: CommitRecord | None, turn: int) -> None:
        """Open those that are not open yet, all at the same time, for this session. turn: when the session was examined. Raises
        RefusedError, or the first DiskError or JournalError after all were tried; what nobody needs is closed then."""
        if not disks:
            return
        async with self._lock:
            self.check(turn)
            try:
                await (
                    self._close_all()
                )  # a new session begins with what its commit record says, whatever the one before left
                await self._ensure(disks, committed)
                self.check(turn)
                self._users.add(session)
                self._handed -= {disk.vdev for disk in disks}
            finally:
                await self._close_unused()

    async def leave(self, session: str) -> None:
        """The copy of this session needs them no longer; the last one closes them."""
        async with self._lock:
            self._users.discard(session)
            await self._close_unused()

    async def drop(self, vdevs: Sequence[str]) -> None:
        """Forget what is staged and not committed."""
        async with self._lock:
            if self._suspect:
                return  # opening them anew does it
            try:
                for vdev in vdevs:
                    await self.of(vdev).drop()
            except RemusError:
                self._suspect = True
                raise

    @contextlib.contextmanager
    def failing_over(self) -> Iterator[None]:
        """No session gets at them meanwhile, which ends with the last of several attempts that overlap."""
        self.turn += 1
        self._failing_over += 1
        try:
            yield
        finally:
            self._failing_over -= 1

    async def hand_over(self, session: str, disks: Sequence[DiskFacts], committed: CommitRecord | None) -> None:
        """For activation: bring all of them to the committed epoch, then let them go. After an error those that are handed over
        already stay so; asking again goes on with the others."""
        async with self._lock:
            rest = [disk for disk in disks if disk.vdev not in self._handed]
            fresh = not self._suspect
            await self._ensure(rest, committed)
            disk: DiskFacts | None = None
            try:
                if fresh:
                    for disk in rest:
                        if not self.of(disk.vdev).released:
                            await self.of(disk.vdev).drop()
                for disk in rest:
                    await self.of(disk.vdev).hand_over()
                    del self._open[disk.vdev]
                    self._handed.add(disk.vdev)
            except RemusError:
                # One that has let go of its device is asked again; opened anew it would say that it was handed over before.
                self._suspect = not (disk is not None and self.of(disk.vdev).released)
                raise
            self._users.discard(session)
            await self._close_unused()

    async def _ensure(self, disks: Sequence[DiskFacts], committed: CommitRecord | None) -> None:
        if self._suspect:
            await self._close_all(but_released=True)
            self._suspect = False

        async def opened(disk: DiskFacts) -> None:
            self._open[disk.vdev] = await self._replicas.open(self._domain, disk, committed)

        # Those that were opened stay in `_open` when another one fails: whoever asked closes them, or goes on with them.
        await all_done([opened(disk) for disk in disks if disk.vdev not in self._open])

    async def _close_unused(self) -> None:
        if not self._users:
            await self._close_all()

    async def _close_all(self, *, but_released: bool = False) -> None:
        closing = {vdev: replica for vdev, replica in self._open.items() if not (but_released and replica.released)}
        for vdev in closing:
            del self._open[vdev]
        await all_done([self._close(vdev, replica) for vdev, replica in closing.items()])

    async def _close(self, vdev: str, replica: Replica) -> None:
        try:
            await replica.close()
        except RemusError as error:
            log.error("%s: closing the copy of disk %s: %s", self._domain, vdev, error)

    def check(self, turn: int) -> None:
        """Raises RefusedError when a copy is or was activated since this turn."""
        if self._failing_over or turn != self.turn:
            raise RefusedError(
                "a copy of it is being activated here",
                operation="open session",
                domain=self._domain,
                hint="see `remusctl status` on this host",
            )
