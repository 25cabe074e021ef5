"""Taps that are put behind a disk, taken back, and taken away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_kernel import FakeKernel
from tap_steps import BLOCK, ROOT, SIZE, Make, begun, block, epoch, marked, written

from remus_agent.adapters.disk import catching_up
from remus_agent.adapters.disk import tap as tap_module
from remus_agent.adapters.disk.tap import DiskTaps, TapLimits
from remus_agent.adapters.ledger import Ledger
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError, LocalDiskFailed
from remus_agent.ports import Domain, GuestType, Vbd
from remus_agent.protocol.disk.operations import Op
from tests import deadline
from tests.spent import spent


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


async def test_a_slow_tap_stays_when_it_is_the_only_leg_that_works(make: Make, kernel: FakeKernel) -> None:
    """Nobody may end its process because it does not answer in time."""
    tap = await begun(kernel, make())
    kernel.state = "DA"
    assert tap._process is not None
    tap._process.sound = False
    with pytest.raises(LocalDiskFailed):
        await tap.open()
    kernel.client.write(0, block(1))


async def test_a_leg_that_md_dropped_while_the_kernel_stays_ends_the_session(make: Make, kernel: FakeKernel) -> None:
    """Its end of the socket is open; what the guest writes goes to the local device alone."""
    tap = await begun(kernel, make())
    await tap.look()
    kernel.client.write(0, block(1))
    kernel.state = "AD"
    await tap.look()
    with pytest.raises(DiskError, match="let go of the tap"):
        await tap.next()
    with pytest.raises(DiskError):
        tap.barrier(1)


async def test_a_tap_that_refuses_fails_what_the_guest_writes(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(kernel, make())
    client, kernel.state = kernel.client, "DA"
    with pytest.raises(LocalDiskFailed):
        await tap.look()
    client.write(0, block(1))
    for _ in range(2):
        await tap.refuse()
    assert kernel.devices == {}, "the kernel fails at once, and does not wait for a new server"
    with pytest.raises(LocalDiskFailed):
        await tap.open()
    assert kernel.devices == {}


async def test_a_disk_whose_device_has_failed_is_led_nowhere_once_its_guest_is_given_up(
    make: Make, kernel: FakeKernel
) -> None:
    tap = await begun(kernel, make())
    kernel.state = "DA"
    with pytest.raises(LocalDiskFailed):
        await tap.close()
    assert kernel.kind == "raid", "what was written last is behind it"
    await tap.close(given_up=True)
    assert (kernel.kind, kernel.devices, tap.is_open) == ("error", {}, False)


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
        open_ = await spent(ledger, "db1", "disks")
        assert open_.memory_bytes > 4 << 20
        assert open_.cpu_seconds > seconds
        await tap.close()
        gone = await spent(ledger, "db1", "disks")
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
