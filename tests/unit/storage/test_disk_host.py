"""Mapper devices after a boot: what is made, corrected, and left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_host import MIB, FakeHost

from remus_agent.adapters.disk import host as disks_of_host
from remus_agent.adapters.disk import marker
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError, RefusedError

SECTORS = 512 * MIB // 512
NAME = "remus-db1-xvda"
Make = Callable[..., Disk]


def has(table: str, users: int = 0) -> dict[str, object]:
    return {NAME: {"table": table, "open": users}}


async def up(host: FakeHost, disk: Disk, **options: bool) -> tuple[str, str]:
    done = await disks_of_host.bring_up(disk, host.state, **options)
    return done.action, done.note


async def test_a_disk_of_our_own_leads_to_its_device(host: FakeHost, make: Make) -> None:
    disk = make()
    assert (await up(host, disk))[0] == "made"
    assert host.mapped == has(f"0 {SECTORS} linear 252:0 0")
    host.mapped = host.mapped
    assert await up(host, disk) == ("none", "")
    assert host.changes == []


async def test_a_backups_copy_leads_nowhere(host: FakeHost, make: Make) -> None:
    disk = make()
    marker.mark(host.state, disk)
    assert (await up(host, disk))[0] == "made"
    assert host.mapped == has(f"0 {SECTORS} error")
    assert (await up(host, disk))[0] == "none"
    marker.clear(host.state, disk)
    assert (await up(host, disk))[0] == "changed"
    assert host.mapped == has(f"0 {SECTORS} linear 252:0 0")


@pytest.mark.parametrize(
    "table",
    [
        f"0 {SECTORS} error",  # the copy was handed over, or discarded
        f"0 {SECTORS} linear 252:9 0",  # another device
        f"0 {SECTORS - 8} linear 252:0 0",  # the device has grown
        "",  # made by hand and never loaded
    ],
)
async def test_what_nobody_uses_is_corrected(host: FakeHost, make: Make, table: str) -> None:
    host.mapped = has(table)
    disk = make()
    assert (await up(host, disk, dry_run=True))[0] == "changed"
    assert host.mapped == has(table)
    assert (await up(host, disk))[0] == "changed"
    assert host.mapped[NAME]["table"] == f"0 {SECTORS} linear 252:0 0"


async def test_a_protected_disk_is_never_touched(host: FakeHost, make: Make) -> None:
    host.mapped = has(f"0 {SECTORS} raid raid1 6 0 nosync region_size 128 write_mostly 1 2 253:1 252:0 253:2 253:3", 1)
    disk = make()
    assert await up(host, disk) == ("none", "protected by the agent")
    assert (await disks_of_host.look(disk, host.state)).legs == "AA"
    marker.mark(host.state, disk)
    with pytest.raises(DiskError, match="a running agent protects it, but"):
        await up(host, disk)
    with pytest.raises(RefusedError, match="protected by the agent"):
        await disks_of_host.take_down(NAME)
    assert host.changes == []


async def test_what_is_used_keeps_its_content(host: FakeHost, make: Make) -> None:
    disk = make()
    host.mapped = has(f"0 {SECTORS} linear 252:9 0", 1)
    with pytest.raises(DiskError, match=r"in use as linear to 252:9, and should be linear to 252:0 \(/dev/vg0/db1\)"):
        await up(host, disk)
    host.mapped = has(f"0 {SECTORS} linear 252:0 0", 1)
    marker.mark(host.state, disk)
    with pytest.raises(DiskError, match="should be leading nowhere"):
        await up(host, disk)
    with pytest.raises(RefusedError, match="in use"):
        await disks_of_host.take_down(NAME)
    assert host.changes == []


async def test_a_grown_device_waits_for_its_guest(host: FakeHost, make: Make) -> None:
    disk = make()
    host.mapped = has(f"0 {SECTORS - 8} linear 252:0 0", 1)
    action, note = await up(host, disk)
    assert (action, "when it is not in use" in note, host.changes) == ("none", True, [])


async def test_a_failure_says_who_to_ask(host: FakeHost, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: str) -> bool:
        return False

    host.mapped = has("0 8 error")  # dmsetup refuses to create it again
    monkeypatch.setattr(disks_of_host.mapper, "exists", nothing)
    with pytest.raises(DiskError, match="resource busy") as caught:
        await up(host, make())
    assert "lsblk /dev/vg0/db1" in (caught.value.hint or "")


async def test_strays_are_names_of_ours_without_a_disk(host: FakeHost, make: Make) -> None:
    names = [NAME, f"{NAME}-tap", f"{NAME}-md0", "remus-old-host-hda1", "vg0-root", "remus-x"]
    host.mapped = {name: {"table": "0 8 error", "open": 0} for name in names}
    assert await disks_of_host.strays([make()]) == ["remus-old-host-hda1"]


async def test_waiting_ends(tmp_path: Path) -> None:
    await disks_of_host.appear([tmp_path], 60)
    await disks_of_host.appear([tmp_path / "never"], 0.01)


def test_every_problem_of_a_list_at_once(host: FakeHost, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_block_device", lambda self: self in host.devices)
    good = make()
    assert disks_of_host.problems([good]) == []
    host.add("/dev/small", MIB - 512)
    host.add("/dev/odd", 8 * MIB + 512, 4096)
    host.add("/dev/alias")
    host.devices[Path("/dev/alias")] = host.devices[good.device]
    found = disks_of_host.problems(
        [
            good,
            Disk("a", "xvda", Path("/dev/none"), Path("/dev/none-md"), Path("/")),
            Disk("a", "xvdb", Path("/dev/small"), Path("/dev/alias"), Path("/x")),
            Disk("a", "xvdc", Path("/dev/odd"), Path("/dev/small"), Path("/y")),
            Disk("a", "xvdd", Path("/dev/mapper/remus-a-xvdd"), Path("/z"), Path("/q")),
        ]
    )
    assert [text.split(";")[0] for text in found] == [
        "device of remus-a-xvda: /dev/none: No such file or directory",
        "metadata of remus-a-xvda, /dev/none-md, does not exist",
        "journal of remus-a-xvda, /, is neither a block device nor a file",
        f"device of remus-a-xvdb, /dev/small, has {MIB - 512} bytes",
        "metadata of remus-a-xvdb, /dev/alias, is the same device as device of remus-db1-xvda",
        f"device of remus-a-xvdc, /dev/odd, has {8 * MIB + 512} bytes, which is not a multiple of its sectors",
        f"metadata of remus-a-xvdc, /dev/small, has {MIB - 512} bytes",
        "metadata of remus-a-xvdc, /dev/small, is the same device as device of remus-a-xvdb",
        "device of remus-a-xvdd: /dev/mapper/remus-a-xvdd: No such file or directory",
        "device of remus-a-xvdd is /dev/mapper/remus-a-xvdd, its own mapper device",
    ]
