"""What tells one device from another that was put in its place: trees of sysfs, and real loop devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loop_device import loop_device

from remus_agent.adapters.disk.identity import Identity, Match, compare, identify, of_device

BOOT = "11111111-2222-3333-4444-555555555555"
NEXT_BOOT = "66666666-2222-3333-4444-555555555555"
MIB = 1 << 20


class Sysfs:
    """A folder like /sys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "dev" / "block").mkdir(parents=True)
        (path / "boot_id").write_text(f"{BOOT}\n")
        self._count = 0

    def device(self, name: str, *below: str, parent: str | None = None, **attributes: str) -> str:
        """Make or change a device, on top of others; `device__wwid` is an attribute in a folder. Returns its number."""
        at = self.path / "devices" / (f"{parent}/{name}" if parent else name)
        at.mkdir(parents=True, exist_ok=True)
        for key, value in attributes.items():
            file = at / key.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{value}\n")
        (at / "slaves").mkdir(exist_ok=True)
        for one in (at / "slaves").iterdir():
            one.unlink()
        for other in below:
            (at / "slaves" / other).symlink_to(next((self.path / "devices").rglob(other)))
        link = self.path / "dev" / "block" / name
        if not link.exists():
            link.symlink_to(at)
        return name

    def identity(self, name: str) -> Identity:
        return of_device(name, sysfs=self.path, boot_id=self.path / "boot_id")


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """A volume over a partition of one disk and the whole of another."""
    made = Sysfs(tmp_path / "sys")
    made.device("sda", device__wwid="naa.1", diskseq="1")
    made.device("sda2", parent="sda", partition="2", start="2048", size="4096")
    made.device("nvme0n1", wwid="eui.2", diskseq="2")
    made.device("dm-0", "sda2", "nvme0n1", dm__uuid="LVM-abc", diskseq="3")
    return made


def test_a_boot_changes_nothing_for_what_says_who_it_is(sysfs: Sysfs) -> None:
    before = sysfs.identity("dm-0")
    assert before.boot is None
    (sysfs.path / "boot_id").write_text(NEXT_BOOT)
    sysfs.device("sda", device__wwid="naa.1", diskseq="11")
    sysfs.device("dm-0", "nvme0n1", "sda2", dm__uuid="LVM-abc", diskseq="12")
    assert compare(before, sysfs.identity("dm-0")) is Match.SAME


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("dm-0", {"dm__uuid": "LVM-other"}),
        ("sda", {"device__wwid": "naa.9"}),  # a volume whose name and UUID were restored onto a new disk
        ("nvme0n1", {"wwid": "eui.9"}),
        ("nvme0n1", {"wwid": ""}),
    ],
)
def test_another_volume_or_disk_below_it_is_another_device(sysfs: Sysfs, name: str, attributes: dict[str, str]) -> None:
    before = sysfs.identity("dm-0")
    sysfs.device(name, *(("sda2", "nvme0n1") if name == "dm-0" else ()), **attributes)
    assert compare(before, sysfs.identity("dm-0")) is Match.OTHER


def test_another_place_on_the_same_disk_is_another_device(sysfs: Sysfs) -> None:
    before = sysfs.identity("sda2")
    sysfs.device("sda2", parent="sda", start="8192")
    assert compare(before, sysfs.identity("sda2")) is Match.OTHER
    assert sysfs.identity("sda") != before


def test_a_path_that_is_gone_is_no_other_disk(sysfs: Sysfs) -> None:
    sysfs.device("dm-1", "sda", "nvme0n1", dm__uuid="mpath-naa.1")
    before = sysfs.identity("dm-1")
    sysfs.device("dm-1", "sda", dm__uuid="mpath-naa.1")
    assert compare(before, sysfs.identity("dm-1")) is Match.SAME


@pytest.mark.parametrize("attributes", [{}, {"serial": ""}, {"dm__name": "mine"}, {"md__level": "raid1"}])
def test_what_says_nothing_of_itself_is_known_for_this_boot(sysfs: Sysfs, attributes: dict[str, str]) -> None:
    sysfs.device("vdc", diskseq="7", **attributes)
    before = sysfs.identity("vdc")
    assert before.boot == BOOT
    assert compare(before, sysfs.identity("vdc")) is Match.SAME
    sysfs.device("vdc", diskseq="8")  # taken out and put in, or another one
    assert compare(before, sysfs.identity("vdc")) is Match.OTHER
    sysfs.device("vdc", diskseq="7")
    (sysfs.path / "boot_id").write_text(NEXT_BOOT)
    assert compare(before, sysfs.identity("vdc")) is Match.UNKNOWN


def test_one_part_that_says_nothing_is_enough_for_that(sysfs: Sysfs) -> None:
    sysfs.device("vdc", diskseq="7")
    sysfs.device("dm-2", "vdc", "sda", dm__uuid="LVM-abc")
    assert sysfs.identity("dm-2").boot == BOOT


def test_what_was_not_noted_is_not_known() -> None:
    assert compare(None, Identity(b"1" * 16)) is Match.UNKNOWN


def test_loop_devices(tmp_path: Path) -> None:
    with loop_device(tmp_path / "a", MIB) as first:
        fd = os.open(first, os.O_RDONLY)
        before = identify(fd)
        assert before == identify(fd)
        os.close(fd)
        with loop_device(tmp_path / "b", MIB) as second:
            fd = os.open(second, os.O_RDONLY)
            assert compare(before, identify(fd)) is Match.OTHER
            os.close(fd)


def test_regular_files(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as file:
            found.append(identify(file.fileno()))
    assert compare(*found) is Match.OTHER
