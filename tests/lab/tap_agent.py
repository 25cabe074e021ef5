"""Holds the write tap of one disk inside dom0, as the agent would, with a file in the place of the backup.

    python3 tap_agent.py DEVICE STATE COPY

DEVICE: the block device; STATE: folder for metadata, map and socket; COPY: file that gets the committed epochs. One JSON
object a line on standard input ({"do": "begin", "same_base": true}), one on standard output: {"ok": result} or {"error":
facts}; the first one is its pid. Runs with the package's folder on PYTHONPATH."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from xxhash import xxh3_128_digest

from remus_agent.adapters.disk.geometry import geometry
from remus_agent.adapters.disk.layers import Layers
from remus_agent.adapters.disk.tap import NbdTap, TapLimits
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskData, DiskEnd, DiskFacts
from remus_agent.errors import RemusError
from remus_agent.protocol.disk.operations import Op
from remus_agent.protocol.disk.regions import region_bytes
from remus_agent.protocol.disk.wire import parse

DOMAIN, VDEV = "probe-disk", "xvda"


class Tap:
    """The tap and its backup. epoch: the running one."""

    def __init__(self, device: Path, state: Path, copy: Path) -> None:
        size, block = geometry(device, DOMAIN)
        self.facts = DiskFacts(VDEV, size, block)
        self.disk = Disk(DOMAIN, VDEV, device, state / "metadata", state / "journal")
        self.layers = Layers(self.disk, size)
        self.tap = NbdTap(self.disk, self.facts, state, TapLimits(stall_seconds=20))
        self.copy = os.open(copy, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.copy, size)
        self.epoch = 0

    async def answer(self, request: dict[str, Any]) -> Any:
        match request["do"]:
            case "linear":
                return await self.layers.linear()
            case "open":
                await self.tap.open()
                return {"map_id": self.tap.map_id, "legs": await self.layers.legs()}
            case "begin":
                return await self.begin(request["same_base"])
            case "epoch":
                return await self.end_epoch()
            case "close":
                return await self.tap.close()
            case unknown:
                raise ValueError(unknown)

    async def begin(self, same_base: bool) -> dict[str, int]:
        """A session with everything copied and its first epoch committed. Bytes that were to be copied, and that travelled."""
        await self.tap.begin(same_base=same_base)
        self.epoch = 1
        receiving = asyncio.create_task(self.receive())
        await self.tap.copy(self.digests)
        progress = self.tap.progress
        await self.commit(receiving)
        return {"total": progress.total, "sent": progress.sent}

    async def digests(self, offset: int, length: int) -> bytes:
        """Of the backup's disk."""
        region = region_bytes(self.facts.size)
        return b"".join(
            xxh3_128_digest(os.pread(self.copy, min(region, offset + length - at), at))
            for at in range(offset, offset + length, region)
        )

    async def end_epoch(self) -> dict[str, int]:
        return await self.commit(asyncio.create_task(self.receive()))

    async def commit(self, receiving: asyncio.Task[tuple[list[DiskData], DiskEnd]]) -> dict[str, int]:
        await asyncio.to_thread(self.tap.barrier, self.epoch)
        pieces, end = await receiving
        for piece in pieces:
            for extent in parse(b"".join(piece.payload), size=self.facts.size, block=self.facts.block):
                data = extent.data if extent.op is Op.WRITE else bytes(extent.length)
                os.pwrite(self.copy, data, extent.offset)
        self.tap.committed(self.epoch)
        self.epoch += 1
        return {"bytes": end.data_bytes, "extents": end.extents}

    async def receive(self) -> tuple[list[DiskData], DiskEnd]:
        """All of the next epoch; nothing of it is applied before it is whole."""
        pieces: list[DiskData] = []
        while True:
            piece = await self.tap.next()
            if isinstance(piece, DiskEnd):
                return pieces, piece
            pieces.append(piece)


async def main(device: str, state: str, copy: str) -> None:
    tap = Tap(Path(device), Path(state), Path(copy))
    print(json.dumps({"ok": os.getpid()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"ok": await tap.answer(json.loads(line))}
        except RemusError as error:
            answer = {"error": error.as_dict()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
