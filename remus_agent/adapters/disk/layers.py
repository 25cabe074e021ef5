"""The layers below a guest's disk on its host, and the ways between them:

remus-<domain>-<vdev>      what the guest's configuration names; never taken away while the guest runs
    linear                 -> device                                      unprotected
    raid1                  -> device, and remus-<domain>-<vdev>-tap       protected
    error                  -> nowhere                                     this host is the backup
remus-<domain>-<vdev>-tap  linear -> /dev/nbdN, which a restarted tap may change
remus-<domain>-<vdev>-md0, -md1    halves of the metadata device
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remus_agent.adapters.disk import mapper, marker, nbd_device
from remus_agent.adapters.disk.command import run
from remus_agent.adapters.disk.geometry import number_of
from remus_agent.disk_config import METADATA_BYTES, Disk
from remus_agent.errors import DiskError, LocalDiskFailed

log = logging.getLogger(__name__)

_HALF: Final = METADATA_BYTES // 2
_MD_REGIONS: Final = 1 << 16
_MD_REGION: Final = 1024 * 1024
"""Bytes for each bit of md's bitmap. dm-raid also cuts every read and write at its multiples (max_io_len in the kernel's
dm-raid.c): with 64 KiB sequential reads lost a third of their speed. A leg that comes back is written again in such pieces."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of one disk. size: bytes."""

    disk: Disk
    size: int

    @property
    def _name(self) -> str:
        return self.disk.name

    @property
    def _tap(self) -> str:
        return f"{self._name}-tap"

    def _half(self, leg: int) -> str:
        return f"{self._name}-md{leg}"

    async def target(self) -> str | None:
        """Kind of the guest's device now: linear, raid, error, empty without a table; None when there is no device."""
        if not await mapper.exists(self._name):
            return None
        words = (await mapper.table(self._name)).split()
        return words[2] if len(words) > 2 else ""

    async def nbd(self) -> Path | None:
        """The nbd device behind the tap's; None when there is no tap, or the device is gone."""
        if not await mapper.exists(self._tap):
            return None
        words = (await mapper.table(self._tap)).split()
        return nbd_device.named(words[3]) if words[2:3] == ["linear"] else None

    async def linear(self) -> None:
        """The guest's device leads to the local device and to nothing else, whatever it was. Refused when that is the leg of a
        raid that has failed, because it lacks what was written since, or is no leg of the raid."""
        wanted = mapper.linear(self.size, self.disk.device)
        kind = await self.target()
        if kind is None:
            await mapper.create(self._name, wanted)
        elif kind != "linear":
            if kind == "raid":
                await self.require_local()
                await self.require_device()
            await mapper.replace(self._name, wanted)
        await self.tidy()

    async def nowhere(self) -> None:
        """The guest's device leads nowhere. Refused while somebody has it open."""
        kind = await self.target()
        if kind is None:
            await mapper.create(self._name, mapper.nowhere(self.size))
        elif kind != "error":
            await self.require_unused()
            await mapper.replace(self._name, mapper.nowhere(self.size))
        await self.tidy()

    async def require_unused(self) -> None:
        """Raises DiskError when somebody has the guest's device open."""
        if await mapper.exists(self._name) and await mapper.users(self._name):
            raise DiskError(
                f"{mapper.path_of(self._name)} is in use on this host",
                operation="keep a copy of a disk",
                domain=self.disk.domain,
                left="it was not changed",
                hint="end the domain or unmount what uses it; a backup's disk must not be used by anybody else",
            )

    async def protect(self, nbd: Path) -> None:
        """The guest's device becomes a raid1 of the local device and the tap behind an nbd device. A raid whose tap had failed
        takes it back, and md copies what has changed meanwhile."""
        protected = await self.target() == "raid"
        if protected:
            await self.require_local()  # md would take that leg back as well, and read what it lacks from the tap
        await self.require_device()
        if await mapper.exists(self._tap):
            await mapper.replace(self._tap, mapper.linear(self.size, nbd), flush=False)
        else:
            await mapper.create(self._tap, mapper.linear(self.size, nbd))
        if protected:
            await mapper.cycle(self._name)
        else:
            await self._new_raid()
        if "D" in (await self.legs()):
            raise DiskError(
                "md did not accept the tap",
                operation="protect a disk",
                domain=self.disk.domain,
                left="the guest's disk goes on with its local device",
                hint="look at the kernel's log (dmesg)",
            )

    async def require_local(self) -> str:
        """As `legs`. Raises LocalDiskFailed when the local leg of the raid has failed."""
        legs = await self.legs()
        if legs.startswith("D"):
            raise LocalDiskFailed(
                f"{self.disk.device} has failed: what was written since then is on the backup only",
                operation="use the local disk",
                domain=self.disk.domain,
                left="the guest's disk goes on with the tap alone; reads of it fail",
                hint="fail over: stop the guest here, prove this host dead to failover.yml, then replace the device",
            )
        return legs

    async def require_device(self) -> None:
        """Raises DiskError when what is behind the guest's linear device or raid is not what the device's name leads to by now:
        reading there, or switching to it, would change the guest's content."""
        words = (await mapper.table(self._name)).split()
        found = words[3] if words[2] == "linear" else words[-3]
        named = number_of(self.disk.device)
        if found != named:
            raise DiskError(
                f"the guest's disk lies on device {found}, and {self.disk.device} is {named or 'not there'}",
                operation="use the local disk",
                domain=self.disk.domain,
                left="the guest's disk goes on with the device that it has",
                hint=f"`lsblk` shows which is which; correct {self.disk.device}, or the list of disks, back to {found}. To use "
                "another device, end the protection, shut the guest down, then change it",
            )

    async def legs(self) -> str:
        """One letter for each leg of the raid: A in use, a being brought up to date, D failed."""
        return (await self.raid()).legs

    async def raid(self) -> mapper.RaidStatus:
        """Of the raid. Raises DiskError when there is none."""
        return await mapper.raid_status(self._name)

    async def left_over(self) -> bool:
        """Whether something is there that only a raid needs."""
        for name in (self._tap, self._half(0), self._half(1)):
            if await mapper.exists(name):
                return True
        return False

    async def tidy(self) -> None:
        """Take away what only a raid needs."""
        nbd = await self.nbd()
        owner = nbd_device.owner(nbd) if nbd is not None else None
        for name in (self._tap, self._half(0), self._half(1)):
            await mapper.remove(name)
        if nbd is not None and owner is not None:
            await nbd_device.disconnect(nbd, owner)
        if self.disk.metadata.is_file():
            for loop in await _loops_of(self.disk.metadata):
                await run("losetup", "--detach", str(loop))

    async def _new_raid(self) -> None:
        metadata = await self._metadata()
        for leg in (0, 1):
            await mapper.remove(self._half(leg))
            await mapper.create(self._half(leg), mapper.linear(_HALF, metadata, leg * _HALF))
            await run(
                "dd", "if=/dev/zero", f"of={mapper.path_of(self._half(leg))}", "bs=64K", "count=1", "oflag=direct"
            )
        region = _MD_REGION
        while self.size // region > _MD_REGIONS:
            region *= 2
        content = mapper.raid(
            self.size,
            local=(mapper.path_of(self._half(0)), self.disk.device),
            tap=(mapper.path_of(self._half(1)), mapper.path_of(self._tap)),
            region=region,
        )
        await mapper.replace(self._name, content)

    async def _metadata(self) -> Path:
        """The metadata as a block device; a file is made and put behind a loop device."""
        path = self.disk.metadata
        if path.is_block_device():
            return path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(METADATA_BYTES)
        except OSError as error:
            raise DiskError(
                f"{path} cannot be made: {error.strerror}",
                operation="protect a disk",
                domain=self.disk.domain,
                left="the guest's disk was not changed",
                hint="name a metadata device in /etc/remus/disks.toml, or free space there",
            ) from error
        found = await _loops_of(path)
        if found:
            return found[0]
        return Path((await run("losetup", "--find", "--show", str(path))).strip())


async def _loops_of(path: Path) -> list[Path]:
    said = await run("losetup", "--list", "--noheadings", "--output", "NAME", "--associated", str(path))
    return [Path(line.strip()) for line in said.splitlines() if line.strip()]


class DiskMapping:
    """What leads to the disks of a backup, for its replicas. state: the agent's directory."""

    def __init__(self, disks: Iterable[Disk], state: Path) -> None:
        self._disks = {(disk.domain, disk.vdev): disk for disk in disks}
        self._state = state

    async def nowhere(self, domain: str, vdev: str, size: int) -> None:
        """As `Layers.nowhere`, also after a boot."""
        disk = self._disks[domain, vdev]
        layers = Layers(disk, size)
        await layers.require_unused()
        await asyncio.to_thread(marker.mark, self._state, disk)
        await layers.nowhere()

    async def linear(self, domain: str, vdev: str, device: Path, size: int) -> None:  # noqa: ARG002 - the disk knows its device
        """As `Layers.linear`, also after a boot."""
        disk = self._disks[domain, vdev]
        await asyncio.to_thread(marker.clear, self._state, disk)
        await Layers(disk, size).linear()
