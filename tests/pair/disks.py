"""The guest's backing devices on the hosts, looked at when nothing writes to them."""

from __future__ import annotations

import shlex

from proof.blocks import Digests, differences

from pair.hosts import PROJECT, on

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
