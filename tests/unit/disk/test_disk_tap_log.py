"""The log of a write tap step by step, and what its machine test can't see: limits, figures, misuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tap_log_model import BLOCK, REGION, SIZE, take

from remus_agent.errors import DiskError
from remus_agent.protocol.disk import extents as extents_module
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.copy_plan import CopyRun
from remus_agent.protocol.disk.extents import EXTENT_MEMORY
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.pieces import CopyProgress, DiskData, DiskEnd
from remus_agent.protocol.disk.regions import RegionMap, map_bytes
from remus_agent.protocol.disk.tap_log import TapLog
from remus_agent.protocol.replication.digest import EpochDigest

MAP_ID = "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60"
HEADER = wire.HEADER_BYTES
SHORT = SIZE - 4 * REGION


def made(limit: int = 1 << 30, early: int = 1 << 30, block: int = 512) -> tuple[RegionMap, TapLog]:
    regions = RegionMap.create(bytearray(map_bytes(SIZE)), MAP_ID, SIZE)
    return regions, TapLog(regions, block, limit=limit, early=early)


def change(offset: int, length: int = BLOCK, fill: int = 1) -> Extent:
    return Extent(Op.WRITE, offset, length, bytes([fill]) * length)


def taken(log: TapLog) -> tuple[list[Extent], DiskEnd]:
    """All of the closed epoch."""
    extents: list[Extent] = []
    while isinstance(piece := take(log), DiskData):
        extents += wire.parse(b"".join(piece.payload), size=SIZE, block=512)
    assert piece is not None
    return extents, piece


def commit(log: TapLog, epoch: int) -> list[Extent]:
    log.barrier(epoch)
    extents, _ = taken(log)
    log.committed(epoch)
    return extents


def test_without_a_session_only_regions_are_remembered() -> None:
    regions, log = made()
    log.write(change(REGION - BLOCK, 2 * BLOCK))
    log.write(Extent(Op.DISCARD, 3 * REGION, BLOCK))
    assert regions.marked.tolist() == [0, 1, 3]
    assert (log.waiting, log.pressure, log.in_session, log.copying) == (0, 0, False, False)
    log.begin(same_base=True)
    assert log.waiting == 0


def test_a_thousand_rewrites_of_one_block_ship_one_block() -> None:
    _, log = made()
    log.begin(same_base=True)
    for number in range(1000):
        log.write(change(BLOCK, fill=number % 256))
    log.barrier(1)
    extents, end = taken(log)
    assert extents == [change(BLOCK, fill=999 % 256)]
    assert (end.epoch, end.extents, end.data_bytes) == (1, 1, BLOCK + HEADER)


def test_the_end_of_an_epoch_covers_every_byte_handed_out() -> None:
    _, log = made(early=0)
    log.begin(same_base=True)
    digest = EpochDigest()
    count = 0
    for number in range(3):
        log.write(change(0, 3 * BLOCK, number))
        piece = take(log, 2 * BLOCK)
        assert isinstance(piece, DiskData)
        digest.update_all(piece.payload)
        count += 1
    log.barrier(1)
    log.write(change(REGION))
    while isinstance(piece := take(log, 2 * BLOCK), DiskData):
        assert piece.epoch == 1
        digest.update_all(piece.payload)
        count += 1
    assert piece == DiskEnd(1, digest.stream_bytes, count, digest.digest())
    assert take(log).epoch == 2  # type: ignore[union-attr]


def test_an_epoch_without_changes() -> None:
    _, log = made()
    log.begin(same_base=True)
    assert take(log) is None
    log.barrier(1)
    assert take(log) == DiskEnd(1, 0, 0, EpochDigest().digest())
    log.committed(1)
    assert take(log) is None


def test_the_running_epoch_is_handed_out_early_only_when_much_waits() -> None:
    _, log = made(early=BLOCK + EXTENT_MEMORY)
    log.begin(same_base=True)
    log.write(change(0))
    assert take(log) is None
    log.write(change(REGION))
    piece = take(log)
    assert isinstance(piece, DiskData)
    assert (piece.epoch, len(piece.payload)) == (1, 4)
    assert log.waiting == 0


def test_a_mark_goes_with_the_epoch_of_the_last_change() -> None:
    regions, log = made()
    log.begin(same_base=True)
    log.write(change(0))
    log.write(change(REGION, 2 * REGION))
    log.barrier(1)
    taken(log)
    log.write(change(BLOCK))
    log.committed(1)
    assert regions.marked.tolist() == [0]
    assert commit(log, 2) == [change(BLOCK)]
    assert regions.count == 0


def test_a_session_that_is_over_clears_nothing() -> None:
    regions, log = made()
    log.begin(same_base=True)
    log.write(change(0))
    log.barrier(1)
    taken(log)
    log.end()
    log.committed(1)
    assert regions.marked.tolist() == [0]
    log.begin(same_base=True)
    assert log.next_copy() == CopyRun(2, 0, REGION)


def test_without_the_same_base_everything_is_marked_and_copied() -> None:
    regions, log = made()
    log.begin(same_base=False)
    assert regions.count == 5
    assert log.progress == CopyProgress(0, SIZE, 0)
    assert log.next_copy(2 * REGION) == CopyRun(1, 0, 2 * REGION)
    assert log.next_copy() == CopyRun(1, 2 * REGION, REGION)
    assert log.next_copy(1 << 30) == CopyRun(1, 3 * REGION, REGION + SHORT)
    assert log.next_copy() is None
    assert log.copying


def test_copied_leaves_out_what_was_written_since_the_session_began() -> None:
    regions, log = made()
    log.begin(same_base=False)
    log.write(change(2 * BLOCK, BLOCK, 1))
    log.write(change(REGION - 512, 1024, 2))
    log.write(Extent(Op.DISCARD, REGION + 4 * BLOCK, 512))
    run = log.next_copy(2 * REGION)
    assert run is not None
    log.write(change(0, 512, 3))
    log.copied(run, bytes([9]) * run.length)
    parts = [(512, 2 * BLOCK), (3 * BLOCK, REGION - 512), (REGION + 512, REGION + 4 * BLOCK)]
    parts.append((REGION + 4 * BLOCK + 512, 2 * REGION))
    extents = commit(log, 1)
    assert [(e.offset, e.end) for e in extents if e.op is Op.WRITE and e.data[0] == 9] == parts
    assert log.progress == CopyProgress(2 * REGION, SIZE, sum(end - start for start, end in parts))
    assert regions.marked.tolist() == [2, 3, 4]


def test_what_was_overwritten_completely_is_not_copied() -> None:
    regions, log = made()
    log.begin(same_base=False)
    held = log.next_copy()
    assert held is not None
    log.write(change(0, REGION // 2))
    log.write(change(REGION // 2, REGION // 2))
    log.write(change(2 * REGION - BLOCK, 2 * REGION + BLOCK + SHORT))
    assert log.progress == CopyProgress(3 * REGION + SHORT, SIZE, 0)
    log.copied(held, bytes(REGION))
    assert log.progress.sent == 0
    assert log.next_copy(1 << 30) == CopyRun(1, REGION, REGION)
    assert log.next_copy() is None
    commit(log, 1)
    assert regions.marked.tolist() == [1]


def test_equal_regions_do_not_travel_and_their_marks_go_with_a_commit() -> None:
    regions, log = made()
    log.begin(same_base=False)
    run = log.next_copy(1 << 30)
    assert run is not None
    parts = list(run.split(REGION))
    assert [part.length for part in parts] == [REGION] * 4 + [SHORT]
    for part in parts:
        log.same(part)
    assert regions.count == 5
    assert log.progress == CopyProgress(SIZE, SIZE, 0)
    log.barrier(1)
    log.write(change(0))
    _, end = taken(log)
    log.committed(1)
    assert (end.data_bytes, regions.marked.tolist()) == (0, [0])


def test_regions_still_to_be_copied_stay_marked() -> None:
    regions, log = made()
    log.write(change(0))
    log.begin(same_base=True)
    log.write(change(0))
    commit(log, 1)
    assert regions.marked.tolist() == [0]
    run = log.next_copy()
    assert run is not None
    log.copied(run, bytes(REGION))
    commit(log, 2)
    assert regions.count == 0
    assert not log.copying


def test_pressure_rises_from_half_of_the_limit() -> None:
    _, log = made(limit=8 * (BLOCK + EXTENT_MEMORY))
    log.begin(same_base=True)
    pressure = []
    for number in range(8):
        log.write(change(number * REGION // 2))
        pressure.append(log.pressure)
    assert pressure == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1]
    log.barrier(1)
    assert log.pressure == 1
    taken(log)
    assert log.pressure == 0


@pytest.mark.parametrize("copier", [False, True])
def test_over_the_limit_the_session_is_over_and_the_disk_tracked(copier: bool) -> None:
    regions, log = made(limit=REGION)
    log.begin(same_base=False)
    log.write(change(0))
    log.barrier(1)
    run = log.next_copy()
    assert run is not None
    if copier:
        log.copied(run, bytes(REGION))
    else:
        log.write(change(REGION, REGION))
    assert (log.in_session, log.overflowed, log.waiting, log.pressure) == (False, True, 0, 0)
    log.barrier(2)
    log.committed(1)
    for call in (log.take, log.next_copy, lambda: log.same(run)):
        with pytest.raises(DiskError):
            call()
    with pytest.raises(DiskError, match=f"more than {REGION} bytes of changes"):
        take(log)
    assert regions.count == 5
    log.end()
    assert log.overflowed
    log.begin(same_base=True)
    assert not log.overflowed
    assert take(log) is None


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (-512, 512), (SIZE, 512), (SIZE - 512, 1024), (100, 512), (0, 100), (2**70, 512)]
)
def test_a_write_that_does_not_fit_the_disk(offset: int, length: int) -> None:
    regions, log = made()
    log.begin(same_base=True)
    with pytest.raises(DiskError, match="does not fit a disk"):
        log.write(Extent(Op.ZERO, offset, length))
    assert (regions.count, log.waiting) == (0, 0)


def stale(log: TapLog) -> Any:
    log.begin(same_base=False)
    run = log.next_copy()
    assert run is not None
    log.begin(same_base=False)
    log.next_copy()
    return log.copied(run, bytes(REGION))


def wrong_length(log: TapLog) -> Any:
    log.begin(same_base=False)
    run = log.next_copy()
    assert run is not None
    return log.copied(run, bytes(512))


def early_commit(log: TapLog) -> Any:
    log.begin(same_base=True)
    log.barrier(1)
    return log.committed(1)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (take, "there is no session"),
        (lambda log: log.barrier(1), "there is no session"),
        (lambda log: log.next_copy(), "there is no session"),
        (lambda log: log.begin(same_base=True) or log.barrier(2), "epoch 1 is running"),
        (lambda log: log.begin(same_base=True) or log.committed(1), "committed before it was sent"),
        (early_commit, "committed before it was sent"),
        (stale, "the session ended"),
        (wrong_length, "512 bytes were read at 0, 65536 are needed"),
    ],
)
def test_misuse(misuse: Callable[[TapLog], Any], message: str) -> None:
    _, log = made()
    with pytest.raises(DiskError, match=message):
        misuse(log)


@pytest.mark.parametrize("block", [0, 3, 8192])
def test_sectors_that_no_disk_has(block: int) -> None:
    with pytest.raises(DiskError, match=f"sectors of {block} bytes"):
        made(block=block)


def test_what_an_earlier_process_left_marked_is_copied() -> None:
    memory = bytearray(map_bytes(SIZE))
    first = TapLog(RegionMap.create(memory, MAP_ID, SIZE), 512, limit=1 << 30, early=1 << 30)
    first.begin(same_base=True)
    first.write(change(0))
    commit(first, 1)
    first.write(change(4 * REGION))
    regions = RegionMap.open(memory, SIZE)
    log = TapLog(regions, 512, limit=1 << 30, early=1 << 30)
    log.begin(same_base=True)
    assert log.next_copy(1 << 30) == CopyRun(1, 4 * REGION, SHORT)


def test_data_is_handed_out_without_a_copy() -> None:
    _, log = made()
    log.begin(same_base=False)
    written = memoryview(bytearray(BLOCK))
    log.write(Extent(Op.WRITE, 0, BLOCK, written))
    run = log.next_copy()
    assert run is not None
    read = np.zeros(REGION, dtype=np.uint8)
    log.copied(run, memoryview(read))
    log.barrier(1)
    piece = take(log)
    assert isinstance(piece, DiskData)
    assert piece.payload[1] is written
    assert piece.payload[3].obj is read  # type: ignore[union-attr]


def test_discards_count_what_they_take_in_memory() -> None:
    _, log = made(limit=8 * EXTENT_MEMORY)
    log.begin(same_base=True)
    for number in range(8):
        log.write(Extent(Op.DISCARD, 2 * number * BLOCK, BLOCK))
    assert (log.waiting, log.overflowed) == (8 * EXTENT_MEMORY, False)
    log.write(Extent(Op.ZERO, 16 * BLOCK, BLOCK))
    assert log.overflowed


def test_a_piece_has_at_most_so_many_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extents_module.MOST_TAKEN <= wire.MOST_EXTENTS
    monkeypatch.setattr(extents_module, "MOST_TAKEN", 3)
    _, log = made()
    log.begin(same_base=True)
    for number in range(7):
        log.write(Extent(Op.DISCARD, 2 * number * BLOCK, BLOCK))
    log.barrier(1)
    counts = []
    while isinstance(piece := take(log), DiskData):
        counts.append(len(wire.parse(b"".join(piece.payload), size=SIZE, block=512, most=3)))
    assert counts == [3, 3, 1]
    assert isinstance(piece, DiskEnd)
    assert piece.extents == 7


A_SESSION = """
import sys
from remus_agent.adapters.disk import tap_worker
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.regions import RegionMap, map_bytes
from remus_agent.protocol.disk.tap_log import TapLog

size = 1 << 24
regions = RegionMap.create(bytearray(map_bytes(size)), "6f0f0c1e-0000-4000-8000-000000000000", size)
log = TapLog(regions, 512, limit=size, early=size)
before = set(sys.modules)
log.begin(same_base=False)
for epoch in (1, 2):
    for offset in (0, 4096, size - 4096):
        log.write(Extent(Op.WRITE, offset, 4096, bytes(4096)))
    log.write(Extent(Op.DISCARD, 0, size // 2))
    while (run := log.next_copy(1 << 20)) is not None:
        log.copied(run, bytes(run.length))
    log.barrier(epoch)
    while (piece := log.take()) is not None:
        piece()
    log.committed(epoch)
assert regions.count == 0
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_is_imported_while_writes_wait() -> None:
    """A module comes from dom0's disk, which takes seconds on a host that has much to do; the lock is held meanwhile."""
    run = subprocess.run([sys.executable, "-c", A_SESSION], capture_output=True, text=True, timeout=120, check=False)
    assert (run.stderr, run.stdout.split()) == ("", [])
