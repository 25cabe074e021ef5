from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

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


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    path = tmp_path / "tls.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout - -out -"
    try:
        made = subprocess.run(
            command.split(),
            capture_output=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    path.write_bytes(made.stdout)
    return path


def test_the_same_over_mutual_tls(certificate: Path) -> None:
    there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    there.load_cert_chain(certificate)
    there.verify_mode = ssl.CERT_REQUIRED
    here = ssl.create_default_context(cafile=str(certificate))
    here.load_cert_chain(certificate)

    async def test() -> None:
        async def handler(connection: TcpConnection) -> None:
            for _ in range(5):
                frame = await connection.receive()
                await connection.send(Frame(FrameType.STREAM, frame.epoch, 0, frame.payload))
            await connection.receive()

        listener = await serve(f"{LOCAL}:0", {LOCAL}, handler, tls=there)
        near = await TcpConnector(silence=30, tls=here).connect(str(listener.address), 5)
        for epoch in range(1, 6):
            payload = bytes([epoch]) * (8 << 20)
            await near.send(Frame(FrameType.STREAM, epoch, 0, (payload,)))
            assert (await near.receive()).payload[0] == payload
        await near.close()
        with pytest.raises(ConnectionLost, match="TLS with"):
            await TcpConnector(silence=30, tls=ssl.create_default_context()).connect(str(listener.address), 5)
        await listener.close()

    run(test())
