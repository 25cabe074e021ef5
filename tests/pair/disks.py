"""The guest's backing devices on the hosts, looked at when nothing writes to them."""

from __future__ import annotations

import shlex
import time

from proof.blocks import Digests, differences

from pair.hosts import PROJECT, on
from pair.wait import until

SCRIPT = PROJECT / "tests" / "proof" / "blocks.py"
"""Runs on the host with its own Python; nothing of it stays there."""


def _look(host: str, what: str, path: str, timeout: float) -> str:
    command = f"python3 - {what} {shlex.quote(path)} || [ $? = 1 ]"  # 1: a finding, which is on its output
    return on(host, command, stdin=SCRIPT.read_text(), timeout=timeout)


def fsck(host: str, path: str, timeout: float = 600) -> str:
    """What e2fsck says of a file system that is not clean; empty when it is. The guest must have unmounted it."""
    return _look(host, "fsck", path, timeout).strip()


def digests(host: str, path: str, timeout: float = 900) -> Digests:
    """Digests of all blocks of a device."""
    return Digests.from_json(_look(host, "digest", path, timeout))


def compare(one: tuple[str, str], other: tuple[str, str], timeout: float = 900) -> list[str]:
    """The ranges in which two devices, each a host and a path, differ; nothing when they are equal."""
    return differences(digests(*one, timeout=timeout), digests(*other, timeout=timeout))


def writes(host: str, path: str) -> int:
    """How many writes a device has completed since its host started (Linux, Documentation/block/stat.rst)."""
    return int(on(host, f"cat /sys/block/{shlex.quote(path.rpartition('/')[2])}/stat").split()[4])


def settled(host: str, path: str, seconds: float, *, above: int = -1, timeout: float = 600) -> int:
    """Wait until a device has completed more than so many writes, and none for so many seconds; how many there are then."""
    last = (-1, 0.0)

    def look() -> tuple[int, float]:
        nonlocal last
        count = writes(host, path)
        if count != last[0]:
            last = (count, time.monotonic())
        return count, time.monotonic() - last[1]

    what = f"{path} of {host} is written to no more"
    return until(what, look, lambda seen: seen[0] > above and seen[1] >= seconds, timeout=timeout)[0]


def take_away(host: str, device: str = "vdc") -> None:
    """As if somebody had pulled the disk out: its driver lets go of it, whoever has it open gets errors. Until the next boot."""
    of = f"name=$(basename $(readlink -f /sys/block/{device}/device))"
    on(host, f"{of}; echo $name >/sys/bus/virtio/drivers/virtio_blk/unbind")
