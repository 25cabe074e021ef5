"""`DiskTaps.sweep`: which mapper devices it puts back, and what it takes away beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_host import FakeHost

from remus_agent.adapters.disk import tap as tap_module
from remus_agent.adapters.disk.layers import Layers
from remus_agent.adapters.disk.tap import ATTACHED_AT_ONCE, DiskTaps, TapLimits
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError

MIB = 1024 * 1024
SECTORS = 512 * MIB // 512
RAID = f"0 {SECTORS} raid raid1 6 0 nosync region_size 128 write_mostly 1 2 253:1 252:0 253:2 253:3"
OTHER_RAID = RAID.replace("252:0", "252:1")
NOWHERE = f"0 {SECTORS} error"
Make = Callable[..., Disk]


@pytest.fixture
def run(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tap_module, "geometry", host.geometry)
    return tmp_path / "run"


def raid(name: str, table: str = RAID) -> dict[str, dict[str, object]]:
    """A raid and what belongs to it, as a dead agent leaves them."""
    parts = {f"{name}-tap": f"0 {SECTORS} linear 43:0 0", f"{name}-md0": "0 8192 linear 252:9 0"}
    parts[f"{name}-md1"] = "0 8192 linear 252:9 8192"
    return {part: {"table": table, "open": 0} for part, table in ({name: table} | parts).items()}


def swept(run: Path, *disks: Disk) -> DiskTaps:
    for disk in disks:
        disk.metadata.parent.mkdir(parents=True, exist_ok=True)
        path = run / "maps" / f"{disk.name}.map"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"map")
    return DiskTaps(disks, run, TapLimits())


def maps(run: Path) -> list[str]:
    return sorted(path.stem for path in (run / "maps").iterdir())


async def test_a_raid_becomes_linear_and_leaves_nothing(make: Make, host: FakeHost, run: Path) -> None:
    gone, kept = make(), make("web1", device="/dev/vg0/web1")
    backup = make("db2", device="/dev/vg0/db2")
    host.mapped = raid(gone.name) | raid(kept.name) | {backup.name: {"table": NOWHERE, "open": 0}}
    before = host.mapped
    assert await swept(run, gone, kept, backup).sweep(frozenset({"web1"})) == [gone.name]
    assert host.mapped[gone.name]["table"] == f"0 {SECTORS} linear 252:0 0"
    assert {name: facts for name, facts in host.mapped.items() if name != gone.name} == {
        name: facts for name, facts in before.items() if not name.startswith(gone.name)
    }
    assert maps(run) == sorted([kept.name, backup.name])


async def test_what_is_as_it_should_be_is_not_touched(make: Make, host: FakeHost, run: Path) -> None:
    linear, missing = make(), make("web1", device="/dev/vg0/web1")
    host.mapped = {linear.name: {"table": f"0 {SECTORS} linear 252:0 0", "open": 1}}
    assert await swept(run, linear, missing).sweep(frozenset()) == []
    assert host.changes == []


async def test_a_sweep_that_was_cut_short_is_finished(make: Make, host: FakeHost, run: Path) -> None:
    disk = make()
    host.mapped = raid(disk.name) | {disk.name: {"table": f"0 {SECTORS} linear 252:0 0", "open": 1}}
    assert await swept(run, disk).sweep(frozenset()) == [disk.name]
    assert list(host.mapped) == [disk.name]
    assert host.changes == [f"remove --retry {disk.name}-{part}" for part in ("tap", "md0", "md1")]


async def test_one_that_fails_keeps_no_other(make: Make, host: FakeHost, run: Path) -> None:
    bad, good = make(), make("web1", device="/dev/vg0/web1")
    host.mapped = raid(bad.name) | raid(good.name, OTHER_RAID)
    del host.devices[bad.device]
    with pytest.raises(DiskError, match="/dev/vg0/db1") as caught:
        await swept(run, bad, good).sweep(frozenset())
    assert f"put back: {good.name}" in str(caught.value.left)
    assert host.mapped[bad.name]["table"] == RAID
    assert host.mapped[good.name]["table"].split()[2] == "linear"
    assert maps(run) == [bad.name]


async def test_many_are_swept_at_the_same_time_and_not_more_than_a_host_bears(
    make: Make, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [make(f"web{number}", device=f"/dev/vg0/web{number}") for number in range(ATTACHED_AT_ONCE + 2)]
    under_way: set[str] = set()
    most = 0

    async def made_linear(self: DiskTaps, disk: Disk) -> bool:
        nonlocal most
        under_way.add(disk.name)
        most = max(most, len(under_way))
        await asyncio.sleep(0)
        under_way.remove(disk.name)
        return disk.domain != "web3"

    monkeypatch.setattr(DiskTaps, "_made_linear", made_linear)
    swept = await DiskTaps(disks, run, TapLimits()).sweep(frozenset())
    assert swept == [disk.name for disk in disks if disk.domain != "web3"]
    assert most == ATTACHED_AT_ONCE


async def test_a_raid_whose_local_leg_has_failed_stays(make: Make, host: FakeHost, run: Path) -> None:
    """What was written since is nowhere else on this host."""
    disk = make()
    failed = raid(disk.name)
    failed[disk.name]["legs"] = "DA"
    host.mapped = failed
    with pytest.raises(DiskError, match="has failed: what was written since then is on the backup only"):
        await swept(run, disk).sweep(frozenset())
    with pytest.raises(DiskError, match="has failed"):
        await Layers(disk, 512 * MIB).protect(Path("/dev/nbd1"))
    assert host.mapped[disk.name]["table"] == RAID
    assert maps(run) == [disk.name]


@pytest.mark.parametrize("linear", [f"0 {SECTORS} linear 252:0 0", None])
async def test_a_device_whose_name_leads_elsewhere_by_now_is_not_used(
    make: Make, host: FakeHost, run: Path, linear: str | None
) -> None:
    """Neither a switch to it nor a raid on it may change the guest's content under it."""
    disk = make()
    host.mapped = {disk.name: {"table": linear, "open": 1}} if linear else raid(disk.name)
    layers = Layers(disk, 512 * MIB)
    await layers.require_device()
    host.devices[disk.device] = (512 * MIB, 512, "252:7")
    said = "lies on device 252:0, and /dev/vg0/db1 is 252:7"
    with pytest.raises(DiskError, match=said) as caught:
        await layers.protect(Path("/dev/nbd1"))
    assert "back to 252:0" in str(caught.value.hint)
    if not linear:
        with pytest.raises(DiskError, match=said):
            await swept(run, disk).sweep(frozenset())
    del host.devices[disk.device]
    with pytest.raises(DiskError, match="and /dev/vg0/db1 is not there"):
        await layers.require_device()
    assert host.changes == []
