"""The agent's end of a conversation with a tap that does not read: what that takes in is whole, and nothing is left out of it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from remus_agent.adapters.disk.tap_process import _Conversation
from remus_agent.adapters.disk.tap_worker import Conversation
from remus_agent.errors import DiskError
from remus_agent.protocol.disk import tap_messages as say

LARGE = say.CopyRun(1, 0, 4096, bytes(60_000))
"""More than the kernel takes in as a whole where there is little room."""


def pair() -> tuple[_Conversation, Conversation]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    return _Conversation(ours, DiskError), Conversation(theirs)


def heard(tap: Conversation) -> list[say.Request]:
    """All of it, to the end."""
    requests = []
    while (request := tap.hear()) is not None:
        requests.append(request)
    return requests


async def is_gone(agent: _Conversation) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(DiskError):
            await agent.ask(say.Look(), say.Seen)


async def test_a_request_that_does_not_get_through_is_the_last_one() -> None:
    agent, tap = pair()
    for epoch in range(1, 1001):
        agent.post(say.Committed(epoch))
    first = tap.hear()
    agent.post(say.End())  # there is room again
    await is_gone(agent)
    requests = [first, *heard(tap)]
    assert 1 < len(requests) < 1000
    assert requests == [say.Committed(epoch) for epoch in range(1, len(requests) + 1)]
    await agent.close()


async def test_nothing_follows_half_a_request() -> None:
    agent, tap = pair()
    agent.post(say.End())
    agent.post(LARGE)
    agent.post(say.Lose())
    await is_gone(agent)
    assert heard(tap) == [say.End()]
    await agent.close()


async def test_nor_where_there_is_room_again() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    agent = _Conversation(ours, DiskError)
    agent.post(LARGE)
    half = theirs.recv(1 << 20)
    agent.post(say.Lose())
    while more := theirs.recv(1 << 20):
        half += more
    assert 0 < len(half) < len(say.encode(LARGE))
    assert half == say.encode(LARGE)[: len(half)]
    await agent.close()
    theirs.close()


async def test_nor_one_whose_sender_was_called_off() -> None:
    agent, tap = pair()
    asking = asyncio.create_task(agent.ask(LARGE, say.Copied))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await is_gone(agent)
    assert heard(tap) == []
    await agent.close()
