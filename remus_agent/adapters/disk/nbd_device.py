"""The kernel's nbd devices: connect one to a server on a Unix socket, disconnect it (`nbd-client`, package of the same name)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from remus_agent.adapters.disk.command import run
from remus_agent.errors import DiskError

_BLOCKS: Final = Path("/sys/block")
_DEVICES: Final = Path("/sys/dev/block")
_connecting = asyncio.Lock()
"""Held while any connection of this process is made or ended."""


async def connect(server: Path, export: str, block: int, timeout: int) -> Path:
    """A free nbd device, connected. block: sector size in bytes. timeout: seconds after which the kernel gives up a request
    and fails the device. Raises DiskError."""
    async with _connecting:  # a device is taken only once its connection stands
        device = _free()
        await run(
            "nbd-client", "-unix", str(server), str(device),
            "-name", export, "-block-size", str(block), "-timeout", str(timeout),
        )  # fmt: skip
    return device


def owner(device: Path) -> str | None:
    """Who has connected a device (the process id of its nbd-client), by which one connection is told from the next; None
    when it is not connected."""
    try:
        return (_BLOCKS / device.name / "pid").read_text().strip()
    except OSError:
        return None


async def disconnect(device: Path, expected: str) -> None:
    """Let go of a device; what waits for it fails. Nothing happens when it is not connected, or by now by somebody else than
    `expected`, an `owner`: a device whose last user has gone is free for the next tap at once."""
    async with _connecting:
        if owner(device) == expected:
            await run("nbd-client", "-d", str(device))


def named(number: str) -> Path | None:
    """The nbd device with a `major:minor` of a device-mapper table; None when it is another device or gone."""
    try:
        name = (_DEVICES / number).resolve(strict=True).name
    except OSError:
        return None
    return Path("/dev") / name if name.startswith("nbd") else None


def _free() -> Path:
    found = sorted(_BLOCKS.glob("nbd*"), key=lambda path: int(path.name[3:] or 0))
    if not found:
        raise DiskError(
            "the kernel has no nbd devices", operation="protect a disk", hint="load the module: modprobe nbd"
        )
    for path in found:
        if not (path / "pid").exists() and (path / "size").read_text().strip() == "0":
            return Path("/dev") / path.name
    raise DiskError(
        f"all {len(found)} nbd devices are in use",
        operation="protect a disk",
        hint="load the module with more: options nbd nbds_max=64 in /etc/modprobe.d",
    )
