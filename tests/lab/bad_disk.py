"""A backup's copy on a device whose second half answers with errors, inside dom0.

    python3 bad_disk.py DEVICE JOURNAL

Prints one JSON line: what was said to each operation, null where it worked. Runs with the package's folder on PYTHONPATH."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable
from pathlib import Path

from remus_agent.adapters.disk.geometry import geometry
from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import RemusError
from remus_agent.protocol.disk.operations import Extent, Op

DOMAIN, VDEV = "probe-disk", "xvda"


class NoMapping:
    """Nobody uses this disk through a mapper device."""

    async def nowhere(self, domain: str, vdev: str, size: int) -> None:
        """Nothing to do."""

    async def linear(self, domain: str, vdev: str, device: Path, size: int) -> None:
        """Nothing to do."""


async def said(work: Awaitable[object]) -> dict[str, object] | None:
    """The error, if there was one."""
    try:
        await work
    except RemusError as error:
        return error.as_dict()
    return None


async def main(device: Path, journal: Path) -> None:
    size, block = geometry(device, DOMAIN)
    disk = Disk(DOMAIN, VDEV, device, Path("unused"), journal, 8 << 20)
    replica = await FileReplicas([disk], NoMapping()).open(DOMAIN, DiskFacts(VDEV, size, block), None)
    await replica.begin(str(uuid.UUID(int=1)), str(uuid.UUID(int=2)))
    await replica.stage(1, [Extent(Op.WRITE, size - block, block, b"x" * block)])
    answers = {
        "apply": await said(replica.apply(1)),
        "stage": await said(replica.stage(2, [])),
        "digests": await said(replica.digests(0, size)),
    }
    await replica.close()
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:3])))
