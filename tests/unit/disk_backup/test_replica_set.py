"""The services' replicas of a domain over the real ones: what one session leaves must not be in the way of the next."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from crash_states import MemoryFiles
from disk_backup_world import DISKS, DOMAIN, JOURNAL_BYTES, FakeMapping, configs

from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.errors import DiskError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.services.replica_set import DomainReplicas
from remus_agent.store_ports import CommitRecord

DISK = DISKS[0]
MAP, A, B, C = (str(uuid.UUID(int=number)) for number in (77, 1, 2, 3))
COMMITTED = CommitRecord(A, 1, 1, bytes(16))


def extent(byte: bytes, sectors: int = 1) -> list[Extent]:
    return [Extent(Op.WRITE, 0, 512 * sectors, byte * 512 * sectors)]


async def committed(mapping: FakeMapping) -> DomainReplicas:
    """Session A has committed its first epoch."""
    contents = {"device-xvda": bytearray(b"-" * DISK.size), "journal-xvda": bytearray(JOURNAL_BYTES)}
    replicas = DomainReplicas(DOMAIN, FileReplicas(configs(), mapping, MemoryFiles(contents)))
    await replicas.open(A, [DISK], None, 0)
    replica = replicas.of(DISK.vdev)
    await replica.begin(MAP, A)
    await replica.seed(extent(b"0", DISK.size // 512))
    await replica.stage(1, extent(b"1"))
    await replica.apply(1)
    return replicas


async def test_a_hand_over_that_failed_can_be_asked_for_again() -> None:
    mapping = FakeMapping()
    replicas = await committed(mapping)
    mapping.fails = DiskError("the mapper device is busy")
    with pytest.raises(DiskError, match="busy"):
        await replicas.hand_over(A, [DISK], COMMITTED)
    mapping.fails = None
    await replicas.hand_over(A, [DISK], COMMITTED)


async def test_a_session_begins_after_one_that_had_staged() -> None:
    replicas = await committed(FakeMapping())
    await replicas.of(DISK.vdev).stage(2, extent(b"2"))
    await replicas.drop([DISK.vdev])
    await replicas.open(C, [DISK], COMMITTED, 0)
    assert replicas.of(DISK.vdev).map_id == MAP
    await replicas.of(DISK.vdev).begin(MAP, C)


async def test_a_session_begins_after_one_that_died_before_its_first_commit() -> None:
    replicas = await committed(FakeMapping())
    await replicas.open(B, [DISK], COMMITTED, 0)
    await replicas.of(DISK.vdev).begin(MAP, B)
    await replicas.of(DISK.vdev).stage(1, extent(b"2"))
    await replicas.leave(B)
    await replicas.open(C, [DISK], COMMITTED, 0)
    await replicas.of(DISK.vdev).begin(MAP, C)


async def test_what_an_earlier_session_left_in_the_cache_is_flushed_before_a_commit() -> None:
    files = MemoryFiles({"device-xvda": bytearray(b"-" * DISK.size), "journal-xvda": bytearray(JOURNAL_BYTES)})
    replica = await FileReplicas(configs(), FakeMapping(), files).open(DOMAIN, DISK, None)
    flushed = asyncio.Event()
    device = files.opened["device-xvda"]
    flush = device.fdatasync
    device.fdatasync = lambda: (flushed.set(), flush())[1]  # type: ignore[method-assign]
    await replica.begin(MAP, A)
    await replica.stage(1, extent(b"1"))
    assert flushed.is_set()
    await replica.close()
