"""ports: `WriteTap` on dm-raid and nbd, `Taps` from the host's list of disks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xxhash import xxh3_128_digest

from remus_agent import disk_rules
from remus_agent.adapters.disk import catching_up, mapper, nbd_device
from remus_agent.adapters.disk.direct import DirectReader
from remus_agent.adapters.disk.geometry import geometry
from remus_agent.adapters.disk.layers import Layers
from remus_agent.adapters.disk.map_file import open_map, remove_map
from remus_agent.adapters.disk.tap_server import TapServer
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import CopyProgress, Digests, DiskData, DiskEnd, DiskFacts
from remus_agent.errors import DiskError
from remus_agent.ports import Domain
from remus_agent.protocol.disk.copy_plan import CopyRun
from remus_agent.protocol.disk.regions import RegionMap, region_bytes
from remus_agent.protocol.disk.tap_log import TapLog
from remus_agent.protocol.nbd.messages import Export
from remus_agent.protocol.replication.digest import DIGEST_BYTES

log = logging.getLogger(__name__)

_COPY_BYTES: Final = 1024 * 1024
"""Read at once by the copier."""
ATTACHED_AT_ONCE: Final = 8
"""Taps of one host that are put behind their disks, or swept away, at the same time, each by some ten processes one after the
other."""


@dataclass(frozen=True, slots=True)
class TapLimits:
    """log_bytes: most that waits to be sent. early_bytes: more than that of a running epoch is sent before it ends.
    stall_seconds: how long the kernel waits for a tap that does not answer before it fails the leg."""

    log_bytes: int = 64 * 1024 * 1024
    early_bytes: int = 1024 * 1024
    stall_seconds: int = 5


class NbdTap:
    """`disk_ports.WriteTap` of one disk. run: directory of sockets and maps, which a restart of the agent keeps. turns: bounds
    how many taps are attached at the same time; by default nothing does."""

    def __init__(
        self, disk: Disk, facts: DiskFacts, run: Path, limits: TapLimits, turns: asyncio.Semaphore | None = None
    ) -> None:
        self.facts = facts
        self._disk = disk
        self._limits = limits
        self._layers = Layers(disk, facts.size)
        self._map_path = _map_path(run, disk)
        self._socket = run / "taps" / f"{disk.name}.sock"
        self._turns = turns or asyncio.Semaphore()
        self._lock = threading.Lock()
        self._logged = asyncio.Event()
        self._taken = asyncio.Event()
        self._map: RegionMap | None = None
        self._log: TapLog | None = None
        self._server: TapServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leg_lost = False

    @property
    def is_open(self) -> bool:
        """Whether the guest's disk has this tap behind it, or had when it was last looked at."""
        return self._log is not None

    @property
    def map_id(self) -> str:
        return self._opened_map().map_id

    @property
    def progress(self) -> CopyProgress:
        with self._lock:
            return self._log.progress if self._log else CopyProgress(0, 0, 0)

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        target = await self._layers.target()
        if self._server is not None and not self._leg_lost and target == "raid":
            await self._recovered()
            return
        async with self._turns:
            await self._put_behind(target)
        await self._recovered()  # without a turn: its writes are served, and it may take long

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
        if self._log is None or target == "linear":  # nobody has tracked the writes to a linear disk
            self._map = open_map(self._map_path, self.facts.size, keep=target == "raid")
            self._log = TapLog(
                self._map, self.facts.block, limit=self._limits.log_bytes, early=self._limits.early_bytes
            )
        await self._attach(fresh=target == "linear")

    def begin(self, *, same_base: bool) -> None:
        with self._lock:
            self._opened_log().begin(same_base=same_base)
        self._logged.clear()

    async def copy(self, digests: Digests | None) -> None:
        await self.require_local()  # a failed leg would be taken back by what follows
        await self._layers.require_device()
        await mapper.cycle(self._disk.name)  # what was logged before the session has reached the local device now
        reader = await asyncio.to_thread(DirectReader, self._disk.device, self._disk.domain)
        try:
            while True:
                with self._lock:
                    run = self._opened_log().next_copy(_COPY_BYTES)
                    crowded = self._opened_log().waiting > max(self._limits.log_bytes // 4, self._limits.early_bytes)
                if run is None:
                    return
                if crowded:
                    await self._room()
                await self._copy_run(run, reader, digests)
        finally:
            await asyncio.to_thread(reader.close)

    def barrier(self, epoch: int) -> None:
        with self._lock:
            if self._server is None or not self._server.connected:
                # Writes may have been completed without us since: an epoch must not be closed that lacks them.
                self._leg_lost = True
                self._opened_log().end()
            else:
                self._opened_log().barrier(epoch)
        self._wake()
        if self._leg_lost:
            raise self._lost()

    async def next(self) -> DiskData | DiskEnd:
        while True:
            self._logged.clear()
            with self._lock:
                if self._leg_lost:
                    raise self._lost()
                packing = self._opened_log().take()
            if packing is not None:
                self._taken.set()
                return packing()  # without the lock, which the guest's writes need
            await self._logged.wait()

    def committed(self, epoch: int) -> None:
        with self._lock:
            self._opened_log().committed(epoch)

    async def require_local(self) -> None:
        if await self._layers.target() == "raid":
            await self._layers.require_local()

    def end(self) -> None:
        with self._lock:
            if self._log is not None:
                self._log.end()
        self._taken.set()

    async def close(self) -> None:
        self.end()
        if await self._layers.target() in ("raid", "linear"):  # beside a linear one, parts of a raid may be left
            await self._layers.linear()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
            self._server = None
        self._log = self._map = None
        await asyncio.to_thread(remove_map, self._map_path)

    # The leg

    async def _attach(self, *, fresh: bool) -> None:
        """fresh: the disk is linear, and becomes that again after an error."""
        old = await self._layers.nbd()
        owner = nbd_device.owner(old) if old is not None else None
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
            self._server = None  # until another one serves: what fails below must not count as open
        if (
            old is not None and owner is not None
        ):  # what waits for it fails now, not after the kernel's timeout, and md goes on
            await nbd_device.disconnect(old, owner)
        self._leg_lost = False
        export = Export(self._disk.name, self.facts.size, self.facts.block)
        server = TapServer(self._socket, export, self._opened_log(), self._lock, self._on_logged, self._on_gone)
        nbd: Path | None = None
        try:
            server.start()
            nbd = await nbd_device.connect(self._socket, export.name, export.block, self._limits.stall_seconds)
            await self._layers.protect(nbd)
        except BaseException:
            await self._undo(server, nbd, fresh=fresh)
            raise
        self._server = server

    async def _undo(self, server: TapServer, nbd: Path | None, *, fresh: bool) -> None:
        owner = nbd_device.owner(nbd) if nbd is not None else None
        try:
            if fresh:
                await self._layers.linear()  # while the tap still answers
        except DiskError as error:
            log.error("%s: it was not put back: %s", self._disk.name, error)
        await asyncio.to_thread(server.stop)
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
            self._leg_lost = True
            raise self._lost()

    def _on_logged(self, waiting: int | None) -> None:
        """In the tap's thread, for each write: wakes the sender only when there is something to send early, or the log has
        overflowed. An event that is set already is cleared before the log is looked at, so nothing is missed."""
        if (waiting is None or waiting > self._limits.early_bytes) and not self._logged.is_set():
            self._wake()

    def _on_gone(self) -> None:
        """In the tap's thread: the kernel has let go of the leg."""
        with self._lock:
            self._leg_lost = True
            if self._log is not None:
                self._log.end()
        log.warning("%s: the kernel has let go of the tap; the guest's disk goes on without it", self._disk.name)
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the agent has ended
                self._loop.call_soon_threadsafe(self._logged.set)

    # The copier

    async def _copy_run(self, run: CopyRun, reader: DirectReader, digests: Digests | None) -> None:
        theirs = await digests(run.offset, run.length) if digests is not None else None
        data = await asyncio.to_thread(reader.read, run.offset, run.length)
        region = region_bytes(self.facts.size)
        with self._lock:
            tap_log = self._opened_log()
            if theirs is None:
                tap_log.copied(run, data)
            else:
                _take_what_differs(tap_log, run, data, theirs, region)
            early = tap_log.waiting > self._limits.early_bytes or tap_log.overflowed
        if early:
            self._logged.set()

    async def _room(self) -> None:
        """Wait until something was sent, so that copying does not crowd out the guest's writes."""
        self._taken.clear()
        self._logged.set()
        await self._taken.wait()

    def _opened_log(self) -> TapLog:
        if self._log is None:
            raise self._not_open()
        return self._log

    def _opened_map(self) -> RegionMap:
        if self._map is None:
            raise self._not_open()
        return self._map

    def _not_open(self) -> DiskError:
        return DiskError("the tap is not open", operation="protect a disk", domain=self._disk.domain)

    def _lost(self) -> DiskError:
        return DiskError(
            f"the kernel has let go of the tap of {self.facts.vdev}",
            operation="log writes",
            domain=self._disk.domain,
            left="the guest's disk goes on, md remembers what changes",
            hint="the next session takes the tap back; look at the kernel's log (dmesg) if it happens again",
        )


def _take_what_differs(tap_log: TapLog, run: CopyRun, data: memoryview, theirs: bytes, region: int) -> None:
    for number, piece in enumerate(run.split(region)):
        part = data[piece.offset - run.offset : piece.end - run.offset]
        if xxh3_128_digest(part) == theirs[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
            tap_log.same(piece)
        else:
            tap_log.copied(piece, part)


def _map_path(run: Path, disk: Disk) -> Path:
    return run / "maps" / f"{disk.name}.map"


class DiskTaps:
    """`disk_ports.Taps` from the list of disks of this host."""

    def __init__(self, disks: Sequence[Disk], run: Path, limits: TapLimits) -> None:
        self._disks = {(disk.domain, disk.vdev): disk for disk in disks}
        self._run = run
        self._limits = limits
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
            self._made[key] = NbdTap(disk, facts, self._run, self._limits, self._turns)
        return self._made[key]
