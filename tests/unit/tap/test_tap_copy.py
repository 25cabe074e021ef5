"""What a tap copies, and the region map that outlives it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from fake_kernel import FakeKernel
from tap_steps import SIZE, Make
from xxhash import xxh3_128_digest

from remus_agent.adapters.disk import nbd_device, tap_worker
from remus_agent.adapters.disk.tap import NbdTap
from remus_agent.disk_ports import DiskData, DiskEnd
from remus_agent.errors import DiskError
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.operations import Extent
from tests import deadline

REGION = 64 * 1024


async def received(tap: NbdTap, theirs: bytearray) -> list[Extent]:
    """Apply all pieces up to the end of epoch 1 to their disk."""
    extents: list[Extent] = []
    while isinstance(piece := await tap.next(), DiskData):
        extents += wire.parse(b"".join(piece.payload), size=SIZE, block=512)
    assert isinstance(piece, DiskEnd)
    for extent in extents:
        theirs[extent.offset : extent.end] = extent.data
    return extents


def digests_of(theirs: bytearray, offset: int, length: int) -> bytes:
    """What the backup answers."""
    return b"".join(xxh3_128_digest(theirs[at : at + REGION]) for at in range(offset, offset + length, REGION))


def filled(kernel: FakeKernel) -> None:
    for region in range(16):
        kernel.content[region * REGION : (region + 1) * REGION] = bytes([region + 1]) * REGION


async def test_regions_that_are_equal_do_not_travel(make: Make, kernel: FakeKernel) -> None:
    tap = make()
    await tap.open()
    filled(kernel)
    theirs = bytearray(kernel.content)
    for region in (3, 4, 15):
        theirs[region * REGION] ^= 1
    asked: list[tuple[int, int]] = []

    async def digests(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return digests_of(theirs, offset, length)

    await tap.begin(same_base=False)
    await tap.copy(digests)
    assert kernel.cycles == 1
    assert asked == kernel.reads
    assert sum(length for _, length in asked) == SIZE
    assert (tap.progress.done, tap.progress.total, tap.progress.sent) == (SIZE, SIZE, 3 * REGION)
    tap.barrier(1)
    await received(tap, theirs)
    assert theirs == kernel.content
    tap.committed(1)
    await deadline.until(lambda: not len(kernel.worker._map.marked))


async def test_the_backup_reads_ahead_and_what_is_written_meanwhile_travels(
    make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read here of a run before the backup was asked for the next one. That one's digests are old when they are
    compared: of one region the guest has written a part since, of another all of it, with what it had before."""
    monkeypatch.setattr(tap_worker, "_COPY_BYTES", 8 * REGION)
    tap = make()
    await tap.open()
    filled(kernel)
    theirs = bytearray(kernel.content)
    theirs[12 * REGION] ^= 1
    ahead = threading.Event()

    async def digests(offset: int, length: int) -> bytes:
        found = digests_of(theirs, offset, length)
        if offset:
            for at, data in ((9 * REGION, b"n" * 512), (10 * REGION, bytes(kernel.content[10 * REGION : 11 * REGION]))):
                kernel.content[at : at + len(data)] = data
                kernel.client.write(at, data)
            ahead.set()
        return found

    def read(offset: int, length: int) -> memoryview:
        assert ahead.wait(deadline.SECONDS), "the backup was not asked for the next run meanwhile"
        return whole(offset, length)

    whole = kernel.read
    monkeypatch.setattr(kernel, "read", read)
    await tap.begin(same_base=False)
    await tap.copy(digests)
    assert kernel.reads == [(0, 8 * REGION), (8 * REGION, 8 * REGION)]
    assert tap.progress.sent == 2 * REGION - 512, "the changed region, and of the written one what was not written"
    tap.barrier(1)
    await received(tap, theirs)
    assert theirs == kernel.content


async def test_a_copy_that_fails_asks_nobody_any_more(
    make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_worker, "_COPY_BYTES", 8 * REGION)
    tap = make()
    await tap.open()
    ended: list[int] = []
    ahead = threading.Event()

    def read(offset: int, length: int) -> memoryview:
        assert ahead.wait(deadline.SECONDS), "the backup was not asked for the next run meanwhile"
        raise DiskError("the device has failed", operation="test")

    monkeypatch.setattr(kernel, "read", read)

    async def digests(offset: int, length: int) -> bytes:
        try:
            if offset:
                ahead.set()
                await asyncio.Event().wait()
            return xxh3_128_digest(b"") * (length // REGION)
        finally:
            ended.append(offset)

    await tap.begin(same_base=False)
    with pytest.raises(DiskError, match="the device has failed"):
        await tap.copy(digests)
    assert ended == [0, 8 * REGION]


async def test_only_what_the_map_names_is_copied_and_never_over_newer_writes(make: Make, kernel: FakeKernel) -> None:
    tap = make()
    await tap.open()
    filled(kernel)
    theirs = bytearray(kernel.content)
    kernel.worker._map.clear(kernel.worker._map.marked)
    kernel.client.write(2 * REGION, b"a" * 512)
    await tap.begin(same_base=True)
    kernel.client.write(2 * REGION + 512, b"b" * 512)
    await tap.copy(None)
    assert kernel.reads == [(2 * REGION, REGION)]
    tap.barrier(1)
    await received(tap, theirs)
    expected = bytearray(kernel.content)
    expected[2 * REGION + 512 : 2 * REGION + 1024] = b"b" * 512
    assert theirs == expected


async def test_what_md_wrote_again_to_a_leg_that_came_back_is_compared(make: Make, kernel: FakeKernel) -> None:
    """md writes regions of its own, larger than the tap's. In other sessions nothing is compared that was written."""
    tap = make()
    await tap.open()
    filled(kernel)
    theirs = bytearray(kernel.content)
    kernel.worker._map.clear(kernel.worker._map.marked)
    asked: list[tuple[int, int]] = []

    async def digests(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return digests_of(theirs, offset, length)

    for lost, sent in ((False, 4), (True, 1), (False, 4)):
        if lost:
            kernel.client.close()
            await deadline.until(lambda: kernel.worker._leg_lost)
            await tap.open()
        kernel.client.write(4 * REGION, bytes(kernel.content[4 * REGION : 8 * REGION]))
        theirs[5 * REGION] ^= 1
        asked.clear()
        await tap.begin(same_base=True)
        await tap.copy(digests)
        assert asked == ([(4 * REGION, 4 * REGION)] if lost else [])
        assert tap.progress.sent == sent * REGION
        tap.barrier(1)
        await received(tap, theirs)
        assert theirs == kernel.content
        tap.committed(1)
        tap.end()
        await deadline.until(lambda: not len(kernel.worker._map.marked))


async def test_a_crowded_log_holds_the_copier_back(make: Make, kernel: FakeKernel) -> None:
    tap = make(log_bytes=2 * SIZE, early_bytes=REGION)
    await tap.open()
    filled(kernel)
    theirs = bytearray(SIZE)
    await tap.begin(same_base=False)
    kernel.client.write(0, b"c" * 9 * REGION)
    copying = asyncio.create_task(tap.copy(None))
    await asyncio.sleep(0.1)
    assert not copying.done()
    assert kernel.reads == []
    pieces = asyncio.create_task(received(tap, theirs))
    await copying
    assert kernel.reads == [(9 * REGION, 7 * REGION)]
    tap.barrier(1)
    await pieces
    assert theirs == b"c" * 9 * REGION + kernel.content[9 * REGION :]


async def test_the_end_of_the_session_ends_the_copy(make: Make, kernel: FakeKernel) -> None:
    tap = make()
    await tap.open()
    await tap.begin(same_base=False)

    async def digests(offset: int, length: int) -> bytes:
        tap.end()
        assert await tap._serves()  # answered behind the end, so that has arrived
        return bytes(length // REGION * 16)

    with pytest.raises(DiskError, match="session"):
        await tap.copy(digests)


async def dead(kernel: FakeKernel, tap: NbdTap) -> str:
    """An agent that has protected a disk, with region 5 written last, and died; the identity of its map."""
    await tap.open()
    kernel.worker._map.clear(kernel.worker._map.marked)
    kernel.worker._map.mark(5 * REGION, 512)
    await asyncio.to_thread(kernel.processes[-1].kill)
    return tap.map_id


async def test_the_map_outlives_the_agent(make: Make, kernel: FakeKernel) -> None:
    name = await dead(kernel, make())
    tap = make()
    await tap.open()
    assert tap.map_id == name
    assert [int(region) for region in kernel.worker._map.marked] == [5]
    assert len(kernel.devices) == 1


@pytest.mark.parametrize("what", ["linear", "damaged", "shorter", "gone"])
async def test_a_map_that_says_nothing_is_replaced(make: Make, kernel: FakeKernel, what: str) -> None:
    first = make()
    name = await dead(kernel, first)
    path = first._map_path
    if what == "linear":
        kernel.kind = "linear"
    elif what == "damaged":
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
    elif what == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    tap = make()
    await tap.open()
    assert tap.map_id != name
    assert len(kernel.worker._map.marked) == 16, "everything may differ"


async def test_a_disk_that_became_linear_meanwhile_gets_a_new_map(make: Make, kernel: FakeKernel) -> None:
    tap = make()
    await tap.open()
    name = tap.map_id
    kernel.kind = "linear"
    await tap.open()
    assert tap.map_id != name
    assert kernel.kind == "raid"


def test_a_device_that_somebody_else_has_connected_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    async def run(*words: str) -> str:
        ran.append(words)
        return ""

    monkeypatch.setattr(nbd_device, "run", run)
    monkeypatch.setattr(nbd_device, "_BLOCKS", tmp_path)
    device = Path("/dev/nbd3")
    assert nbd_device.owner(device) is None
    folder = tmp_path / "nbd3"
    folder.mkdir()
    (folder / "pid").write_text("41\n")
    asyncio.run(nbd_device.disconnect(device, "40"))
    assert ran == []
    asyncio.run(nbd_device.disconnect(device, "41"))
    assert ran == [("nbd-client", "-d", "/dev/nbd3")]


async def test_nothing_is_read_from_a_device_that_is_not_the_guests(make: Make, kernel: FakeKernel) -> None:
    tap = make()
    await tap.open()
    await tap.begin(same_base=False)
    kernel.fails = {"device"}
    with pytest.raises(DiskError, match="device has failed"):
        await tap.copy(None)
    assert (kernel.reads, kernel.cycles) == ([], 0)
