"""Tools of util-linux, device-mapper and nbd: run one, take its answer or its complaint."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from remus_agent.errors import DiskError

log = logging.getLogger(__name__)

_TAIL: Final = 1000
_PACKAGES: Final = {"dmsetup": "dmsetup", "nbd-client": "nbd-client", "losetup": "mount", "blockdev": "util-linux"}


async def run(tool: str, *arguments: str, seconds: float = 30.0) -> str:
    """What the tool printed. Raises DiskError when it is not there, fails or takes longer."""
    what = " ".join((tool, *arguments))
    try:
        process = await asyncio.create_subprocess_exec(
            tool,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"install the package {_PACKAGES[tool]}" if tool in _PACKAGES else None
        raise DiskError(f"{tool} cannot be run: {error.strerror}", operation="set up a disk", hint=hint) from error
    try:
        async with asyncio.timeout(seconds):
            out, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DiskError(
            f"`{what}` took longer than {seconds:g} s",
            operation="set up a disk",
            hint="look at the kernel's log (dmesg) for a device that does not answer",
        ) from None
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        words = " / ".join((complaint or out).decode(errors="replace").strip()[-_TAIL:].splitlines())
        raise DiskError(f"`{what}` failed: {words or 'it said nothing'}", operation="set up a disk")
    log.debug("%s", what)
    return out.decode(errors="replace")
