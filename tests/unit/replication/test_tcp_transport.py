from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from certificates import Authority
from deadline import run, until

from remus_agent.adapters.transport import connection
from remus_agent.adapters.transport.tcp import Listener, TcpConnection, TcpConnector, serve
from remus_agent.adapters.transport.tls import MutualTls
from remus_agent.config import Tls
from remus_agent.errors import ConnectionLost, PeerTimeout, ReplicationError
from remus_agent.protocol.replication.frames import Frame, FrameType, encode

LOCAL = "127.0.0.1"
MIB = 1 << 20


class Pair:
    """A connected pair: `near` connected, `far` was accepted. far's handler runs until the pair ends. tls: files by host, for
    TLS in between."""

    tls: dict[str, Tls] | None = None

    def __init__(self) -> None:
        self._far: asyncio.Queue[TcpConnection] = asyncio.Queue()
        self._over = asyncio.Event()

    async def _hold(self, connection: TcpConnection) -> None:
        self._far.put_nowait(connection)
        await self._over.wait()

    async def __aenter__(self) -> Pair:
        there = self.tls and MutualTls(self.tls["beta"], "beta", {"alpha": f"{LOCAL}:1"})
        self.listener = await serve(f"{LOCAL}:0", {LOCAL}, self._hold, tls=there)
        address = str(self.listener.address)
        here = self.tls and MutualTls(self.tls["alpha"], "alpha", {"beta": address})
        self.near = await TcpConnector(silence=30, tls=here).connect(address, 5)
        self.far = await self._far.get()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self.near.close()
        await self.listener.close()


@pytest.fixture(autouse=True, params=["plain", "tls"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All that holds of plain TCP holds of TLS."""
    if request.param == "tls":
        site = Authority(tmp_path)
        monkeypatch.setattr(Pair, "tls", {name: site.issue(name) for name in ("alpha", "beta")})


async def listening(handler: Callable[[TcpConnection], Awaitable[None]], allowed: str = LOCAL) -> Listener:
    return await serve(f"{LOCAL}:0", {allowed}, handler)


def test_frames_both_ways_in_order() -> None:
    async def test() -> None:
        async with Pair() as pair:
            for epoch in range(1, 50):
                await pair.near.send(Frame(FrameType.STREAM, epoch, 0, (b"x" * epoch * 1000,)))
                await pair.far.send(Frame(FrameType.MEMORY_ACK, epoch, 0, (bytes(16),)))
            for epoch in range(1, 50):
                frame = await pair.far.receive()
                assert (frame.epoch, frame.payload_bytes) == (epoch, epoch * 1000)
                assert (await pair.near.receive()).epoch == epoch
            assert pair.near.peer == str(pair.listener.address)
            assert pair.far.peer.startswith(LOCAL)

    run(test())


def test_memory_may_be_used_again_when_send_returns() -> None:
    async def test() -> None:
        async with Pair() as pair:
            pages = bytearray(b"a" * 8 * MIB)

            async def send() -> None:
                for letter in b"abcdef":
                    pages[:] = bytes([letter]) * len(pages)
                    await pair.near.send(Frame(FrameType.STREAM, 1, 0, (memoryview(pages),)))

            sending = asyncio.create_task(send())
            for letter in b"abcdef":
                payload = (await pair.far.receive()).payload[0]
                assert payload == bytes([letter]) * len(pages)
            await sending

    run(test())


def test_a_reader_that_does_not_read_stops_the_sender_and_bounds_memory() -> None:
    async def test() -> None:
        async with Pair() as pair:
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in range(200):
                    await pair.near.send(Frame(FrameType.STREAM, 1, 0, (bytes(MIB),)))
                    sent += 1

            sending = asyncio.create_task(send())
            await until(lambda: pair.far._reading_paused and not pair.near._writable.is_set())
            assert sent < 200
            assert connection.QUEUE_BYTES <= pair.far._queued_bytes <= connection.QUEUE_BYTES + 8 * MIB
            for _ in range(200):
                await pair.far.receive()
            await sending

    run(test())


def test_many_small_frames_are_bounded_too() -> None:
    async def test() -> None:
        async with Pair() as pair:
            for _ in range(connection.QUEUE_FRAMES * 4):
                await pair.near.send(Frame(FrameType.HEARTBEAT))
            await until(lambda: pair.far._reading_paused)
            for _ in range(connection.QUEUE_FRAMES * 4):
                await pair.far.receive()

    run(test())


def test_what_arrived_before_the_end_is_delivered_then_the_error_names_the_peer() -> None:
    async def test() -> None:
        async with Pair() as pair:
            await pair.near.send(Frame(FrameType.STOP))
            await pair.near.send(Frame(FrameType.STOPPED))
            await pair.near.close()
            assert (await pair.far.receive()).type is FrameType.STOP
            assert (await pair.far.receive()).type is FrameType.STOPPED
            for _ in range(2):
                with pytest.raises(ConnectionLost, match=f"{pair.far.peer}: the other side closed"):
                    await pair.far.receive()
            with pytest.raises(ConnectionLost):
                await pair.far.send(Frame(FrameType.HEARTBEAT))
            with pytest.raises(ConnectionLost, match="closed by this side"):
                await pair.near.receive()
            with pytest.raises(ConnectionLost):
                await pair.near.send(Frame(FrameType.HEARTBEAT))
            await pair.near.close()

    run(test())


def test_the_last_frame_arrives_although_the_closing_side_did_not_read_everything() -> None:
    """A reset would reach the side that still writes before it has read the frame."""

    async def test() -> None:
        async with Pair() as pair:
            assert pair.near._transport is not None
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await pair.near.send(Frame(FrameType.STREAM, 1, 0, (bytes(MIB),)))
                    sent += 1

            sending = asyncio.create_task(send())
            await until(lambda: pair.far._reading_paused)
            pair.near._transport.pause_reading()
            await pair.far.send(Frame(FrameType.REFUSE, 0, 0, (b"reason",)))
            before = sent
            closing = asyncio.create_task(pair.far.close())
            await until(lambda: sent > before or sending.done())
            pair.near._transport.resume_reading()
            assert (await pair.near.receive()).type is FrameType.REFUSE
            with pytest.raises(ConnectionLost):
                await sending
            await closing

    run(test())


def test_a_waiting_receiver_is_woken_by_its_own_close() -> None:
    async def test() -> None:
        async with Pair() as pair:
            receiving = asyncio.create_task(pair.near.receive())
            await asyncio.sleep(0)
            await pair.near.close()
            with pytest.raises(ConnectionLost, match="closed by this side"):
                await receiving

    run(test())


def test_aborting_waits_for_nobody_and_hands_out_nothing_more() -> None:
    """To close waits for the other side, which may be a host that has died."""

    async def test() -> None:
        async with Pair() as pair:
            await pair.far.send(Frame(FrameType.STREAM, 1, 0, (b"page",)))
            await until(lambda: pair.near._queue)
            pair.near.abort()
            with pytest.raises(ConnectionLost, match="closed by this side"):
                await pair.near.receive()
            with pytest.raises(ConnectionLost, match=r"reset|closed"):
                await pair.far.receive()

    run(test())


def test_a_cancelled_small_send_or_receive_breaks_nothing() -> None:
    async def test() -> None:
        async with Pair() as pair:
            receiving = asyncio.create_task(pair.far.receive())
            await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
            await pair.near.send(Frame(FrameType.HEARTBEAT, 7))
            assert (await pair.far.receive()).epoch == 7

    run(test())


def test_giving_up_in_the_middle_of_a_large_frame_ends_the_connection() -> None:
    async def test() -> None:
        async with Pair() as pair:

            async def send() -> None:
                while True:
                    await pair.near.send(Frame(FrameType.STREAM, 1, 0, (bytes(8 * MIB),)))

            sending = asyncio.create_task(send())
            await until(lambda: pair.far._reading_paused and not pair.near._writable.is_set())
            sending.cancel()
            await asyncio.wait([sending])
            with pytest.raises(ConnectionLost, match="given up"):
                await pair.near.send(Frame(FrameType.HEARTBEAT))
            with pytest.raises(ConnectionLost):
                while True:
                    await pair.far.receive()

    run(test())


def _raw(address: str, *chunks: bytes, reset: bool = False) -> socket.socket:
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host, int(port)))
    for chunk in chunks:
        sock.sendall(chunk)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return sock


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", ReplicationError, "malformed bytes from 127.0.0.1:"),
        (b"".join(encode(Frame(FrameType.STREAM, 1, 0, (bytes(100),))))[:-1], ConnectionLost, "middle of a frame"),
        (b"", ConnectionLost, "the other side closed"),
    ],
)
def test_bytes_that_are_no_frames(data: bytes, error: type[Exception], message: str) -> None:
    async def test() -> None:
        result: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def handler(connection: TcpConnection) -> None:
            try:
                await connection.receive()
            except Exception as caught:  # noqa: BLE001 - the kind of it is what is tested
                result.set_result(caught)

        listener = await listening(handler)
        (await asyncio.to_thread(_raw, str(listener.address), data)).close()
        caught = await result
        assert type(caught) is error
        assert message in str(caught)
        await listener.close()

    run(test())


def test_a_reset_is_a_lost_connection() -> None:
    async def test() -> None:
        result: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def handler(connection: TcpConnection) -> None:
            try:
                await connection.receive()
            except ConnectionLost as caught:
                result.set_result(caught)

        listener = await listening(handler)
        (await asyncio.to_thread(_raw, str(listener.address), reset=True)).close()
        assert "Connection reset by peer" in str(await result)
        await listener.close()

    run(test())


def test_a_connection_that_was_reset_unseen_can_be_closed() -> None:
    """Its reader has fallen behind, so nobody reads and the loop does not notice."""

    async def test() -> None:
        async with Pair() as pair:
            pair.far._pause_reading()
            transport = pair.near._transport
            assert transport is not None
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            pair.near.abort()
            await until(pair.near._gone.is_set)
            await pair.far.close()
            with pytest.raises(ConnectionLost):
                await pair.far.receive()

    run(test())


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), PeerTimeout),
        (OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)), ConnectionLost),
        (BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), ConnectionLost),
        (RuntimeError("odd"), ConnectionLost),
    ],
)
def test_how_a_connection_can_end(cause: Exception, error: type[Exception]) -> None:
    async def test() -> None:
        connection = TcpConnection()
        connection.connection_lost(cause)
        with pytest.raises(error):
            await connection.receive()
        with pytest.raises(error):
            await connection.send(Frame(FrameType.HEARTBEAT))

    run(test())


def test_socket_options() -> None:
    async def test() -> None:
        async with Pair() as pair:
            for side in (pair.near, pair.far):
                assert side._transport is not None
                sock = side._transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000

    run(test())
