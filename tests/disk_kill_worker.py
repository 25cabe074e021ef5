"""A backup's disk under endless epochs, to be killed: `python disk_kill_worker.py DIRECTORY DEVICE SECTOR SESSION SEED`.

What it writes follows from the numbers of session and epoch alone, so whoever killed it can tell what must be there.
"""

from __future__ import annotations

import asyncio
import random
import sys
import uuid
from pathlib import Path

from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.adapters.journal.file import FileJournals
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.store_ports import CommitRecord

SIZE = 1 << 20
DOMAIN = "web1"
JOURNAL_BYTES = 4 << 20
MAP = str(uuid.UUID(int=99))


class NoMapping:
    """There is no mapper device."""

    async def nowhere(self, domain: str, vdev: str, size: int) -> None:
        """Nothing to do."""

    async def linear(self, domain: str, vdev: str, device: Path, size: int) -> None:
        """Nothing to do."""


def facts(sector: int) -> DiskFacts:
    return DiskFacts("xvda", SIZE, sector)


def replicas(directory: Path, device: Path) -> FileReplicas:
    return FileReplicas(
        [Disk(DOMAIN, "xvda", device, directory / "md", directory / "journal", JOURNAL_BYTES)], NoMapping()
    )


def seeded(session: int) -> list[Extent]:
    """All of the disk."""
    rng = random.Random(f"{session} seed")
    part = SIZE // 16
    return [Extent(Op.WRITE, number * part, part, rng.randbytes(part)) for number in range(16)]


def epoch_of(session: int, epoch: int, sector: int) -> list[Extent]:
    """The extents of an epoch; some overlap."""
    rng = random.Random(f"{session} {epoch}")
    extents = []
    for _ in range(rng.randint(0, 24)):
        length = rng.randint(1, 16) * sector
        offset = rng.randrange((SIZE - length) // sector) * sector
        op = rng.choice((Op.WRITE, Op.WRITE, Op.WRITE, Op.ZERO, Op.DISCARD))
        extents.append(Extent(op, offset, length, rng.randbytes(length) if op is Op.WRITE else b""))
    return extents


async def main(directory: Path, device: Path, sector: int, session: int, seed: bool) -> None:
    """Run until killed; say when it begins, and each epoch that was committed."""
    name = str(uuid.UUID(int=session))
    journal = await FileJournals(directory / "commits").open(DOMAIN)
    replica = await replicas(directory, device).open(DOMAIN, facts(sector), await journal.last())
    print("ready", flush=True)
    await replica.begin(MAP, name)
    if seed:
        for extent in seeded(session):
            await replica.seed([extent])
    epoch = 0
    while True:
        epoch += 1
        await replica.stage(epoch, epoch_of(session, epoch, sector))
        await journal.commit(CommitRecord(name, session, epoch, bytes(16)))
        print(epoch, flush=True)
        await replica.apply(epoch)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1"))
