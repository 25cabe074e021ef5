"""A backup's disk with bad sectors is named, and used no more until it is opened again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_hosts import Host

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

FOLDER = "/var/tmp/remus-bad-disk"  # noqa: S108 - in dom0, for root alone
NAME = "remus-test-bad"
SECTORS = 16384


@pytest.fixture
def half_broken(host: Host) -> Iterator[str]:
    """A mapper device in dom0 whose second half answers with errors."""
    half = SECTORS // 2
    host.run(f"rm -rf {FOLDER}; mkdir -p {FOLDER}; modprobe -a loop dm-mod; truncate -s {SECTORS * 512} {FOLDER}/disk")
    loop = host.run(f"losetup --find --show {FOLDER}/disk").strip()
    table = f"0 {half} linear {loop} 0\n{half} {half} error\n"
    host.run(f"dmsetup create {NAME}", stdin=table.encode())
    yield f"/dev/mapper/{NAME}"
    host.run(f"dmsetup remove --retry {NAME}; losetup --detach {loop}; rm -rf {FOLDER}")


def test_a_device_with_bad_sectors(host: Host, package: str, half_broken: str) -> None:
    host.put(FOLDER, {"bad_disk.py": (Path(__file__).parent / "bad_disk.py").read_bytes()})
    python = f"PYTHONPATH={package} /opt/remus/current/bin/python3"
    answers = json.loads(host.run(f"{python} {FOLDER}/bad_disk.py {half_broken} {FOLDER}/journal"))
    assert "Input/output error" in answers["apply"]["message"]
    assert answers["apply"]["hint"]
    assert "not opened again" in answers["stage"]["message"]
    assert "cannot be read" in answers["digests"]["message"]
