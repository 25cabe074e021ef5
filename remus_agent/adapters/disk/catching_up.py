"""Waiting for md to write through a tap what changed while that leg was failed. It takes as long as the disk is slow, so it is
judged by whether it gets on, not by how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from remus_agent.adapters.disk.mapper import RaidStatus
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError

STALLED_SECONDS: Final = 600.0
"""Without any progress. md itself notes how far it is only after each sixteenth of the disk, or after five minutes when that
takes longer (UPDATE_FREQUENCY in the kernel's md.c): this is twice as long as a slow disk looks like standing still."""
_PATIENCE: Final = 0.2
"""Seconds between two looks."""
_AT_WORK: Final = frozenset({"recover", "resync"})
"""Actions under which md's count says how far it is. A raid that is idle counts as complete, also before it begins."""


async def legs_at_rest(look: Callable[[], Awaitable[RaidStatus]], disk: Disk) -> str:
    """The legs of a raid, once both are in use and nothing is left to write, or one has failed. Raises what `look` raises, and
    DiskError when md has not got further for STALLED_SECONDS than it was ever before."""
    clock = asyncio.get_running_loop()
    reached, since = 0, clock.time()
    while True:
        status = await look()
        # With "Aa" it is idle as well, for a moment before it begins.
        if "D" in status.legs or (status.legs == "AA" and status.action == "idle"):
            return status.legs
        if status.action in _AT_WORK and status.done > reached:
            reached, since = status.done, clock.time()
        elif clock.time() - since > STALLED_SECONDS:
            raise _stalled(status, reached, disk)
        await asyncio.sleep(_PATIENCE)


def _stalled(status: RaidStatus, reached: int, disk: Disk) -> DiskError:
    return DiskError(
        f"md brings the tap of {disk.vdev} up to date, and got no further for {STALLED_SECONDS:g} s than {reached} of "
        f"{status.total} bytes; it is `{status.action}`, its legs are {status.legs}",
        operation="take the tap back",
        domain=disk.domain,
        left="the guest's disk goes on with its local device; its output is held, and md goes on if it can",
        hint=f"the kernel's log (dmesg) names a device that does not answer; `dmsetup status {disk.name}` shows whether the raid "
        "is frozen, /proc/mdstat whether another array on the same disks has to be done first. The next session waits again",
    )
