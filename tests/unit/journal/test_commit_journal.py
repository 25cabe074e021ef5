from __future__ import annotations

import asyncio
import errno
import os
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest

from remus_agent.adapters.journal.blocks import BLOCK_BYTES, BLOCKS, FILE_BYTES, RECORD
from remus_agent.adapters.journal.file import FileJournal, FileJournals
from remus_agent.errors import JournalError
from remus_agent.store_ports import CommitRecord
from tests.failing_close import close_fails

SESSION = str(uuid.UUID(int=1))


def record(epoch: int, session: str = SESSION, generation: int = 1) -> CommitRecord:
    return CommitRecord(session, generation, epoch, epoch.to_bytes(16, "big"))


async def written(directory: Path, count: int) -> FileJournal:
    journal = await FileJournals(directory).open("redis1")
    for epoch in range(1, count + 1):
        await journal.commit(record(epoch))
    return journal


async def reopened(directory: Path) -> CommitRecord | None:
    journal = await FileJournals(directory).open("redis1")
    try:
        return await journal.last()
    finally:
        await journal.close()


@pytest.mark.parametrize("count", [0, 1, BLOCKS - 1, BLOCKS, BLOCKS + 1, 3 * BLOCKS + 5])
def test_the_newest_commit_is_found_again(tmp_path: Path, count: int) -> None:
    async def run() -> None:
        journal = await written(tmp_path, count)
        expected = record(count) if count else None
        assert await journal.last() == expected
        await journal.close()
        assert await reopened(tmp_path) == expected

    asyncio.run(run())


def test_the_file_has_its_space_from_the_beginning_and_never_grows(tmp_path: Path) -> None:
    async def run() -> None:
        journal = await FileJournals(tmp_path / "new").open("redis1")
        info = (tmp_path / "new" / "redis1").stat()
        assert info.st_size == FILE_BYTES
        assert info.st_blocks * 512 >= FILE_BYTES
        assert stat.S_IMODE(info.st_mode) == 0o600
        for epoch in range(1, BLOCKS * 2):
            await journal.commit(record(epoch))
        assert (tmp_path / "new" / "redis1").stat().st_size == FILE_BYTES
        await journal.close()

    asyncio.run(run())


@pytest.mark.parametrize("keep", [0, 1, 8, 40, 63])
def test_a_torn_write_leaves_the_commit_before_it(tmp_path: Path, keep: int) -> None:
    async def run() -> None:
        await (await written(tmp_path, BLOCKS + 10)).close()
        newest = (BLOCKS + 10) % BLOCKS * BLOCK_BYTES
        with (tmp_path / "redis1").open("r+b") as raw:
            # What was in this block one round earlier shows behind the first bytes that reached the disk.
            raw.seek(newest + keep)
            raw.write(b"\xa5" * (BLOCK_BYTES - keep))
        assert await reopened(tmp_path) == record(BLOCKS + 9)

    asyncio.run(run())


def test_every_damaged_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    asyncio.run(_close(written(tmp_path, 2)))
    path = tmp_path / "redis1"
    good = path.read_bytes()
    for at in range(2 * BLOCK_BYTES, 2 * BLOCK_BYTES + RECORD.size):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        assert asyncio.run(reopened(tmp_path)) == record(1)


def test_a_close_that_fails_is_not_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        journal = await written(tmp_path, 2)
        with close_fails(tmp_path / "other") as closed:
            await journal.close()
            await journal.close()
        assert len(closed) == 1
        assert "redis1" in caplog.text
        with pytest.raises(JournalError, match="is closed"):
            await journal.commit(record(3))
        assert await reopened(tmp_path) == record(2)

    asyncio.run(run())


async def _close(opening: Any) -> None:
    await (await opening).close()


def test_a_valid_record_in_the_wrong_block_does_not_count(tmp_path: Path) -> None:
    asyncio.run(_close(written(tmp_path, 2)))
    path = tmp_path / "redis1"
    data = bytearray(path.read_bytes())
    data[5 * BLOCK_BYTES : 6 * BLOCK_BYTES] = data[2 * BLOCK_BYTES : 3 * BLOCK_BYTES]
    data[2 * BLOCK_BYTES : 3 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    path.write_bytes(data)
    assert asyncio.run(reopened(tmp_path)) == record(1)


def test_a_later_session_counts_although_its_epochs_are_lower(tmp_path: Path) -> None:
    async def run() -> None:
        journal = await written(tmp_path, 9)
        other = record(1, str(uuid.UUID(int=2)), generation=2)
        await journal.commit(other)
        await journal.close()
        assert await reopened(tmp_path) == other

    asyncio.run(run())


def test_a_session_does_not_go_back(tmp_path: Path) -> None:
    async def run() -> None:
        journal = await written(tmp_path, 5)
        for epoch in (5, 4):
            with pytest.raises(JournalError, match="epoch 5 of this session is committed already"):
                await journal.commit(record(epoch))
        await journal.commit(record(6))
        await journal.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "bad",
    [
        CommitRecord("s1", 1, 1, bytes(16)),
        CommitRecord(SESSION.upper().replace("0", "A", 1), 1, 1, bytes(16)),
        CommitRecord(SESSION, 1, 1, bytes(15)),
        CommitRecord(SESSION, -1, 1, bytes(16)),
        CommitRecord(SESSION, 1, 2**64, bytes(16)),
    ],
    ids=str,
)
def test_what_cannot_be_written_down(tmp_path: Path, bad: CommitRecord) -> None:
    async def run() -> None:
        journal = await FileJournals(tmp_path).open("redis1")
        with pytest.raises(JournalError):
            await journal.commit(bad)
        assert await journal.last() is None
        await journal.close()

    asyncio.run(run())


def test_a_full_disk_is_an_error_with_a_hint_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        journal = await written(tmp_path, 3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", _fails(errno.ENOSPC))
            with pytest.raises(JournalError, match="No space left") as caught:
                await journal.commit(record(4))
        assert caught.value.hint is not None
        assert "free space" in caught.value.hint
        assert caught.value.left == "the epoch is not committed"
        assert await journal.last() == record(3)
        await journal.commit(record(4))
        await journal.close()
        assert await reopened(tmp_path) == record(4)

    asyncio.run(run())


def test_after_a_device_error_nothing_counts_until_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        journal = await written(tmp_path, 3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _fails(errno.EIO))
            with pytest.raises(JournalError, match="Input/output error") as caught:
                await journal.commit(record(4))
        assert caught.value.hint is not None
        with pytest.raises(JournalError, match="failed before"):
            await journal.commit(record(4))
        assert await journal.last() == record(3)
        await journal.close()
        assert await reopened(tmp_path) == record(3)

    asyncio.run(run())


def _fails(code: int) -> Any:
    def call(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


def test_no_space_for_a_new_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", _fails(errno.ENOSPC))
    with pytest.raises(JournalError, match="No space left"):
        asyncio.run(FileJournals(tmp_path).open("redis1"))
    assert list(tmp_path.iterdir()) == []


def test_each_commit_is_synced_after_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def note_write(fd: int, data: bytes, offset: int) -> int:
        calls.append("write")
        return pwrite(fd, data, offset)

    def note_sync(fd: int) -> None:
        calls.append("sync")
        fdatasync(fd)

    monkeypatch.setattr(os, "pwrite", note_write)
    monkeypatch.setattr(os, "fdatasync", note_sync)
    asyncio.run(_close(written(tmp_path, 2)))
    assert calls == ["write", "sync", "write", "sync"]


def test_one_user_at_a_time(tmp_path: Path) -> None:
    async def run() -> None:
        journals = FileJournals(tmp_path)
        journal = await journals.open("redis1")
        with pytest.raises(JournalError, match="in use"):
            await journals.open("redis1")
        await journal.close()
        await journal.close()
        with pytest.raises(JournalError, match="is closed"):
            await journal.commit(record(1))
        await (await journals.open("redis1")).close()
        assert await journals.remove("redis1")
        assert not await journals.remove("redis1")

    asyncio.run(run())


def test_a_file_of_another_size_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "redis1").write_bytes(b"something")
    with pytest.raises(JournalError, match="has 9 bytes"):
        asyncio.run(FileJournals(tmp_path).open("redis1"))
    assert (tmp_path / "redis1").read_bytes() == b"something"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".a", "a\0", "a" * 128])
def test_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(JournalError, match="cannot be used as a file name"):
        asyncio.run(FileJournals(tmp_path).open(name))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(FILE_BYTES))
    (tmp_path / "redis1").symlink_to(target)
    with pytest.raises(JournalError):
        asyncio.run(FileJournals(tmp_path).open("redis1"))
