"""What is said about devices and journals that cannot hold a copy."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disk_backup_world import DOMAIN, FakeMapping
from loop_device import loop_device

from remus_agent.adapters.disk import replicas
from remus_agent.adapters.disk.block_file import BlockFile, open_block_file
from remus_agent.adapters.disk.replica import FileReplica
from remus_agent.adapters.disk.replicas import FileReplicas, held_only_by
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError, JournalError, RemusError
from remus_agent.protocol.disk.operations import Extent, Op
from tests.model.loop import run as virtual_time

SIZE = 1 << 20
JOURNAL_BYTES = 256 << 10
DISK = DiskFacts("xvda", SIZE, 512)
MAP, SESSION = str(uuid.UUID(int=5)), str(uuid.UUID(int=6))


@pytest.fixture
def config(tmp_path: Path) -> Disk:
    (tmp_path / "device").write_bytes(bytes(SIZE))
    return Disk(DOMAIN, "xvda", tmp_path / "device", tmp_path / "md", tmp_path / "new" / "journal", JOURNAL_BYTES)


def changed(config: Disk, **changes: Any) -> Disk:
    return replace(config, **changes)


async def opened(config: Disk, disk: DiskFacts = DISK) -> FileReplica:
    return await FileReplicas([config], FakeMapping()).open(DOMAIN, disk, None)


async def use(config: Disk) -> None:
    replica = await opened(config)
    await replica.begin(MAP, SESSION)
    await replica.stage(1, [Extent(Op.WRITE, 0, 512, b"x" * 512)])
    await replica.apply(1)
    await replica.close()


def expect(config: Disk, kind: type[RemusError], said: str, disk: DiskFacts = DISK) -> None:
    """Both `open` and `examine` say it, with what to do; nothing is changed by either."""
    before = contents(config)
    with pytest.raises(kind, match=said) as caught:
        asyncio.run(opened(config, disk))
    assert caught.value.hint is not None
    assert caught.value.domain == DOMAIN
    reasons = asyncio.run(FileReplicas([config], FakeMapping()).examine(DOMAIN, [disk]))
    assert [reason for reason in reasons if caught.value.message in reason], reasons
    assert contents(config) == before


def contents(config: Disk) -> list[bytes | None]:
    return [path.read_bytes() if path.is_file() else None for path in (config.device, config.journal)]


def test_a_journal_is_made_with_all_its_space(config: Disk) -> None:
    assert asyncio.run(FileReplicas([config], FakeMapping()).examine(DOMAIN, [DISK])) == []
    assert not config.journal.exists()
    asyncio.run(use(config))
    info = config.journal.stat()
    assert info.st_size == JOURNAL_BYTES
    assert info.st_blocks * 512 >= JOURNAL_BYTES
    assert list(config.journal.parent.iterdir()) == [config.journal]
    assert config.device.read_bytes() == b"x" * 512 + bytes(SIZE - 512)


def test_an_unknown_disk(config: Disk) -> None:
    expect(config, DiskError, "no device for it", DiskFacts("xvdz", SIZE, 512))


def test_every_reason_is_given(config: Disk) -> None:
    disks = [DISK, DiskFacts("xvdz", SIZE, 512)]
    broken = changed(config, device=config.device / "gone", journal_bytes=4096)
    reasons = asyncio.run(FileReplicas([broken], FakeMapping()).examine(DOMAIN, disks))
    assert len(reasons) == 3


def test_a_device_that_is_missing(config: Disk) -> None:
    expect(changed(config, device=config.device.with_name("gone")), DiskError, "does not exist")


def test_a_device_that_is_too_small(config: Disk) -> None:
    expect(config, DiskError, f"has {SIZE} bytes in sectors of 512; the primary's", DiskFacts("xvda", SIZE + 512, 512))


def test_a_device_that_is_a_directory(config: Disk) -> None:
    expect(changed(config, device=config.device.parent), DiskError, "Block device required")


def test_a_file_in_use(config: Disk) -> None:
    other = open_block_file(config.device, sector=512)
    expect(config, DiskError, "is in use")
    other.close()
    asyncio.run(use(config))
    other = open_block_file(config.journal, sector=512)
    expect(config, JournalError, "is in use")
    other.close()


def test_what_we_hold_ourselves_is_no_reason(config: Disk) -> None:
    async def run() -> None:
        ours = FileReplicas([config], FakeMapping())
        replica = await ours.open(DOMAIN, DISK, None)
        assert await ours.examine(DOMAIN, [DISK]) == []
        with pytest.raises(DiskError, match="is in use"):
            await ours.open(DOMAIN, DISK, None)
        await replica.close()
        assert await ours.examine(DOMAIN, [DISK]) == []

    asyncio.run(run())


def test_a_device_that_does_not_answer_holds_one_thread_and_is_named(config: Disk) -> None:
    """However often a primary asks: the threads that all guests share stay free."""
    answers, begun, asked = threading.Event(), threading.Event(), 0

    def opens(path: Path, *, sector: int, exclusive: bool = True) -> BlockFile:
        nonlocal asked
        asked += path == config.device
        begun.set()
        answers.wait()
        return open_block_file(path, sector=sector, exclusive=exclusive)

    async def story() -> None:
        ours = FileReplicas([config], FakeMapping(), opens)
        for _ in range(40):
            (reason,) = await ours.examine(DOMAIN, [DISK])
            assert f"{config.device}, {config.journal} has not answered within 20 s" in reason
            assert "dmesg" in reason
        assert begun.wait(60)  # the thread has its own time, not the loop's
        assert asked == 1
        answers.set()
        while await ours.examine(DOMAIN, [DISK]):
            pass

    try:
        virtual_time(story())
    finally:
        answers.set()


@pytest.mark.parametrize("size", [4096, 20480, JOURNAL_BYTES + 100])
def test_a_journal_size_that_is_none(config: Disk, size: int) -> None:
    expect(changed(config, journal_bytes=size), JournalError, "is too small")


def test_a_journal_that_finds_no_space(config: Disk) -> None:
    reasons = asyncio.run(FileReplicas([changed(config, journal_bytes=1 << 60)], FakeMapping()).examine(DOMAIN, [DISK]))
    assert len(reasons) == 1
    assert "free" in reasons[0]


def test_a_truncated_journal(config: Disk) -> None:
    asyncio.run(use(config))
    os.truncate(config.journal, JOURNAL_BYTES - 4096)
    expect(config, JournalError, "is truncated")


def test_a_damaged_journal(config: Disk) -> None:
    asyncio.run(use(config))
    data = bytearray(config.journal.read_bytes())
    good = bytes(data)
    data[20] ^= 1
    config.journal.write_bytes(data)
    asyncio.run(opened_and_closed(config))  # the other copy of the header is whole
    data[4096 + 20] ^= 1
    config.journal.write_bytes(data)
    expect(config, JournalError, "neither copy of its header is whole")
    config.journal.write_bytes(bytes(8192) + good[8192:])
    asyncio.run(opened_and_closed(config))  # what the hint says to do


async def opened_and_closed(config: Disk) -> None:
    await (await opened(config)).close()


def test_a_journal_of_another_disk_or_layout(config: Disk) -> None:
    asyncio.run(use(config))
    expect(config, JournalError, "belongs to a disk of", DiskFacts("xvda", SIZE - 4096, 512))
    expect(changed(config, journal_bytes=JOURNAL_BYTES - 8192), JournalError, "was made with slots of")


def test_a_disk_of_other_sectors(tmp_path: Path) -> None:
    with loop_device(tmp_path / "backing", SIZE, 4096) as device:
        config = Disk(DOMAIN, "xvda", device, Path("md"), tmp_path / "journal", JOURNAL_BYTES)
        expect(config, DiskError, "in sectors of 4096; the primary's disk")
        asyncio.run(opened_and_closed_with(config, DiskFacts("xvda", SIZE, 4096)))


async def opened_and_closed_with(config: Disk, disk: DiskFacts) -> None:
    await (await opened(config, disk)).close()


def test_a_device_that_somebody_opened_exclusively(tmp_path: Path) -> None:
    with loop_device(tmp_path / "backing", SIZE) as device:
        config = Disk(DOMAIN, "xvda", device, Path("md"), tmp_path / "journal", JOURNAL_BYTES)
        fd = os.open(device, os.O_RDONLY | os.O_EXCL)
        expect(config, DiskError, "is in use")
        os.close(fd)
        asyncio.run(use(config))


def test_device_and_journal_on_block_devices(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path / "backing", SIZE + 8192) as device,
        loop_device(tmp_path / "journalled", JOURNAL_BYTES + 4096) as journal,
    ):
        config = Disk(DOMAIN, "xvda", device, Path("md"), journal, JOURNAL_BYTES)
        asyncio.run(use(config))
        assert device.read_bytes()[:1024] == b"x" * 512 + bytes(512)
        journal.write_bytes(b"something else of somebody" * 1000)
        expect(config, JournalError, "neither copy of its header is whole")


def test_a_device_below_its_own_mapper_device(config: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holders = tmp_path / "sys" / "device" / "holders"
    (holders / "dm-3" / "dm").mkdir(parents=True)
    (holders / "dm-3" / "dm" / "name").write_text("remus-web1-xvda\n")
    assert held_only_by(config.device, "remus-web1-xvda", tmp_path / "sys")
    assert not held_only_by(config.device, "remus-web1-xvdb", tmp_path / "sys")
    assert not held_only_by(tmp_path / "other", "remus-web1-xvda", tmp_path / "sys")
    other = open_block_file(config.device, sector=512)
    monkeypatch.setattr(replicas, "held_only_by", lambda device, mapper: mapper == "remus-web1-xvda")
    assert asyncio.run(FileReplicas([config], FakeMapping()).examine(DOMAIN, [DISK])) == []
    other.close()
    (holders / "md0" / "md").mkdir(parents=True)
    assert not held_only_by(config.device, "remus-web1-xvda", tmp_path / "sys")


def test_opening_that_is_cancelled_keeps_nothing(config: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        entered, hold = threading.Event(), threading.Event()
        real = FileReplicas._open_copy

        def slow(*args: Any) -> Any:
            entered.set()
            assert hold.wait(10)
            return real(*args)

        monkeypatch.setattr(FileReplicas, "_open_copy", slow)
        opening = asyncio.create_task(opened(config))
        await asyncio.to_thread(entered.wait)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        hold.set()
        monkeypatch.setattr(FileReplicas, "_open_copy", real)
        for _ in range(1000):
            if await FileReplicas([config], FakeMapping()).examine(DOMAIN, [DISK]) == [] and config.journal.exists():
                break
            await asyncio.sleep(0.01)
        await opened_and_closed(config)

    asyncio.run(run())


def test_only_so_many_are_opened_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3
    configs = []
    for number in range(count):
        (tmp_path / f"device{number}").write_bytes(bytes(SIZE))
        disk = Disk(
            f"web{number}", "xvda", tmp_path / f"device{number}", Path("md"), tmp_path / f"j{number}", JOURNAL_BYTES
        )
        configs.append(disk)

    class Counting(FakeMapping):
        now = most = 0

        async def nowhere(self, domain: str, vdev: str, size: int) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1

    async def run(mapping: Counting) -> None:
        ours = FileReplicas(configs, mapping)
        for replica in await asyncio.gather(*(ours.open(disk.domain, DISK, None) for disk in configs)):
            await replica.close()

    for limit in (count, 1):
        monkeypatch.setattr(replicas, "OPENED_AT_ONCE", limit)
        mapping = Counting()
        asyncio.run(run(mapping))
        assert mapping.most == limit
