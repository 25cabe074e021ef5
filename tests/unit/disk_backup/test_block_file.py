"""Reading, writing, zeroing and discarding on files and on loop devices."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loop_device import loop_device

from remus_agent.adapters.disk import block_file
from remus_agent.adapters.disk.block_file import BOUNCE_BYTES, RawBlockFile, open_block_file
from remus_agent.adapters.disk.writing import WRITERS, misfit, write_extents
from remus_agent.disk_ports import DiskFacts
from remus_agent.protocol.disk.operations import Extent, Op
from tests.failing_close import close_fails

SIZE = 6 << 20


@pytest.fixture(params=["file", "loop 512", "loop 4096"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "file":
        (tmp_path / "file").write_bytes(os.urandom(SIZE))
        yield tmp_path / "file"
        return
    with loop_device(tmp_path / "backing", SIZE, int(request.param.split()[1])) as device:
        device.write_bytes(os.urandom(SIZE))
        yield device


@pytest.fixture
def file(path: Path) -> Iterator[RawBlockFile]:
    opened = open_block_file(path, sector=512)
    yield opened
    opened.close()
    opened.close()


def test_what_is_written_is_read_again(file: RawBlockFile) -> None:
    big = os.urandom(BOUNCE_BYTES + file.sector)
    file.pwrite(8192, [b"a" * 100, bytearray(b"b" * (file.sector - 100)), memoryview(big)])
    file.fdatasync()
    assert file.pread(8192, file.sector + len(big)) == b"a" * 100 + b"b" * (file.sector - 100) + big
    assert file.size == SIZE


def test_zeroes_and_discards(file: RawBlockFile) -> None:
    file.pwrite(0, [b"x" * (3 * 65536)])
    file.write_zeroes(65536, 65536)
    assert file.pread(0, 3 * 65536) == b"x" * 65536 + bytes(65536) + b"x" * 65536
    file.discard(0, 65536)
    assert file.pread(65536, 2 * 65536) == bytes(65536) + b"x" * 65536
    assert file.size == SIZE


@pytest.mark.parametrize("can_punch", [True, False])
def test_what_the_kernel_cannot_do_is_written_or_left(
    file: RawBlockFile, monkeypatch: pytest.MonkeyPatch, can_punch: bool
) -> None:
    def unsupported(*args: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    real = block_file._fallocate

    def only_punch(fd: int, mode: int, offset: int, length: int) -> None:
        if not mode & block_file._PUNCH_HOLE or not can_punch:
            unsupported()
        real(fd, mode, offset, length)

    length = BOUNCE_BYTES + 65536
    file.pwrite(0, [b"x" * (length + 65536)])
    monkeypatch.setattr(block_file, "_fallocate", only_punch)
    monkeypatch.setattr(RawBlockFile, "_ioctl", unsupported)
    file.write_zeroes(0, length)
    assert not any(bytes(file.pread(0, length)))
    file.discard(length, 65536)
    file.discard(length, 65536)
    assert bytes(file.pread(length, 65536)) in (b"x" * 65536, bytes(65536))


def test_it_is_used_by_one_at_a_time(path: Path, file: RawBlockFile) -> None:
    with pytest.raises(OSError) as caught:
        open_block_file(path, sector=512)
    assert caught.value.errno in (errno.EBUSY, errno.EAGAIN)
    open_block_file(path, sector=512, exclusive=False).close()
    file.close()
    open_block_file(path, sector=512).close()


def test_a_file_without_direct_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def never_direct(path: Any, flags: int, *args: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return real(path, flags, *args)

    (tmp_path / "file").write_bytes(bytes(8192))
    monkeypatch.setattr(os, "open", never_direct)
    file = open_block_file(tmp_path / "file", sector=512)
    assert not fcntl.fcntl(file._fd, fcntl.F_GETFL) & os.O_DIRECT
    file.pwrite(512, [b"y" * 512])
    assert file.pread(0, 1536) == bytes(512) + b"y" * 512 + bytes(512)
    file.close()


def test_neither_device_nor_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        open_block_file(tmp_path, sector=512)
    assert caught.value.errno == errno.ENOTBLK


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    file = open_block_file(path, sector=512)
    os.truncate(path, 4096)
    with pytest.raises(OSError, match="ends early"):
        file.pread(0, 8192)
    file.close()


def test_neighbours_are_one_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    file = open_block_file(path, sector=512)
    calls: list[tuple[int, int]] = []
    real = os.pwrite

    def note(fd: int, data: Any, offset: int) -> int:
        calls.append((offset, len(data)))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", note)
    extents = [Extent(Op.WRITE, number * 4096, 4096, bytes([number]) * 4096) for number in (3, 1, 2, 9, 0)]
    assert write_extents(file, extents) == 0.0, "in this thread"
    assert calls == [(0, 16384), (9 * 4096, 4096)]
    calls.clear()
    write_extents(file, [*extents, Extent(Op.WRITE, 4096 + 512, 512, b"z" * 512)])  # overlaps: the later one wins
    assert file.pread(4096, 1536) == b"\1" * 512 + b"z" * 512 + b"\1" * 512
    file.close()


def test_many_runs_are_written_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    file = open_block_file(path, sector=512)
    together = threading.Barrier(WRITERS)
    real, threads = os.pwrite, set()

    def note(fd: int, data: Any, offset: int) -> int:
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            together.wait(10)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", note)
    extents = [Extent(Op.WRITE, number * 8192, 4096, bytes([number]) * 4096) for number in range(100)]
    assert write_extents(file, extents[::-1]) > 0
    for number in range(100):
        assert file.pread(number * 8192, 8192) == bytes([number]) * 4096 + bytes(4096)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 1 // (offset != 80 * 8192) and len(data))
    with pytest.raises(ZeroDivisionError):
        write_extents(file, extents)
    file.close()


@pytest.mark.parametrize(
    "extent",
    [
        Extent(Op.WRITE, 0, 512, bytes(511)),
        Extent(Op.WRITE, 100, 512, bytes(512)),
        Extent(Op.WRITE, 8192, 512, bytes(512)),
        Extent(Op.WRITE, -512, 512, bytes(512)),
        Extent(Op.ZERO, 0, 100),
        Extent(Op.ZERO, 0, 0),
        Extent(Op.ZERO, 0, 512, bytes(512)),
        Extent(Op.DISCARD, 4096, 8192),
    ],
    ids=lambda extent: f"{extent.op.name} {extent.offset}+{extent.length}",
)
def test_changes_that_cannot_be_of_this_disk(extent: Extent) -> None:
    disk = DiskFacts("xvda", 8192, 512)
    assert misfit([Extent(Op.ZERO, 0, 512), extent], disk)
    assert misfit([Extent(Op.ZERO, 0, 8192), Extent(Op.WRITE, 7680, 512, bytes(512))], disk) is None


def test_an_extent_longer_than_its_length_can_say() -> None:
    assert misfit([Extent(Op.ZERO, 0, 1 << 32)], DiskFacts("xvda", 1 << 40, 512))


def test_a_close_that_fails_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    opened = open_block_file(tmp_path / "file", sector=512)
    with close_fails(tmp_path / "other") as closed:
        with pytest.raises(OSError, match="Input/output error"):
            opened.close()
        opened.close()
    assert len(closed) == 1
