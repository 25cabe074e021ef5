"""Telling a primary why its session ends."""

from __future__ import annotations

import asyncio
import logging

from remus_agent.errors import PeerError, RemusError
from remus_agent.ports import Connection
from remus_agent.protocol.readable import readable
from remus_agent.protocol.replication.message_frames import encode
from remus_agent.protocol.replication.messages import Reason, Refuse

log = logging.getLogger(__name__)


def reason_of(error: RemusError) -> Reason:
    """An error as REFUSE says it."""
    return Reason(code=error.code, message=readable(error.message)[:4000], hint=readable(error.hint or ""))


async def refuse(connection: Connection, error: RemusError, domain: str, seconds: float) -> None:
    """Send a REFUSE with this error, if the primary can be told within so many seconds and is not the error itself."""
    if isinstance(error, PeerError):
        return
    try:
        async with asyncio.timeout(seconds):
            await connection.send(encode(Refuse(reasons=(reason_of(error),))))
    except (PeerError, TimeoutError) as failed:
        log.info("%s: could not tell the primary: %s", domain, failed)
