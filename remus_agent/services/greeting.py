"""What a connection from a peer begins with, who speaks, and what he is told."""

from __future__ import annotations

import asyncio
import logging

from remus_agent.errors import PeerError, RefusedError, ReplicationError
from remus_agent.ports import Connection
from remus_agent.protocol.replication.message_frames import encode
from remus_agent.protocol.replication.messages import (
    AskOutcome,
    Beat,
    DiskHello,
    Hello,
    Message,
    Outcome,
    Plain,
    Refuse,
    Welcome,
)

log = logging.getLogger(__name__)

First = Hello | DiskHello | Beat | AskOutcome


def first_of_connection(message: Message) -> First:
    """What a connection may begin with. Raises ReplicationError for anything else."""
    if not isinstance(message, Hello | DiskHello | Beat | AskOutcome):
        raise ReplicationError(
            f"expected HELLO or DISK_HELLO or BEAT or ASK_OUTCOME, received {type(message).__name__}",
            operation="accept",
        )
    return message


def what_begins(first: First) -> str:
    """What a connection is for, for the log."""
    match first:
        case Beat():
            return f"heartbeats of {first.host}"
        case DiskHello():
            return f"{first.domain}: disk"
        case AskOutcome():
            return f"{first.domain}: question for a hand-over"
    return f"{first.domain}: session"


def check_identity(connection: Connection, host: str, domain: str | None = None) -> None:
    """A peer speaks for itself only: it could otherwise take the place of a guest's primary. Raises RefusedError."""
    if connection.identity not in (None, host):
        raise RefusedError(
            f"{connection.peer} has proven to be {connection.identity} and speaks for {host}",
            operation="accept",
            domain=domain,
            left="nothing was changed",
            hint="see host.name in the configuration of the agent there, and the name in its certificate",
        )


async def answer(connection: Connection, message: Welcome | Refuse | Plain | Outcome, seconds: float) -> None:
    """Tell the peer, if that can be done within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await connection.send(encode(message))
    except (PeerError, TimeoutError) as error:
        log.info("could not answer %s: %s", connection.peer, error)
