"""Tools of util-linux, device-mapper and nbd."""

from __future__ import annotations

from typing import Final

from remus_agent.adapters import process
from remus_agent.errors import DiskError

_PACKAGES: Final = {"dmsetup": "dmsetup", "nbd-client": "nbd-client", "losetup": "mount"}


async def run(tool: str, *arguments: str, seconds: float = 30.0) -> str:
    """What the tool printed. Raises DiskError when it is not there, fails or takes longer."""
    out = await process.run(
        tool,
        *arguments,
        seconds=seconds,
        error=DiskError,
        operation="set up a disk",
        package=_PACKAGES.get(tool),
        late="look at the kernel's log (dmesg) for a device that does not answer",
    )
    return out.decode(errors="replace")
