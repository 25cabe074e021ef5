"""The HTTP endpoint: answers requests with the handlers of its paths, at one address. What a request may be: `protocol/http.py`.

It is only there to be asked, so nothing else may suffer from it. An address that this host does not have (any more) is tried
again and again, while the agent does its work. Few connections at a time, each with one request and a bounded time.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from remus_agent.addresses import Address
from remus_agent.protocol.http import Exchange, Refused, Request, Response

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
MAX_CONNECTIONS: Final = 16
"""At the same time; more are closed at once."""
REQUEST_SECONDS: Final = 5.0
"""For the request to arrive."""
ANSWER_SECONDS: Final = 10.0
"""For the answer to be made, and as long again for it to be taken."""
RETRY_SECONDS: Final = 5.0
"""Between two attempts to listen."""
_READ_BYTES: Final = 4096
_UNREAD_BYTES: Final = 256 * 1024
"""Of what the client sends beyond its request, most that is taken so that it can read the answer."""


class HttpServer:
    """handlers: by path. `start` returns at once; it listens as soon as it can."""

    def __init__(self, address: Address, handlers: Mapping[str, Handler]) -> None:
        self._address = address
        self._handlers = dict(handlers)
        self._server: asyncio.Server | None = None
        self._listening: asyncio.Task[None] | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int | None:
        """Where it listens; None while it does not."""
        return self._server.sockets[0].getsockname()[1] if self._server is not None and self._server.sockets else None

    def start(self) -> None:
        """Listen, now or as soon as this host has the address."""
        self._listening = asyncio.create_task(self._listen(), name="http endpoint")

    async def close(self) -> None:
        """Listen no more and end every connection. Safe to call twice."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        server, self._server = self._server, None
        if server is not None:
            server.close()
        connections = dict(self._open)
        for writer in connections.values():
            writer.transport.abort()
        if connections:
            await asyncio.wait(connections)

    async def _listen(self) -> None:
        told: str | None = None
        while self._server is None:
            try:
                self._server = await asyncio.start_server(
                    self._connected, self._address.ip, self._address.port, limit=_READ_BYTES
                )
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                if why != told:
                    log.error(
                        "http.listen: cannot listen on %s: %s; tried again, the agent goes on", self._address, why
                    )
                told = why
                await asyncio.sleep(RETRY_SECONDS)
        log.info("metrics and health at http://%s", self._address)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open[task] = writer
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("http client %s: %s", writer.get_extra_info("peername"), error or type(error).__name__)
            writer.transport.abort()
        finally:
            self._open.pop(task, None)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = None
                while request is None:
                    request = exchange.feed(await reader.read(_READ_BYTES))
            response = await self._respond(request)
        except Refused as refused:
            response = refused.response
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(exchange.answer(response, email.utils.formatdate(usegmt=True)))
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            # What is not read when a socket is closed makes the kernel reset the connection, and the answer is lost.
            left = _UNREAD_BYTES
            while left > 0 and (data := await reader.read(_READ_BYTES)):
                left -= len(data)

    async def _respond(self, request: Request) -> Response:
        handler = self._handlers.get(request.path)
        if handler is None:
            raise Refused(404, f"there is {', '.join(sorted(self._handlers))}")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await handler(request)
        except TimeoutError:
            log.warning("http: %s took longer than %g s", request.path, ANSWER_SECONDS)
            raise Refused(503, "it took too long") from None
        except Refused:
            raise
        except Exception:
            log.exception("http: %s failed in an unexpected way", request.path)
            raise Refused(500, "it failed; the agent's log says why") from None
