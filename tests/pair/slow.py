"""A disk that takes its time for a read: device-mapper's delay over another device. What is written is not delayed."""

from __future__ import annotations

from pair.hosts import on

BUSY = 50
"""Milliseconds up to which the kernel waits by looking again and again, which takes an emulated host's only processor."""


def slow(host: str, lower: str, name: str, read_ms: int) -> str:
    """The device, over a lower one of the same size."""
    if read_ms <= BUSY:
        raise ValueError(f"{read_ms} ms: the kernel would spin; take more than {BUSY}")
    table = f"0 $(blockdev --getsz {lower}) delay {lower} 0 {read_ms} {lower} 0 0"
    on(host, f'modprobe dm-delay && dmsetup create {name} --table "{table}"', timeout=60)
    return f"/dev/mapper/{name}"


def removal(name: str) -> str:
    """The opposite, as a shell takes it; nothing to do is fine."""
    return f"if [ -e /dev/mapper/{name} ]; then dmsetup remove --retry {name}; fi"
