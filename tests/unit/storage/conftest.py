"""A host with devices that are only names, and a `dmsetup` that keeps its mapper devices in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_host import MIB, FakeHost

from remus_agent.adapters.disk import host as host_module
from remus_agent.adapters.disk import layers
from remus_agent.disk_config import Disk

FAKE = Path(__file__).with_name("fake_dmsetup.py")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake = FakeHost(tmp_path)
    program = tmp_path / "bin" / "dmsetup"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -IS {FAKE} {tmp_path}/dmsetup.json {tmp_path}/numbers.json "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(host_module, "geometry", fake.geometry)
    for module in (host_module, layers):
        monkeypatch.setattr(module, "number_of", fake.number_of)
    return fake


@pytest.fixture
def make(host: FakeHost) -> Callable[..., Disk]:
    """make(domain, vdev, device): a disk, its device being there."""

    def disk(domain: str = "db1", vdev: str = "xvda", device: str = "/dev/vg0/db1", size: int = 512 * MIB) -> Disk:
        host.add(device, size)
        return Disk(domain, vdev, Path(device), host.state / "x.md", host.state / "x.journal")

    return disk
