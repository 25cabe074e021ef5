"""The HTTP endpoint on a real socket: what it serves, whom it lets wait, and that nothing it meets ends it."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from deadline import until

from remus_agent.adapters.http import server as module
from remus_agent.adapters.http.server import MAX_CONNECTIONS, HttpServer
from remus_agent.addresses import Address
from remus_agent.protocol.http import Refused, Request, Response

LOOPBACK = Address("127.0.0.1", 0)


class Pages:
    """Handlers that show each kind of ending."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.asked: list[Request] = []

    async def fine(self, request: Request) -> Response:
        self.asked.append(request)
        return Response(200, b"fine\n")

    async def large(self, request: Request) -> Response:
        return Response(200, b"x" * 5_000_000)

    async def refused(self, request: Request) -> Response:
        raise Refused(400, "not like this")

    async def bug(self, request: Request) -> Response:
        raise KeyError("secret detail")

    async def slow(self, request: Request) -> Response:
        await self.go_on.wait()
        return Response(200, b"at last\n")


@asynccontextmanager
async def serving(pages: Pages) -> AsyncIterator[HttpServer]:
    names = ("fine", "large", "refused", "bug", "slow")
    server = HttpServer(LOOPBACK, {f"/{name}": getattr(pages, name) for name in names})
    server.start()
    await until(lambda: server.port is not None)
    try:
        yield server
    finally:
        await server.close()


async def ask(server: HttpServer, target: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body."""

    def blocking() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return await asyncio.to_thread(blocking)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends, in either way, and without an answer."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_answers() -> None:
    pages = Pages()
    async with serving(pages) as server:
        assert await ask(server, "/fine?domain=web1") == (200, b"fine\n")
        assert await ask(server, "/fine", "HEAD") == (200, b"")
        assert len((await ask(server, "/large"))[1]) == 5_000_000
        assert await ask(server, "/refused") == (400, b"not like this\n")
        assert await ask(server, "/") == (404, b"there is /bug, /fine, /large, /refused, /slow\n")
        assert (await ask(server, "/fine", "DELETE"))[0] == 405
        assert (await ask(server, "/fine", "POST", b"x" * 200_000))[0] == 405
        assert (await ask(server, "/fine", "GET", b"x" * 200_000))[0] in (413, 431)
    assert [dict(each.query) for each in pages.asked] == [{"domain": "web1"}, {}]


async def test_a_defect_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Pages()) as server:
        assert await ask(server, "/bug") == (500, b"it failed; the agent's log says why\n")
        assert await ask(server, "/fine") == (200, b"fine\n")
    assert "secret detail" in caplog.text


async def test_who_asks_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.05)
    async with serving(Pages()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /fine HT")
        assert await ended(reader)
        writer.close()
        monkeypatch.undo()  # a busy machine may need longer to ask in earnest
        assert await ask(server, "/fine") == (200, b"fine\n")


async def test_an_answer_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    async with serving(Pages()) as server:
        assert await ask(server, "/slow") == (503, b"it took too long\n")


async def test_few_at_a_time() -> None:
    pages = Pages()
    async with serving(pages) as server:
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MAX_CONNECTIONS)]
        await until(lambda: len(server._open) == MAX_CONNECTIONS)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await ended(reader)
        writer.close()
        for _, each in waiting:
            each.close()
        await until(lambda: not server._open)
        assert await ask(server, "/fine") == (200, b"fine\n")


async def test_it_is_closed_with_who_waits() -> None:
    async with serving(Pages()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(server._open) == 1)
        await server.close()
        assert server.port is None
        assert await ended(reader)
        writer.close()


async def test_an_address_that_is_not_there_yet_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = HttpServer(Address("127.0.0.1", other.getsockname()[1]), {})
        server.start()
        await until(lambda: "cannot listen" in caplog.text)
        assert server.port is None
    await until(lambda: server.port is not None)
    await server.close()
    assert caplog.text.count("cannot listen") == 1


async def test_it_listens_at_its_address_alone() -> None:
    async with serving(Pages()) as server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", server.port), 5).close()
