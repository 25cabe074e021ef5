"""A device of a copy that was replaced by another one of the same size: it has nothing of what the journal says."""

from __future__ import annotations

import asyncio
import re
import struct
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from zlib import crc32

import pytest
from crash_states import MemoryFile, MemoryFiles
from disk_backup_world import DISKS, DOMAIN, JOURNAL_BYTES, FakeMapping, configs

from remus_agent.adapters.disk import copy as disk_copy
from remus_agent.adapters.disk.identity import Identity, Match
from remus_agent.adapters.disk.replica import FileReplica
from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.adapters.disk.slots import FORMER, FORMER_MAGIC, STATE, STATE_MAGIC, Standing
from remus_agent.errors import DiskError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.store_ports import CommitRecord

DISK = DISKS[0]
MAP = str(uuid.UUID(int=77))
A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
BOOTS = [str(uuid.UUID(int=number)) for number in (11, 12)]


def commit(session: str, epoch: int) -> CommitRecord:
    return CommitRecord(session, 1, epoch, bytes(16))


def sector(number: int, byte: bytes) -> list[Extent]:
    return [Extent(Op.WRITE, number * 512, 512, byte * 512)]


class Host:
    """One disk in memory, whose device can be replaced."""

    def __init__(self) -> None:
        self.contents = {"device-xvda": bytearray(b"-" * DISK.size), "journal-xvda": bytearray(JOURNAL_BYTES)}
        self.identity = Identity(b"1" * 16)
        self.replicas = FileReplicas(configs(), FakeMapping(), self._opened)
        self._files = MemoryFiles(self.contents)

    def _opened(self, path: Path, *, sector: int, exclusive: bool = True) -> MemoryFile:
        file = self._files(path, sector=sector, exclusive=exclusive)
        file.identity = self.identity
        return file

    @property
    def device(self) -> bytes:
        return bytes(self.contents["device-xvda"])

    def replace(self, identity: Identity) -> None:
        self.contents["device-xvda"][:] = b"n" * DISK.size
        self.identity = identity

    async def open(self, committed: CommitRecord | None) -> FileReplica:
        return await self.replicas.open(DOMAIN, DISK, committed)

    async def run_session(self, session: str) -> None:
        """Seeded; epoch 1 is applied, 2 only staged."""
        replica = await self.open(None)
        await replica.begin(MAP, session)
        await replica.seed([Extent(Op.WRITE, 0, DISK.size, b"0" * DISK.size)])
        await replica.stage(1, sector(1, b"1"))
        await replica.apply(1)
        await replica.stage(2, sector(2, b"2"))
        await replica.close()


def go(test: Callable[[Host], Awaitable[None]]) -> None:
    asyncio.run(test(Host()))  # type: ignore[arg-type]


def test_nothing_is_applied_to_it_and_nothing_activated_from_it() -> None:
    async def run(host: Host) -> None:
        await host.run_session(A)
        host.replace(Identity(b"2" * 16))
        for _ in range(2):
            replica = await host.open(commit(A, 2))
            assert (replica.map_id, replica.standing) == (None, None)
            with pytest.raises(DiskError, match=r"cannot be activated.*this one was replaced"):
                await replica.hand_over()
            await replica.close()
        assert host.device == b"n" * DISK.size

    go(run)


def test_the_next_session_makes_a_copy_of_it() -> None:
    async def run(host: Host) -> None:
        await host.run_session(A)
        host.replace(Identity(b"2" * 16))
        replica = await host.open(commit(A, 2))
        await replica.begin(MAP, B)
        await replica.close()
        replica = await host.open(
            commit(A, 2)
        )  # the device is known by now, and its map names everything; A is not on it
        assert (replica.map_id, replica.standing) == (MAP, None)
        await replica.close()
        assert host.device == b"n" * DISK.size
        await host.run_session(B)
        replica = await host.open(commit(B, 2))
        assert (replica.map_id, replica.standing) == (MAP, Standing(B, 2))
        await replica.close()

    go(run)


def test_a_device_that_says_nothing_of_itself_is_compared_after_a_boot() -> None:
    """It is most likely the same: what was committed is applied. But the map is not trusted with what differs."""

    async def run(host: Host) -> None:
        host.identity = Identity(b"1" * 16, BOOTS[0])
        await host.run_session(A)
        host.identity = Identity(b"2" * 16, BOOTS[1])
        replica = await host.open(commit(A, 2))
        assert (replica.map_id, replica.standing) == (None, Standing(A, 2))
        assert host.device[512:1536] == b"1" * 512 + b"2" * 512
        await replica.begin(MAP, B)
        await replica.close()
        replica = await host.open(commit(A, 2))
        assert (replica.map_id, replica.standing) == (MAP, Standing(A, 2))
        await replica.close()

    go(run)


def former(block: bytes) -> bytes:
    """A state as it was written before there was a device in it."""
    body = block[8 : FORMER.size]
    return (FORMER_MAGIC + struct.pack("<I", crc32(body)) + body).ljust(4096, b"\0")


def test_a_journal_of_an_agent_that_noted_no_device() -> None:
    async def run(host: Host) -> None:
        await host.run_session(A)
        journal = host.contents["journal-xvda"]
        assert bytes(journal[:4]) == STATE_MAGIC
        assert STATE.size > FORMER.size
        for at in (0, 4096):
            journal[at : at + 4096] = former(bytes(journal[at : at + 4096]))
        replica = await host.open(commit(A, 2))
        assert (replica.map_id, replica.standing) == (None, Standing(A, 2))
        await replica.close()

    go(run)


def test_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def run(host: Host) -> None:
        await (await host.open(None)).close()
        await host.run_session(A)
        assert not caplog.records
        host.replace(Identity(b"2" * 16))
        await (await host.open(commit(A, 2))).close()
        assert re.search(r"web1 xvda: .*this one was replaced.*the next session copies all of it", caplog.text)

    go(run)


def test_without_looking_at_the_device_it_would_be_taken_for_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault seeded."""
    monkeypatch.setattr(disk_copy, "compare", lambda before, now: Match.SAME)

    async def run(host: Host) -> None:
        await host.run_session(A)
        host.replace(Identity(b"2" * 16))
        replica = await host.open(commit(A, 2))
        assert (replica.map_id, replica.standing) == (MAP, Standing(A, 2))
        await replica.close()

    go(run)
