"""The disks of one copy: all feeds together, as the end of an epoch and a failover need them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from remus_agent.errors import DiskError, RefusedError, RemusError
from remus_agent.ports import Clock, Connection
from remus_agent.protocol.replication.messages import DiskHello, Hello
from remus_agent.services.disk_feed import DiskFeed, Older, session_over
from remus_agent.services.replica_set import DomainReplicas, facts_of
from remus_agent.services.settings import Settings
from remus_agent.services.together import all_done
from remus_agent.store_ports import CommitRecord

log = logging.getLogger(__name__)


def _nobody_listens() -> None:
    """Nobody wants to know."""


async def _nobody(_: RemusError) -> None:
    """Nobody wants to know."""


class CopyDisks:
    """Of a domain without disks, everything here returns at once. on_failure: what ends one disk, which ends the session.
    on_heard: called when anything comes over a disk's connection."""

    def __init__(self, hello: Hello, replicas: DomainReplicas, settings: Settings, clock: Clock, older: Older) -> None:
        self.on_failure: Callable[[RemusError], Awaitable[None]] = _nobody
        self.on_heard: Callable[[], None] = _nobody_listens
        self._hello = hello
        self._disks = facts_of(hello.disks)
        self._replicas = replicas
        self._settings = settings
        self._stopped: RemusError | None = None
        self._pulse = asyncio.Event()
        self._committed = 0
        self._left = False
        self._feeds = {
            disk.vdev: DiskFeed(
                hello.domain,
                hello.session,
                replicas.of(disk.vdev),
                settings,
                clock,
                older,
                self._changed,
                self._until_applied,
                self._heard,
            )
            for disk in self._disks
        }

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that epochs of the disks take before they are applied."""
        return sum(feed.held_bytes for feed in self._feeds.values())

    async def serve(self, connection: Connection, hello: DiskHello) -> None:
        """Take in one disk until its connection ends. Raises RefusedError when it does not belong to the session; what ends it
        later is told to on_failure."""
        feed = self._feeds.get(hello.vdev)
        facts = (hello.vdev, hello.size, hello.block)
        if feed is None or facts != (feed.facts.vdev, feed.facts.size, feed.facts.block):
            raise RefusedError(f"the session has no such disk {hello.vdev}", domain=hello.domain)
        if feed.attached or self._stopped is not None:
            raise RefusedError(f"disk {hello.vdev} has a connection already, or had one", domain=hello.domain)
        try:
            await feed.serve(connection, hello)
        except RemusError as error:
            await self._failed(error)
        except Exception as defect:
            log.critical("%s: disk %s ends its session by a defect", hello.domain, hello.vdev, exc_info=True)
            what = f"the backup's agent failed by a defect at disk {hello.vdev}: {defect!r}"
            await self._failed(DiskError(what, operation="receive a disk", domain=hello.domain))

    def _heard(self) -> None:
        self.on_heard()

    async def _failed(self, error: RemusError) -> None:
        if self._stopped is None:
            self._stopped = error
            self._changed()
            await self.on_failure(error)

    async def staged(self, epoch: int) -> dict[str, bytes]:
        """Digests of all disks, once all of them have staged this epoch."""
        await self._until(
            lambda: all(feed.staged[0] >= epoch for feed in self._feeds.values()),
            lambda: ", ".join(vdev for vdev, feed in self._feeds.items() if feed.staged[0] < epoch),
            f"epoch {epoch} to be staged",
            epoch,
        )
        return {vdev: feed.staged[1] for vdev, feed in self._feeds.items()}

    def committed(self, epoch: int) -> None:
        """The commit record of this epoch is durable."""
        self._committed = epoch

    async def apply(self) -> None:
        """Bring all disks to the committed epoch."""
        await asyncio.gather(*(feed.apply(self._committed) for feed in self._feeds.values()))
        self._changed()

    async def stop(self, error: RemusError | None = None) -> None:
        """The session is over: end the disks' connections and wait until nothing is done to them any more. Safe to call
        twice."""
        self._stopped = self._stopped or error or session_over(self._hello.domain)
        self._changed()
        try:
            await all_done(feed.stop(self._stopped) for feed in self._feeds.values())
        finally:
            self._leave_half_done()

    def _leave_half_done(self) -> None:
        if not self._left and any(feed.half_done or feed.applied != self._committed for feed in self._feeds.values()):
            self._replicas.suspect()
            self._left = True

    async def drop(self) -> None:
        """Forget what is staged and not committed."""
        await self._replicas.drop(list(self._feeds))

    async def hand_over(self, committed: CommitRecord | None) -> None:
        """For activation; see DomainReplicas."""
        await self._replicas.hand_over(self._hello.session, self._disks, committed)

    async def leave(self) -> None:
        """The copy is gone."""
        await self._replicas.leave(self._hello.session)

    def _changed(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def _until_applied(self, feed: DiskFeed, epoch: int) -> None:
        await self._until(lambda: feed.applied >= epoch, lambda: feed.facts.vdev, f"epoch {epoch} to be applied", epoch)

    async def _until(self, condition: Callable[[], bool], who: Callable[[], str], what: str, epoch: int) -> None:
        try:
            async with asyncio.timeout(self._settings.ack):
                while not condition():
                    if self._stopped is not None:
                        raise self._stopped
                    await self._pulse.wait()
        except TimeoutError:
            raise DiskError(
                f"waited {self._settings.ack:g} s in vain for {what} of disk {who()}",
                operation="commit an epoch",
                domain=self._hello.domain,
                epoch=epoch,
                left=f"the copy stands at epoch {self._committed}" if self._committed else "nothing was committed",
                hint="see dmesg on the backup for a device or a journal that does not answer, or is slower than the guest writes",
            ) from None
