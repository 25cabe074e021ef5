"""ports: `WriteTap` on dm-raid and nbd, `Taps` from the host's list of disks. The tap itself is a process (`tap_process`)."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remus_agent import __version__, disk_rules
from remus_agent.adapters.disk import catching_up, mapper, nbd_device, tap_process
from remus_agent.adapters.disk.failures import tap_let_go
from remus_agent.adapters.disk.geometry import geometry
from remus_agent.adapters.disk.layers import Layers
from remus_agent.adapters.disk.map_file import remove_map
from remus_agent.adapters.disk.tap_process import A, TapProcess
from remus_agent.adapters.ledger import Entry, Ledger
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import CopyProgress, Digests, DiskData, DiskEnd, DiskFacts
from remus_agent.errors import DiskError, LocalDiskFailed
from remus_agent.ports import Domain
from remus_agent.protocol.disk import tap_messages as say

log = logging.getLogger(__name__)

ATTACHED_AT_ONCE: Final = 8
"""Taps of one host that are put behind their disks, or swept away, at the same time, each by some ten processes one after the
other."""


@dataclass(frozen=True, slots=True)
class TapLimits:
    """log_bytes: most that waits to be sent. early_bytes: more than that of a running epoch is sent before it ends.
    stall_seconds: how long the kernel waits for a tap that does not answer before it fails the leg, and an epoch for a tap to
    end it."""

    log_bytes: int = 64 * 1024 * 1024
    early_bytes: int = 1024 * 1024
    stall_seconds: int = 5


class NbdTap:
    """`disk_ports.WriteTap` of one disk. run: directory of sockets and maps, which a restart of the agent keeps. turns: bounds
    how many taps are attached at the same time; by default nothing does. spawn: starts the tap's process. entry: makes what notes
    the one that is started."""

    def __init__(
        self,
        disk: Disk,
        facts: DiskFacts,
        run: Path,
        limits: TapLimits,
        turns: asyncio.Semaphore | None = None,
        spawn: tap_process.Spawn = tap_process.spawn,
        entry: Callable[[], Entry] = Entry,
    ) -> None:
        self.facts = facts
        self._disk = disk
        self._limits = limits
        self._layers = Layers(disk, facts.size)
        self._map_path = _map_path(run, disk)
        self._socket = run / "taps" / f"{disk.name}.sock"
        self._turns = turns or asyncio.Semaphore()
        self._spawn = spawn
        self._process: TapProcess | None = None
        self._make_entry = entry
        self._entry = Entry()
        self._session = 0
        self._same_base = False
        self._behind = False
        self._taken_back = False
        self._progress = CopyProgress(0, 0, 0)

    @property
    def is_open(self) -> bool:
        """Whether the guest's disk has this tap behind it, or had when it was last looked at."""
        return self._behind

    @property
    def map_id(self) -> str:
        return self._opened().map_id

    @property
    def progress(self) -> CopyProgress:
        return self._progress

    async def open(self) -> None:
        target = await self._layers.target()
        if target == "raid":
            # The tap may be the only leg that works: it stays as it is, also where it is slow.
            await self._layers.require_local()
        if target != "raid" or not await self._serves():
            async with self._turns:
                await self._put_behind(target)
        await self._recovered()  # without a turn: its writes are served, and it may take long

    async def begin(self, *, same_base: bool) -> None:
        begun = await self._command(say.Begin(same_base), say.Begun)
        self._session, self._same_base = begun.session, same_base
        self._note(begun.progress)

    async def copy(self, digests: Digests | None) -> None:
        await self.require_local()  # a failed leg would be taken back by what follows
        await self._layers.require_device()
        await mapper.cycle(self._disk.name)  # what was logged before the session has reached the local device now
        process, session = self._opened(), self._session
        if self._same_base and not self._taken_back:
            digests = None  # what is marked was written to
        asked: asyncio.Task[bytes | None] | None = None
        try:
            run = await process.next_run(session)
            asked = _ask(digests, run)
            while run.length:
                theirs = await asked
                # The backup reads the next run while the tap reads this one. Its digests may be older than writes that are made
                # meanwhile: what a write has changed is in the log, and the plan knows that it is newer.
                ahead = await process.next_run(session)
                asked = _ask(digests, ahead)
                self._note(await process.copy(say.CopyRun(session, run.offset, run.length, theirs)))
                run = ahead
        finally:
            if asked is not None:
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            process.rest()
        self._taken_back = False

    def barrier(self, epoch: int) -> None:
        self._opened().barrier(epoch, self._limits.stall_seconds)

    async def next(self) -> DiskData | DiskEnd:
        piece, payload = await self._opened().next(self._session)
        if isinstance(piece, say.Data):
            return DiskData(piece.epoch, (payload,))
        return DiskEnd(piece.epoch, piece.data_bytes, piece.extents, piece.digest)

    def committed(self, epoch: int) -> None:
        self._opened().tell(say.Committed(epoch))

    async def require_local(self) -> None:
        if await self._layers.target() == "raid":
            await self._layers.require_local()

    async def look(self) -> None:
        if await self._layers.target() != "raid":
            return
        if "D" in await self._layers.require_local() and self._process is not None:
            # What was written since is in no epoch. Mostly its end of the socket has said so, but md may fail a leg alone.
            self._process.tell(say.Lose())

    async def refuse(self) -> None:
        if self._process is not None and await self._layers.nbd() is not None:
            await self._let_go()

    def end(self) -> None:
        if self._process is not None:
            self._process.tell(say.End())

    async def close(self, *, given_up: bool = False) -> None:
        self.end()
        if await self._layers.target() in ("raid", "linear"):  # beside a linear one, parts of a raid may be left
            try:
                await self._layers.linear()
            except LocalDiskFailed:
                if not given_up:
                    raise
                await self._layers.nowhere()
        await self._end_process()
        self._behind = False
        await asyncio.to_thread(remove_map, self._map_path)

    # The leg

    async def _serves(self) -> bool:
        """Whether the tap is there, and the kernel has not let go of it."""
        if self._process is None:
            return False
        if not self._process.sound:
            await self._end_process()
            return False
        try:
            return (await self._command(say.Look(), say.Seen)).serving
        except DiskError as error:
            log.warning("%s: %s", self._disk.name, error)
            await self._end_process()
            return False

    async def _put_behind(self, target: str | None) -> None:
        """target: kind of the guest's device."""
        if target not in ("linear", "raid"):
            raise DiskError(
                f"{mapper.path_of(self._disk.name)} is {target or 'not there'}",
                operation="protect a disk",
                domain=self._disk.domain,
                left="nothing was changed",
                hint="start remus-disks.service, which makes it; on a backup it leads nowhere",
            )
        self._behind = target == "raid"  # also while no process serves it
        await self._let_go()
        if target == "linear":  # nobody has tracked the writes to it
            await self._end_process()
        if self._process is None:
            self._process = await tap_process.start(self._setup(keep=target == "raid"), self._spawn)
            self._entry = self._make_entry()
            self._entry.process(self._process.pid)
        nbd: Path | None = None
        try:
            await self._command(say.Serve(), say.Done)
            nbd = await nbd_device.connect(self._socket, self._disk.name, self.facts.block, self._limits.stall_seconds)
            await self._layers.protect(nbd)
        except BaseException:
            await self._undo(nbd, fresh=target == "linear")
            raise
        self._behind = True
        self._taken_back = target == "raid"  # md writes whole regions of its own, of which little has changed

    async def _let_go(self) -> None:
        """Of an earlier leg: what waits for it fails now, not after the kernel's timeout, and md goes on."""
        old = await self._layers.nbd()
        owner = nbd_device.owner(old) if old is not None else None
        if self._process is not None:
            await self._command(say.Hush(), say.Done)
        if old is not None and owner is not None:
            await nbd_device.disconnect(old, owner)

    async def _undo(self, nbd: Path | None, *, fresh: bool) -> None:
        """fresh: the disk was linear, and becomes that again."""
        owner = nbd_device.owner(nbd) if nbd is not None else None
        try:
            if fresh:
                await self._layers.linear()  # while the tap still answers
        except DiskError as error:
            log.error("%s: it was not put back: %s", self._disk.name, error)
        await self._end_process()
        try:
            if nbd is not None and owner is not None:
                await nbd_device.disconnect(nbd, owner)
        except DiskError as error:
            log.error("%s: %s is still connected: %s", self._disk.name, nbd, error)

    async def _recovered(self) -> None:
        """Wait until md has written everything through the tap that changed while its leg was failed. Raises DiskError when
        md does not use the tap, which the next `open` takes back, or does not get on."""
        legs = await catching_up.legs_at_rest(self._layers.raid, self._disk)
        if legs.startswith("D"):
            # Raises: the tap is the only leg that works, so it stays where it is.
            await self._layers.require_local()
        if "D" in legs:
            self._opened().tell(say.Lose())
            raise tap_let_go(
                self.facts.vdev,
                self._disk.domain,
                "protect a disk",
                "it is tried again; look at the kernel's log (dmesg)",
            )

    # The process

    async def _command(self, request: say.Request, kind: type[A]) -> A:
        try:
            async with asyncio.timeout(self._limits.stall_seconds):
                return await self._opened().command(request, kind)
        except TimeoutError:
            raise DiskError(
                f"the tap of {self.facts.vdev} has not answered within {self._limits.stall_seconds} s",
                operation=f"{type(request).__name__.lower()} a tap",
                domain=self._disk.domain,
                left="the guest's disk goes on, its regions that changed stay marked",
                hint="dom0 may be overloaded; the next session tries again",
            ) from None

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._entry.close()
            await process.close()

    def _setup(self, *, keep: bool) -> say.Setup:
        return say.Setup(
            release=__version__,
            domain=self._disk.domain,
            vdev=self.facts.vdev,
            name=self._disk.name,
            size=self.facts.size,
            block=self.facts.block,
            device=str(self._disk.device),
            map_path=str(self._map_path),
            keep=keep,
            socket=str(self._socket),
            log_bytes=self._limits.log_bytes,
            early_bytes=self._limits.early_bytes,
        )

    def _note(self, progress: say.Progress) -> None:
        self._progress = CopyProgress(progress.done, progress.total, progress.sent)

    def _opened(self) -> TapProcess:
        if self._process is None:
            raise DiskError("the tap is not open", operation="protect a disk", domain=self._disk.domain)
        return self._process


def _ask(digests: Digests | None, run: say.Run) -> asyncio.Task[bytes | None]:
    """Ask what the backup's disk holds there: nothing where nobody is asked, or behind the last run."""

    async def answer() -> bytes | None:
        return await digests(run.offset, run.length) if digests is not None and run.length else None

    return asyncio.create_task(answer(), name="digests of a run")


def _map_path(run: Path, disk: Disk) -> Path:
    return run / "maps" / f"{disk.name}.map"


class DiskTaps:
    """`disk_ports.Taps` from the list of disks of this host. ledger: notes what is there for which guest."""

    def __init__(self, disks: Sequence[Disk], run: Path, limits: TapLimits, ledger: Ledger | None = None) -> None:
        self._disks = {(disk.domain, disk.vdev): disk for disk in disks}
        self._run = run
        self._limits = limits
        self._ledger = ledger or Ledger()
        self._made: dict[tuple[str, str], NbdTap] = {}
        self._turns = asyncio.Semaphore(ATTACHED_AT_ONCE)

    async def of(self, domain: Domain) -> tuple[NbdTap, ...]:
        """As the port says."""
        found = disk_rules.plan(domain.name, domain.disks, tuple(self._disks.values()))
        return tuple([await self._tap(*key) for key in disk_rules.require(domain.name, found)])

    async def sweep(self, keep: frozenset[str]) -> list[str]:
        """As the port says. What failed before half-way is finished: a linear disk beside which parts of a raid are left."""
        found: dict[str, bool | DiskError] = {}
        disks = [disk for disk in self._disks.values() if disk.domain not in keep]

        async def one(disk: Disk) -> None:
            try:
                async with self._turns:
                    found[disk.name] = await self._made_linear(disk)
            except DiskError as error:
                log.error("%s: %s", disk.name, error)
                found[disk.name] = error

        async with asyncio.TaskGroup() as group:
            for disk in disks:
                group.create_task(one(disk), name=f"sweep {disk.name}")
        done = [disk.name for disk in disks if found[disk.name] is True]
        failed = [said for disk in disks if isinstance(said := found[disk.name], DiskError)]
        if failed:
            raise DiskError(
                "; ".join(error.message for error in failed),
                operation="take away old taps",
                left=f"put back: {', '.join(done) or 'none'}; the others are as they were, and their guests run on",
                hint="`remus-disks status` shows them; the next start of remus-agent tries again",
            )
        return done

    async def _made_linear(self, disk: Disk) -> bool:
        """False when there was nothing to do. The local device is looked at only if it has to be."""
        found = Layers(disk, 0)
        kind = await found.target()
        if kind != "raid" and not (kind == "linear" and await found.left_over()):
            return False
        size, _ = await asyncio.to_thread(geometry, disk.device, disk.domain)
        await Layers(disk, size).linear()
        await asyncio.to_thread(remove_map, _map_path(self._run, disk))
        return True

    async def _tap(self, domain: str, vdev: str) -> NbdTap:
        """The same object each time, so that its thread outlives a session."""
        key = (domain, vdev)
        disk = self._disks[key]
        size, block = await asyncio.to_thread(geometry, disk.device, domain)
        facts = DiskFacts(vdev, size, block)
        made = self._made.get(key)
        if made is None or (made.facts != facts and not made.is_open):  # a device may grow while nobody protects it
            entry = functools.partial(self._ledger.open, domain, "disks")
            self._made[key] = NbdTap(disk, facts, self._run, self._limits, self._turns, entry=entry)
        return self._made[key]
