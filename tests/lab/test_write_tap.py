"""The write tap on a real raid and a real nbd device: agents that die cost the guest nothing but a moment, and only what changed
is copied again."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab_hosts import Host, Lines

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

PATIENCE = 300.0
MIB = 64
STALL = 20.0
"""Seconds that the kernel waits for a tap, as tap_agent.py sets it."""
FOLDER = "/var/tmp/remus-tap"  # noqa: S108 - in dom0, for root alone
MAPPER = "/dev/mapper/remus-probe-disk-xvda"
PYTHON = "/opt/remus/current/bin/python3"
HERE = Path(__file__).parent


class Refused(AssertionError):
    """The tap answered with an error."""


@dataclass
class Process:
    """A process in dom0 that answers in JSON lines."""

    process: subprocess.Popen[bytes]
    lines: Lines = field(init=False)
    first: Any = None

    def __post_init__(self) -> None:
        assert self.process.stdout is not None
        self.lines = Lines(self.process.stdout)
        self.first = self.answer()

    def answer(self) -> Any:
        line = self.lines.next(PATIENCE)
        assert line is not None, "no answer from dom0"
        if "error" in line:
            raise Refused(json.dumps(line["error"]))
        return line["ok"]

    def do(self, what: str, **facts: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **facts}).encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End of its input, and wait."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(PATIENCE)


@dataclass
class Disk:
    """A loop device in dom0, and the file that stands for the backup's disk."""

    host: Host
    package: str
    device: str

    def agent(self) -> Process:
        command = f"PYTHONPATH={self.package} exec {PYTHON} {FOLDER}/tap_agent.py {self.device} {FOLDER} {FOLDER}/copy"
        return Process(self.host.start(command))

    def writer(self, *arguments: str) -> Process:
        return Process(self.host.start(f"exec python3 {FOLDER}/disk_writer.py {MAPPER} {' '.join(arguments)}"))

    def equal(self) -> bool:
        """Whether both sides hold the same bytes."""
        said = self.host.run(f"cmp {FOLDER}/disk {FOLDER}/copy && echo same || true")
        return "same" in said


@pytest.fixture
def disk(host: Host, package: str) -> Iterator[Disk]:
    host.run(f"rm -rf {FOLDER}; mkdir -p {FOLDER}; modprobe -a loop nbd dm-raid raid1")
    host.put(FOLDER, {name: (HERE / name).read_bytes() for name in ("tap_agent.py", "disk_writer.py")})
    host.run(f"dd if=/dev/urandom of={FOLDER}/disk bs=1M count={MIB}")
    device = host.run(f"losetup --find --show --direct-io=on {FOLDER}/disk").strip()
    found = Disk(host, package, device)
    agent = found.agent()
    agent.do("linear")
    agent.close()
    yield found
    agent = found.agent()
    agent.do("close")
    agent.close()
    host.run(f"dmsetup remove --retry {Path(MAPPER).name}; losetup --detach {device}; rm -rf {FOLDER}")


def kill(disk: Disk, agent: Process) -> None:
    disk.host.run(f"kill -KILL {agent.first}")
    agent.process.wait(PATIENCE)


def die_and_return(disk: Disk, times: int) -> None:
    """Kill agents while something writes; the disk and its copy are equal afterwards."""
    agent = disk.agent()
    opened = agent.do("open")
    assert agent.do("begin", same_base=False) == {"total": MIB << 20, "sent": MIB << 20}
    writer = disk.writer("random")
    for _ in range(times):
        agent.do("epoch")
        kill(disk, agent)
        agent = disk.agent()
        again = agent.do("open")
        assert again == {"map_id": opened["map_id"], "legs": "AA"}
        copied = agent.do("begin", same_base=True)
        assert copied["sent"] <= MIB << 19, "more was copied again than was written to"
    writer.close()
    said = writer.answer()
    assert said["writes"] > 20 * times
    print(f"{said['writes']} writes, {times} agents killed, the longest write took {said['longest']:.1f} s")
    assert said["longest"] < STALL, "a write waited longer than the kernel waits for a tap"
    assert agent.do("epoch")["bytes"] >= 0
    assert disk.equal()
    agent.do("close")
    assert "linear" in disk.host.run(f"dmsetup table {Path(MAPPER).name}")
    agent.close()


@pytest.mark.long
def test_agents_that_are_killed_cost_no_write_and_no_copy(disk: Disk) -> None:
    die_and_return(disk, 2)


@pytest.mark.long
def test_twenty_agents_that_are_killed(disk: Disk) -> None:
    die_and_return(disk, 20)


def test_a_block_that_is_rewritten_travels_once_an_epoch(disk: Disk) -> None:
    agent = disk.agent()
    agent.do("open")
    agent.do("begin", same_base=False)
    writer = disk.writer("rewrite", "500")
    assert writer.answer()["writes"] == 500
    writer.close()
    assert agent.do("epoch") == {"bytes": 4096 + 16, "extents": 1}
    assert disk.equal()
    agent.close()
