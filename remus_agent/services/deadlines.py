"""Work with a deadline: sending to and hearing from the other agent, and what must not suffer from this host's own absence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from remus_agent.errors import PeerTimeout
from remus_agent.ports import Connection
from remus_agent.protocol.replication.frames import Frame

_LOOK: Final = 0.5
HELD: Final = "the guest runs; its output is held if a copy of it may be activated"
"""What a primary is left with when its session ends."""
LOOK_AT_THE_BACKUP: Final = "check the replication link and the agent on the backup"


async def awake_within(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, for so many seconds in which this host runs: each look counts for as long as it was to last, so a host that
    was frozen, or had no time for us, has missed one look. Raises TimeoutError when the work was cancelled."""
    task = asyncio.ensure_future(work())
    try:
        left = seconds
        while left > 0 and not task.done():
            await asyncio.wait({task}, timeout=min(_LOOK, left))
            left -= _LOOK
        if not task.done():
            raise TimeoutError
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def send_within(seconds: float, connection: Connection, frame: Frame, *, domain: str, of: str = "") -> None:
    """Hand a frame to the connection with the backup. of: what the connection is about, as in ` of disk xvda`. Raises
    PeerTimeout, ConnectionLost."""
    try:
        async with asyncio.timeout(seconds):
            await connection.send(frame)
    except TimeoutError:
        raise PeerTimeout(
            f"the backup takes no data{of} for {seconds:g} s",
            operation="send to the backup",
            domain=domain,
            epoch=frame.epoch or None,
            left=HELD,
            hint=LOOK_AT_THE_BACKUP,
        ) from None


async def receive_within(
    seconds: float,
    connection: Connection,
    peer: str,
    *,
    domain: str,
    of: str = "",
    epoch: int | None = None,
    left: str = HELD,
    hint: str = LOOK_AT_THE_BACKUP,
) -> Frame:
    """The next frame of the other side, which sends at least heartbeats. peer: `primary` or `backup`. left, hint: what is left
    when it does not, and what to do. Raises PeerTimeout, ConnectionLost, ReplicationError."""
    try:
        async with asyncio.timeout(seconds):
            return await connection.receive()
    except TimeoutError:
        raise PeerTimeout(
            f"heard nothing{of} from the {peer} for {seconds:g} s",
            operation=f"listen to the {peer}",
            domain=domain,
            epoch=epoch,
            left=left,
            hint=hint,
        ) from None
