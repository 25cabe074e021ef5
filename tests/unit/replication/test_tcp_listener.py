from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
from deadline import run, until

from remus_agent.adapters.transport.tcp import Listener, TcpConnection, TcpConnector, serve
from remus_agent.errors import ConfigError, ConnectionLost, PeerTimeout
from remus_agent.protocol.replication.frames import Frame, FrameType

LOCAL = "127.0.0.1"


async def listening(handler: Callable[[TcpConnection], Awaitable[None]], allowed: str = LOCAL) -> Listener:
    return await serve(f"{LOCAL}:0", {allowed}, handler)


def test_only_configured_peers_get_in_and_others_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        seen: list[str] = []

        async def handler(connection: TcpConnection) -> None:
            seen.append(connection.peer_ip)

        listener = await listening(handler, allowed="127.0.0.2")
        for _ in range(3):
            stranger = await TcpConnector(silence=30, source="127.0.0.3").connect(str(listener.address), 5)
            with pytest.raises(ConnectionLost):
                await stranger.receive()
            await stranger.close()
        assert seen == []
        friend = await TcpConnector(silence=30, source="127.0.0.2").connect(str(listener.address), 5)
        await until(lambda: seen == ["127.0.0.2"])
        await friend.close()
        await listener.close()

    with caplog.at_level(logging.WARNING):
        run(test())
    assert [r.getMessage() for r in caplog.records if "127.0.0.3" in r.getMessage()] == [
        "refused a connection from 127.0.0.3: not a configured peer (logged once)"
    ]


def test_a_handler_that_fails_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async def handler(connection: TcpConnection) -> None:
            frame = await connection.receive()
            raise KeyError(frame.epoch)

        listener = await listening(handler)
        for epoch in (1, 2):
            near = await TcpConnector(silence=30).connect(str(listener.address), 5)
            await near.send(Frame(FrameType.HEARTBEAT, epoch))
            with pytest.raises(ConnectionLost):
                await near.receive()
            await near.close()
        await listener.close()

    run(test())
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR"]


def test_closing_the_listener_ends_its_handlers() -> None:
    async def test() -> None:
        cancelled = asyncio.Event()

        async def handler(connection: TcpConnection) -> None:
            try:
                await connection.receive()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        listener = await listening(handler)
        near = await TcpConnector(silence=30).connect(str(listener.address), 5)
        await until(lambda: len(listener._handlers) == 1)
        await listener.close()
        assert cancelled.is_set()
        with pytest.raises(ConnectionLost):
            await near.receive()
        await near.close()

    run(test())


def test_nobody_listens() -> None:
    async def test() -> None:
        with socket.socket() as sock:
            sock.bind((LOCAL, 0))
            port = sock.getsockname()[1]
            with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}: Connection refused") as caught:
                await TcpConnector(silence=30).connect(f"{LOCAL}:{port}", 5)
            assert caught.value.hint == "see whether the agent runs there"

    run(test())


def test_a_peer_that_does_not_answer() -> None:
    async def test() -> None:
        with ExitStack() as stack:
            # A listener whose backlog is full answers no further SYN.
            silent = stack.enter_context(socket.socket())
            silent.bind((LOCAL, 0))
            silent.listen(0)
            for _ in range(8):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(silent.getsockname())
            with pytest.raises(PeerTimeout, match=r"no answer from 127.0.0.1:\d+ within 0.2 s"):
                await TcpConnector(silence=30).connect(f"{LOCAL}:{silent.getsockname()[1]}", 0.2)

    run(test())


def test_an_address_in_use() -> None:
    async def test() -> None:
        async def handler(_: TcpConnection) -> None: ...

        listener = await listening(handler)
        with pytest.raises(ConfigError, match=r"cannot listen on .*: Address already in use"):
            await serve(str(listener.address), {LOCAL}, handler)
        await listener.close()

    run(test())
