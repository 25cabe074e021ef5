"""The second path: heartbeats and nothing else, from who it says it is, in bounded memory."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from remus_agent.adapters.sim.net import SimConnection
from remus_agent.errors import AuthorityError, ConnectionLost
from remus_agent.protocol.replication.message_frames import encode
from remus_agent.protocol.replication.messages import Beat, MemoryAck, Message
from tests.model.loop import VirtualLoop, run
from tests.model.pair import UUID, Pair


async def second_path(pair: Pair, identity: str | None = None) -> SimConnection:
    assert pair.beta.agent is not None
    pair.network.identity = identity
    pair.network.listen("beta/second", pair.beta.agent.backup.on_beats)
    return await pair.network.connect("beta/second", 1.0)


def heard(pair: Pair, guest: str = UUID) -> float | None:
    assert pair.beta.agent is not None
    return pair.beta.agent.backup.beats.heard("alpha", guest)


def test_a_beat_says_which_guests_are_looked_after() -> None:
    async def test() -> None:
        pair = Pair()
        connection = await second_path(pair)
        await connection.send(encode(Beat(host="alpha", guests=(UUID,))))
        await asyncio.sleep(0.1)
        assert heard(pair) is not None
        assert heard(pair, str(uuid.uuid4())) is None

    run(test())


@pytest.mark.parametrize(
    ("first", "identity"),
    [(MemoryAck(epoch=1, digest=bytes(16)), None), (Beat(host="alpha", guests=(UUID,)), "mallory")],
    ids=["another message", "another host's name"],
)
def test_what_is_no_heartbeat_of_its_sender_ends_the_connection(first: Message, identity: str | None) -> None:
    async def test() -> None:
        pair = Pair()
        connection = await second_path(pair, identity)
        await connection.send(encode(first))
        with pytest.raises(ConnectionLost):
            await connection.receive()
        assert heard(pair) is None

    run(test())


def test_who_has_said_who_he_is_speaks_for_nobody_else() -> None:
    async def test() -> None:
        pair = Pair()
        connection = await second_path(pair, "mallory")
        await connection.send(encode(Beat(host="mallory", guests=())))
        await connection.send(encode(Beat(host="alpha", guests=(UUID,))))
        with pytest.raises(ConnectionLost):
            await connection.receive()
        assert heard(pair) is None

    run(test())


def test_ever_new_guests_are_forgotten_again() -> None:
    async def test() -> None:
        pair = Pair(detect=5.0)
        connection = await second_path(pair)
        for _ in range(50):
            await connection.send(encode(Beat(host="alpha", guests=(str(uuid.uuid4()), UUID))))
            await asyncio.sleep(1)
        assert pair.beta.agent is not None
        assert len(pair.beta.agent.backup.beats._heard) <= 12
        assert heard(pair) is not None

    run(test())


def test_a_host_that_never_gets_to_listen_does_not_take_another_for_alive() -> None:
    """It was heard before, never since, and this host is away again and again."""

    async def test() -> None:
        pair = Pair()
        connection = await second_path(pair)
        await connection.send(encode(Beat(host="alpha", guests=(UUID,))))
        await asyncio.sleep(0.1)
        assert pair.beta.agent is not None
        beats = pair.beta.agent.backup.beats
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)

        async def stall() -> None:
            while True:
                await asyncio.sleep(2)
                loop._virtual.skipped += 4

        stalling = asyncio.ensure_future(stall())
        with pytest.raises(AuthorityError, match="too busy to listen"):
            await beats.expect_silence("alpha", 10, "web1")
        stalling.cancel()
        await beats.expect_silence("alpha", 10, "web1")

    run(test())
