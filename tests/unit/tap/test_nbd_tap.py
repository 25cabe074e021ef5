"""A tap from the guest's writes to the pieces that are sent: the real thread on a real socket, no device-mapper."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_kernel import FakeKernel

from remus_agent.adapters.disk import catching_up, tap_server
from remus_agent.adapters.disk import tap as tap_module
from remus_agent.adapters.disk.tap import DiskTaps, NbdTap, TapLimits
from remus_agent.adapters.ledger import Ledger
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskData, DiskEnd
from remus_agent.errors import DiskError
from remus_agent.ports import Domain, GuestType, Vbd
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.tap_log import TapLog
from remus_agent.protocol.replication.frames import Buffer
from tests import deadline, nbd_client
from tests.nbd_client import EIO, ENOSPC, FLUSH, FUA, NO_HOLE, READ, TRIM, WRITE_ZEROES, request

ROOT = Path(__file__).resolve().parents[3]
SIZE = 16 * 64 * 1024
BLOCK = 512
Make = Callable[..., NbdTap]


def block(fill: int, count: int = 1) -> bytes:
    return bytes([fill]) * BLOCK * count


async def begun(kernel: FakeKernel, tap: NbdTap) -> NbdTap:
    """Open, in a session that has nothing to copy."""
    await tap.open()
    kernel.worker._map.clear(kernel.worker._map.marked)
    await tap.begin(same_base=True)
    return tap


def parsed(piece: DiskData) -> list[Extent]:
    return wire.parse(b"".join(piece.payload), size=SIZE, block=BLOCK)


async def epoch(tap: NbdTap, number: int) -> list[Extent]:
    """End an epoch; what it holds."""
    tap.barrier(number)
    extents: list[Extent] = []
    while isinstance(piece := await tap.next(), DiskData):
        assert piece.epoch == number
        extents += parsed(piece)
    assert (piece.epoch, piece.extents) == (number, len(extents))
    return extents


def written(extents: list[Extent]) -> list[tuple[Op, int, int]]:
    return [(extent.op, extent.offset, extent.length) for extent in extents]


def marked(kernel: FakeKernel) -> list[int]:
    return [int(region) for region in kernel.worker._map.marked]


async def test_a_write_is_answered_once_it_is_logged(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    with kernel.worker._lock:
        kernel.client.send(nbd_client.write(7, 4096, block(1)))
        assert kernel.client.silent(0.2)
        assert kernel.worker._log.waiting == 0
    assert kernel.client.reply() == (7, 0)
    assert await epoch(tap, 1) == [Extent(Op.WRITE, 4096, BLOCK, block(1))]
    assert marked(kernel) == [0]
    tap.committed(1)
    await deadline.until(lambda: marked(kernel) == [])


async def test_what_comes_after_the_barrier_belongs_to_the_next_epoch(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    kernel.client.write(0, block(1))
    await asyncio.to_thread(tap.barrier, 1)
    kernel.client.write(0, block(2))
    piece, end = await tap.next(), await tap.next()
    assert isinstance(piece, DiskData)
    assert [bytes(extent.data) for extent in parsed(piece)] == [block(1)]
    assert isinstance(end, DiskEnd)
    assert [bytes(extent.data) for extent in await epoch(tap, 2)] == [block(2)]


async def test_a_write_is_answered_while_an_epoch_is_packed(
    make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap = await begun(kernel, make())
    kernel.client.write(0, block(1, SIZE // BLOCK))
    pack = wire.pack

    def pack_slowly(extents: list[Extent]) -> list[Buffer]:
        kernel.client.write(0, block(2))  # returns when it is answered
        return pack(extents)

    with monkeypatch.context() as patched:
        patched.setattr(wire, "pack", pack_slowly)
        assert written(await epoch(tap, 1)) == [(Op.WRITE, 0, SIZE)]
    assert await epoch(tap, 2) == [Extent(Op.WRITE, 0, BLOCK, block(2))]


async def test_next_waits_for_early_pieces_and_ends(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make(early_bytes=4096))
    waiting = asyncio.create_task(tap.next())
    kernel.client.write(0, block(1, 4))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    kernel.client.write(8192, block(2, 8))
    piece = await waiting
    assert isinstance(piece, DiskData)
    assert piece.epoch == 1
    waiting = asyncio.create_task(tap.next())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await asyncio.to_thread(tap.barrier, 1)
    assert isinstance(await waiting, DiskEnd)


async def test_other_requests(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    client = kernel.client
    assert client.ask(request(READ, 1, 0, BLOCK)) == EIO
    assert client.ask(request(FLUSH, 2)) == 0
    client.write(0, block(1), FUA)
    assert client.ask(request(TRIM, 3, 65536, 4096)) == 0
    assert client.ask(request(WRITE_ZEROES, 4, 131072, 8192, NO_HOLE | FUA)) == 0
    assert written(await epoch(tap, 1)) == [
        (Op.WRITE, 0, BLOCK),
        (Op.DISCARD, 65536, 4096),
        (Op.ZERO, 131072, 8192),
    ]
    assert marked(kernel) == [0, 1, 2]


async def test_without_a_session_writes_are_only_tracked(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    tap.end()
    tap.end()
    await deadline.until(lambda: not kernel.worker._log.in_session)
    kernel.client.write(65536, block(1))
    assert marked(kernel) == [1]
    assert kernel.worker._log.waiting == 0
    with pytest.raises(DiskError, match="no session"):
        await tap.next()


async def test_a_client_that_is_gone_ends_the_session_and_open_takes_the_tap_back(
    make: Make, kernel: FakeKernel
) -> None:
    tap = await begun(kernel, make())
    waiting = asyncio.create_task(tap.next())
    await asyncio.sleep(0)
    name = tap.map_id
    kernel.client.close()
    with pytest.raises(DiskError, match="let go of the tap"):
        await waiting
    await tap.begin(same_base=True)
    with pytest.raises(DiskError, match="let go of the tap"):
        await tap.next()
    await tap.open()
    assert tap.map_id == name
    assert len(kernel.devices) == 1, "the old device was disconnected"
    await tap.begin(same_base=True)
    kernel.client.write(0, block(3))
    assert written(await epoch(tap, 1)) == [(Op.WRITE, 0, BLOCK)]


@pytest.mark.parametrize("what", ["connect", "protect"])
async def test_a_tap_that_could_not_be_taken_back_is_not_open(make: Make, kernel: FakeKernel, what: str) -> None:
    tap = await begun(kernel, make())
    kernel.client.close()
    await deadline.until(lambda: kernel.worker._leg_lost)
    kernel.fails = {what}
    for _ in range(2):
        with pytest.raises(DiskError, match=f"{what} has failed"):
            await tap.open()
        assert tap.is_open, "its mirror is there, with the size that it has"
    assert kernel.kind == "raid", "md goes on noting what changes"
    kernel.fails.clear()
    await tap.open()
    kernel.client.write(0, block(1))


async def test_a_leg_that_md_dropped_is_taken_back(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    kernel.state = "AD"
    with pytest.raises(DiskError, match="let go of the tap"):
        await tap.open()
    first, kernel.state = kernel.client, "AA"
    await tap.open()
    assert kernel.client is not first
    kernel.client.write(0, block(1))


async def test_the_tap_stays_when_it_is_the_only_leg_that_works(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    client, cycles, kernel.state = kernel.client, kernel.cycles, "DA"
    for attempt in (tap.open(), tap.copy(None), tap.require_local()):
        with pytest.raises(DiskError, match="the local device has failed"):
            await attempt
    assert (kernel.client, kernel.cycles) == (client, cycles), "md would take the failed leg back"
    client.write(0, block(1))


async def test_md_that_does_not_get_on_is_not_waited_for(
    make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "STALLED_SECONDS", 0.01)
    kernel.state, kernel.action = "Aa", "frozen"
    tap = make()
    with pytest.raises(DiskError, match=r"the tap of xvda up to date, and got no further.*`frozen`"):
        await tap.open()
    first, kernel.state, kernel.action = kernel.client, "AA", "idle"
    await tap.open()
    assert kernel.client is first, "md may have gone on: it was not taken from it"


@pytest.mark.parametrize("what", ["connect", "protect", "accept"])
async def test_a_disk_is_as_before_when_the_first_open_fails(make: Make, kernel: FakeKernel, what: str) -> None:
    tap = make()
    kernel.fails = {what}
    with pytest.raises(DiskError, match=f"{what} has failed"):
        await tap.open()
    assert (kernel.kind, kernel.tap, kernel.devices) == ("linear", None, {})
    assert not tap.is_open
    kernel.fails.clear()
    await tap.open()
    assert kernel.kind == "raid"
    assert len(marked(kernel)) == 16


@pytest.mark.parametrize("kind", ["error", "", None])
async def test_a_disk_that_leads_nowhere_is_refused(make: Make, kernel: FakeKernel, kind: str | None) -> None:
    kernel.kind = kind
    with pytest.raises(DiskError, match="remus-db1-xvda is"):
        await make().open()
    assert not kernel.devices


async def test_a_refused_write_ends_the_connection(make: Make, kernel: FakeKernel) -> None:
    """md fails its leg when a write fails, and keeps the connection: the tap would miss everything from then on."""
    tap = await begun(kernel, make())
    assert kernel.client.ask(nbd_client.write(1, SIZE, block(1))) == ENOSPC
    assert kernel.client.ended()
    with pytest.raises(DiskError, match="let go of the tap"):
        await tap.next()


@pytest.mark.parametrize("error", [DiskError("does not fit"), RuntimeError("a defect")])
async def test_a_write_that_cannot_be_logged_is_not_answered(
    make: Make,
    kernel: FakeKernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    tap = await begun(kernel, make())

    def fail(self: TapLog, extent: Extent) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(TapLog, "write", fail)
        kernel.client.send(nbd_client.write(1, 0, block(1)))
        assert kernel.client.ended()
        with pytest.raises(DiskError, match="let go of the tap"):
            await tap.next()
    assert "remus-db1-xvda" in caplog.text
    assert ("a defect" in caplog.text) is isinstance(error, RuntimeError)
    await tap.open()
    kernel.client.write(0, block(1))


async def test_a_client_that_did_not_get_far_is_no_loss(make: Make, kernel: FakeKernel) -> None:
    await begun(kernel, make())
    gone: list[bool] = []
    assert kernel.worker._server is not None
    kernel.worker._server._gone = lambda: gone.append(True)
    listener = kernel.worker._server._path
    kernel.client.close()
    await deadline.until(lambda: gone == [True])
    _, other = await asyncio.open_unix_connection(str(listener))
    other.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
    with contextlib.suppress(OSError):
        await other.drain()
    other.close()
    await asyncio.sleep(0.1)
    assert gone == [True]
    assert kernel.worker._server._thread.is_alive()


async def test_a_full_log_delays_writes(make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each batch of requests, so that the last of many is not answered after the kernel has lost patience."""
    monkeypatch.setattr(tap_server, "_SLOWEST", 0.5)
    await begun(kernel, make(log_bytes=12 * BLOCK))

    def seconds(*offsets: int) -> float:
        before = time.monotonic()
        kernel.client.send(b"".join(nbd_client.write(offset, offset, block(1)) for offset in offsets))
        for offset in offsets:
            assert kernel.client.reply() == (offset, 0)
        return time.monotonic() - before

    assert seconds(0) < 0.2
    kernel.client.write(8192, block(1, 9))
    assert seconds(0) > 0.25
    assert seconds(*([0] * 20)) < 20 * 0.25


async def test_an_epoch_is_not_closed_once_the_kernel_has_let_go(make: Make, kernel: FakeKernel) -> None:
    """Also when the thread has not come to see it: writes may have been completed without the tap since."""
    tap = await begun(kernel, make())
    with kernel.worker._lock:  # the thread is held in the middle of a write
        kernel.client.send(nbd_client.write(1, 0, block(1)))
        assert kernel.client.silent(0.2)
        kernel.client.shut()
        assert not kernel.worker._server.connected  # type: ignore[union-attr]
    with pytest.raises(DiskError, match="has let go of the tap"):
        tap.barrier(1)
    with pytest.raises(DiskError, match="has let go of the tap"):
        await tap.next()


async def test_an_overflow_ends_the_session_at_once_and_not_the_guest(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make(log_bytes=4096))
    waiting: asyncio.Task[Any] = asyncio.create_task(tap.next())
    await asyncio.sleep(0.05)
    kernel.client.write(65536, block(1, 16))
    with pytest.raises(DiskError, match="waiting to be sent"):
        await waiting
    tap.barrier(1)
    tap.end()
    kernel.client.write(131072, block(1, 16))
    assert marked(kernel) == [1, 2]
    await tap.begin(same_base=True)
    kernel.client.write(0, block(2))
    assert written(await epoch(tap, 1)) == [(Op.WRITE, 0, BLOCK)]


async def test_sessions_that_end_under_writes_harm_nobody(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make(early_bytes=BLOCK))
    ending = asyncio.Event()

    def write() -> None:
        for number in range(300):  # each takes the interpreter's lock from a loop that never rests: milliseconds
            kernel.client.write(number * BLOCK, block(1))

    async def restart() -> None:
        while not ending.is_set():
            await tap.begin(same_base=True)
            await asyncio.sleep(0)
            tap.end()

    task = asyncio.create_task(restart())
    await asyncio.to_thread(write)
    ending.set()
    await task
    assert not kernel.worker._leg_lost


async def test_close_leaves_a_linear_disk_and_no_map(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    name, path = tap.map_id, tap._map_path
    kernel.fails = {"linear"}
    with pytest.raises(DiskError, match="linear has failed"):
        await tap.close()
    kernel.client.write(0, block(1))
    kernel.fails.clear()
    await tap.close()
    await tap.close()
    assert (kernel.kind, path.exists(), tap._socket.exists()) == ("linear", False, False)
    with pytest.raises(DiskError, match="not open"):
        _ = tap.map_id
    await tap.open()
    assert tap.map_id != name


async def test_what_it_costs(make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process of the tap, for as long as it is there; the next one goes on with the same counter."""
    monkeypatch.setattr(tap_module, "geometry", lambda device, domain: (SIZE, BLOCK))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    disk = Disk("db1", "xvda", Path("/dev/vg0/db1"), tmp_path / "x.md", tmp_path / "x.journal")
    ledger = Ledger()
    taps = DiskTaps([disk], tmp_path / "run", TapLimits(), ledger)
    (tap,) = await taps.of(Domain("db1", 3, "", GuestType.PVH, 0, (), (Vbd("xvda", str(disk.mapper)),)))
    seconds = 0.0
    for _ in range(2):
        await tap.open()
        open_ = (await ledger.of(["db1"]) or {})["disks"]
        assert open_.memory_bytes > 4 << 20
        assert open_.cpu_seconds > seconds
        await tap.close()
        gone = (await ledger.of(["db1"]) or {})["disks"]
        seconds = gone.cpu_seconds
        assert seconds >= open_.cpu_seconds
        assert gone.memory_bytes == 0
        assert not ledger._open, "a tap that is started often leaves nothing behind"


async def test_a_device_that_has_grown_is_protected_as_a_whole(
    make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = {"now": SIZE}
    monkeypatch.setattr(tap_module, "geometry", lambda device, domain: (sizes["now"], BLOCK))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    disk = Disk("db1", "xvda", Path("/dev/vg0/db1"), tmp_path / "x.md", tmp_path / "x.journal")
    taps = DiskTaps([disk], tmp_path / "run", TapLimits())
    domain = Domain("db1", 3, "", GuestType.PVH, 0, (), (Vbd("xvda", str(disk.mapper)),))
    (tap,) = await taps.of(domain)
    await tap.open()
    sizes["now"] = 2 * SIZE
    assert await taps.of(domain) == (tap,)  # while it is protected its mirror has the size that it has
    await tap.close()
    (tap,) = await taps.of(domain)
    assert tap.facts.size == 2 * SIZE
