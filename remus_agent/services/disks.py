"""All protected disks of one domain on its primary: their taps, and in a session their channels.

A tap stays behind its disk for as long as the domain is protected, also without a session: then it only tracks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from remus_agent.disk_ports import CopyProgress, WriteTap
from remus_agent.errors import LocalDiskFailed, RemusError
from remus_agent.observe.status import DiskStatus
from remus_agent.ports import Clock, Connector
from remus_agent.protocol.replication.messages import DiskHello, Hello, HelloDisk
from remus_agent.services.disk_channel import DiskChannel, open_channel
from remus_agent.services.epochs import DiskFigures
from remus_agent.services.session import PrimarySession
from remus_agent.services.settings import Settings
from remus_agent.services.together import all_done

log = logging.getLogger(__name__)


def hello_disks(taps: Sequence[WriteTap]) -> tuple[HelloDisk, ...]:
    """Disks as HELLO names them."""
    return tuple(HelloDisk(vdev=tap.facts.vdev, size=tap.facts.size, block=tap.facts.block) for tap in taps)


class DiskSet:
    """The disks of a domain. Without any, everything here does nothing and returns at once. left_open: an earlier agent may
    have left the taps in place. on_failure: called once with each local device that fails below its tap. alone: whether the
    guest's output is open and no copy counts, so that nothing may be written to a backup's disk only."""

    def __init__(
        self,
        taps: Sequence[WriteTap],
        settings: Settings,
        clock: Clock,
        *,
        left_open: bool,
        on_failure: Callable[[str, RemusError], None],
        alone: Callable[[], bool],
    ) -> None:
        self._taps = tuple(taps)
        self._touched = left_open
        self._settings = settings
        self._clock = clock
        self._is_open = False
        self._channels: list[DiskChannel] = []
        self._on_failure = on_failure
        self._alone = alone
        self._failed: set[str] = set()
        self._problems: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def hello(self) -> tuple[HelloDisk, ...]:
        """For HELLO."""
        return hello_disks(self._taps)

    @property
    def names(self) -> frozenset[str]:
        """Whose acknowledgements each epoch needs."""
        return frozenset(tap.facts.vdev for tap in self._taps)

    async def open(self) -> None:
        """Put the taps behind the disks, all at the same time, because the guest's writes wait for them; those that are there
        stay, those that the kernel let go of are put there again. Raises the first error after all were tried."""
        self._touched = True
        await all_done(tap.open() for tap in self._taps)
        self._is_open = True
        if self._taps and self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="look at local disks")

    async def connect(self, connector: Connector, address: str, hello: Hello, session: PrimarySession) -> None:
        """Open a channel for each disk; all of them begin together. What ends one of them later ends the session."""
        for tap in self._taps:
            disk_hello = DiskHello(
                session=hello.session,
                domain=hello.domain,
                vdev=tap.facts.vdev,
                size=tap.facts.size,
                block=tap.facts.block,
                map_id=tap.map_id,
            )
            self._channels.append(
                await open_channel(connector, address, tap, disk_hello, self._settings, self._clock, session.fail)
            )
        for channel in self._channels:
            await channel.start()

    async def copy(self) -> None:
        """Copy what the backup's disks lack. Raises what ends one of the copies, as soon as it does."""
        copies = [asyncio.create_task(channel.copy(), name=f"copy {channel.vdev}") for channel in self._channels]
        try:
            if copies:
                ended, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_EXCEPTION)
                for copy in ended:
                    copy.result()
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)

    @property
    def progress(self) -> CopyProgress:
        """Of all copies together."""
        each = [channel.tap.progress for channel in self._channels]
        return CopyProgress(sum(p.done for p in each), sum(p.total for p in each), sum(p.sent for p in each))

    def barrier(self, epoch: int) -> None:
        """In the suspended window: the running epoch ends for every disk."""
        for channel in self._channels:
            channel.tap.barrier(epoch)

    async def wait_ack(self, epoch: int) -> list[str]:
        """Names of the disks, when all of them are acknowledged."""
        for channel in self._channels:
            await channel.wait_ack(epoch)
        return [channel.vdev for channel in self._channels]

    def committed(self, epoch: int) -> None:
        """The backup has committed this epoch, disks included."""
        for channel in self._channels:
            channel.tap.committed(epoch)

    def figures(self, epoch: int, sent_at: float) -> DiskFigures:
        """Of an acknowledged epoch. sent_at: clock when memory had been sent."""
        ends = [channel.last_end for channel in self._channels]
        known = [end for end in ends if end is not None and end.epoch == epoch]
        acked_at = max((channel.acked_at for channel in self._channels), default=sent_at)
        return DiskFigures(
            sum(end.data_bytes for end in known), sum(end.extents for end in known), max(0.0, acked_at - sent_at)
        )

    async def end(self) -> None:
        """The session is over: close the channels; the taps only track. Safe to call twice."""
        channels, self._channels = self._channels, []
        for tap in self._taps:
            if self._is_open:
                tap.end()
        await all_done(channel.close() for channel in channels)

    async def require_local(self) -> None:
        """Raises LocalDiskFailed when a local device has failed below its tap: then the backup's copy is the only good one."""
        for tap in self._taps:
            await tap.require_local()

    async def _look(self) -> None:
        """md goes on with the leg that works and tells nobody: look again and again."""
        while True:
            for tap in self._taps:
                vdev = tap.facts.vdev
                try:
                    await self._look_at(tap)
                except RemusError as error:
                    log.warning("disk %s: %s", vdev, error)
                    self._problems[vdev] = str(error)
                except Exception:
                    log.critical("disk %s: what is below it is not known, by a defect", vdev, exc_info=True)
                else:
                    self._problems.pop(vdev, None)
            await self._clock.sleep(self._settings.look)

    async def _look_at(self, tap: WriteTap) -> None:
        vdev = tap.facts.vdev
        try:
            await tap.look()
        except LocalDiskFailed as error:
            if vdev not in self._failed:
                self._failed.add(vdev)
                log.critical("disk %s: %s", vdev, error)
                self._on_failure(vdev, error)
            await self._refuse_alone(tap)
            raise

    async def _refuse_alone(self, tap: WriteTap) -> None:
        """Of a disk whose local device has failed. Without a session a tap only tracks, and what the guest is told is written
        would be nowhere."""
        if self._alone():
            await tap.refuse()

    async def leave(self) -> None:
        """Stop looking; everything stays as it is. Safe to call twice."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def close(self, *, given_up: bool = False) -> None:
        """Take the taps away, of all disks, whatever happens to one; raises the first error. given_up: of a guest that another
        host owns and that is gone here. Safe to call twice."""
        await self.leave()
        if self._touched:
            await all_done(self._close(tap, given_up=given_up) for tap in self._taps)
        self._is_open = self._touched = False
        self._failed.clear()

    async def _close(self, tap: WriteTap, *, given_up: bool) -> None:
        try:
            await tap.close(given_up=given_up)
        except RemusError as error:
            log.error("disk %s: %s", tap.facts.vdev, error)
            if isinstance(error, LocalDiskFailed):
                await self._refuse_alone(tap)
            raise

    def status(self) -> tuple[DiskStatus, ...]:
        """Each disk for the status."""
        channels = {channel.vdev: channel for channel in self._channels}
        return tuple(
            _status(tap, channels.get(tap.facts.vdev), self._problems.get(tap.facts.vdev)) for tap in self._taps
        )


def _status(tap: WriteTap, channel: DiskChannel | None, problem: str | None) -> DiskStatus:
    facts = tap.facts
    if channel is None:
        return DiskStatus(vdev=facts.vdev, mode="tracking", size=facts.size, problem=problem)
    progress = tap.progress
    return DiskStatus(
        vdev=facts.vdev,
        mode="replicating" if channel.copied else "copying",
        size=facts.size,
        done=progress.done,
        total=progress.total,
        sent=progress.sent,
        bytes_last=channel.last_end.data_bytes if channel.last_end else 0,
        problem=problem,
    )
