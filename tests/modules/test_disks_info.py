"""remus_disks_info on a kernel that is made of files: every reason against a disk, at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.modules.conftest import RunModule, load

MIB = 1024 * 1024
DISK = {"domain": "db1", "vdev": "xvda", "device": "/dev/vg0/db1"}


class Kernel:
    """/sys and /proc in a folder; devices by path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers: dict[str, str] = {}
        self.claimed: set[str] = set()
        (folder / "proc/self").mkdir(parents=True)
        (folder / "sys/dev/block").mkdir(parents=True)

    def write(self, path: str, text: str = "") -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def add(self, path: str, number: str, size: int = 512 * MIB) -> None:
        self.numbers[path] = number
        self.write(f"sys/dev/block/{number}/size", f"{size // 512}\n")

    def mapper(self, kernel: str, name: str, *behind: str) -> None:
        self.write(f"sys/block/{kernel}/dm/name", f"{name}\n")
        for number in behind:
            self.write(f"sys/block/{kernel}/slaves/x{number}/dev", f"{number}\n")
            self.write(f"sys/dev/block/{number}/holders/{kernel}")

    def mount(self, number: str, source: str, where: str) -> None:
        self.write("proc/self/mountinfo", f"36 35 {number} / {where} rw - ext4 {source} rw\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Kernel(tmp_path)
    made.add("/dev/vg0/db1", "252:0")
    return made


Read = Callable[..., dict[str, Any]]


@pytest.fixture
def read(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """read(disk, ...) -> the module's result."""
    module = load("remus_disks_info")
    monkeypatch.setattr(module, "SYS", str(kernel.folder / "sys"))
    monkeypatch.setattr(module, "PROC", str(kernel.folder / "proc"))
    monkeypatch.setattr(module, "number_of", kernel.numbers.get)
    monkeypatch.setattr(module, "claimed", kernel.claimed.__contains__)
    monkeypatch.setattr(module, "open_count", lambda name: 1)

    def call(*disks: dict[str, Any]) -> dict[str, Any]:
        whole = [{"metadata": None, "journal": None, "journal_bytes": None} | disk for disk in disks]
        found: dict[str, Any] = module.read({"disks": whole, "files": [str(tmp_path / "none"), __file__]})
        return found

    return call


def test_it_changes_nothing(run_module: RunModule) -> None:
    result = run_module("remus_disks_info", check=True, disks=[DISK | {"device": "/dev/none"}])
    assert result["changed"] is False
    assert result["reasons"] == [
        "device of remus-db1-xvda, /dev/none, does not exist. Next: create it, or correct disks of db1 in remus_guests"
    ]
    assert run_module("remus_disks_info", disks=[])["disks"] == []


def test_a_good_disk(kernel: Kernel, read: Read) -> None:
    kernel.write("sys/block/nbd0/size", "0")
    result = read(DISK)
    assert result["reasons"] == []
    assert result["disks"] == [
        {"name": "remus-db1-xvda", "device": "/dev/vg0/db1", "number": "252:0", "size": 512 * MIB, "uses": [],
         "mapped": False, "protected": False},
    ]  # fmt: skip
    assert (result["files"], result["nbd_devices"]) == ([__file__], 1)


def test_our_own_devices_are_no_reason(kernel: Kernel, read: Read) -> None:
    kernel.add("/dev/md", "252:1", 8 * MIB)
    kernel.mapper("dm-0", "remus-db1-xvda", "252:0", "253:1", "253:2")
    kernel.mapper("dm-1", "remus-db1-xvda-md0", "252:1")
    kernel.mapper("dm-2", "remus-db1-xvda-tap", "43:0")
    result = read({**DISK, "metadata": "/dev/md", "journal": "/var/lib/remus/x"})
    assert result["reasons"] == []
    assert (result["disks"][0]["mapped"], result["disks"][0]["protected"]) == (True, True)


def test_a_backups_agent_has_the_device_for_itself(kernel: Kernel, read: Read) -> None:
    kernel.claimed.add("/dev/vg0/db1")
    assert "held exclusively by somebody" in read(DISK)["reasons"][0]
    kernel.mapper("dm-0", "remus-db1-xvda")
    assert read(DISK)["reasons"] == []


def test_everything_at_once(kernel: Kernel, read: Read) -> None:
    kernel.add("/dev/small", "252:2", MIB - 512)
    kernel.add("/dev/held", "252:3")
    kernel.write("sys/dev/block/252:3/holders/md0")
    kernel.mount("252:0", "/dev/vg0/db1", "/srv")
    kernel.mapper("dm-7", "remus-old-xvda", "252:9")
    kernel.mapper("dm-8", "remus-old-xvda-tap", "43:1")
    result = read(
        DISK,
        {**DISK, "vdev": "xvdb"},
        {**DISK, "vdev": "xvdc", "device": "/dev/small"},
        {**DISK, "vdev": "xvdd", "device": "/dev/held", "journal": "/dev/nothing"},
        {**DISK, "vdev": "xvde", "device": "/dev/nothing/else"},
        {**DISK, "vdev": "xvdf", "device": "/proc"},
        {**DISK, "vdev": "xvdf", "device": "/proc/self"},
    )
    found = [reason.split(". Next: ") for reason in result["reasons"]]
    assert all(len(parts) == 2 and parts[1] for parts in found)
    assert [parts[0] for parts in found] == [
        "remus-db1-xvdf is there twice",
        "/dev/mapper/remus-old-xvda is protected at this moment but is not among the disks",
        "device of remus-db1-xvda, /dev/vg0/db1, is in use: mounted at /srv",
        "device of remus-db1-xvdb, /dev/vg0/db1, is in use: mounted at /srv",
        "device of remus-db1-xvdb, /dev/vg0/db1, is also device of remus-db1-xvda",
        f"device of remus-db1-xvdc, /dev/small, has {MIB - 512} bytes, at least {MIB} are needed",
        "device of remus-db1-xvdd, /dev/held, is in use: held by md0",
        "journal of remus-db1-xvdd, /dev/nothing, does not exist",
        "device of remus-db1-xvde, /dev/nothing/else, does not exist",
        "device of remus-db1-xvdf, /proc, is not a block device",
        "device of remus-db1-xvdf, /proc/self, is not a block device",
    ]


def test_mounted_partitions_swap_and_other_mounts(kernel: Kernel, read: Read) -> None:
    kernel.write("sys/dev/block/252:0/vda1/partition", "1")
    kernel.write("sys/dev/block/252:0/vda1/dev", "252:1\n")
    kernel.numbers["/dev/vda1"] = "252:1"
    kernel.mount("0:44", "/dev/vda1", "/btrfs")
    kernel.write("proc/swaps", "Filename Type\n/dev/vda1 partition\n")
    assert "in use: mounted at /btrfs, used for swapping" in read(DISK)["reasons"][0]


def test_a_mapper_device_that_leads_elsewhere(kernel: Kernel, read: Read) -> None:
    kernel.mapper("dm-0", "remus-db1-xvda", "252:9")
    (reason,) = read(DISK)["reasons"]
    assert "is in use and leads to another device (252:9) than /dev/vg0/db1" in reason
    assert "remus-disks down remus-db1-xvda" in reason


def test_claims_are_seen_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("remus_disks_info")
    assert not module.claimed(str(tmp_path / "none"))
    assert module.number_of("/dev/null") is None
    assert module.open_count("none") == 0

    def busy(*_: Any) -> int:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "open", busy)
    assert module.claimed("/dev/x")
