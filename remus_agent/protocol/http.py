"""One request and its answer in HTTP/1.1, sans-IO. h11 parses; this says what is taken: GET and HEAD, a short head, no body, one
request a connection. Loaded only where the HTTP endpoint is configured.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import h11

MAX_HEAD: Final = 8192
"""Bytes of the request line and all headers."""
MAX_PARAMETERS: Final = 4
_METHODS: Final = ("GET", "HEAD")
_PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. query: each parameter once. accept: the header, empty where there is none."""

    path: str
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    status: int
    body: bytes
    content_type: str = _PLAIN
    allow: str | None = None
    """With status 405: the methods that are taken."""


class Refused(Exception):
    """The request is not taken; `response` says why."""

    def __init__(self, status: int, why: str, *, allow: str | None = None) -> None:
        super().__init__(f"{status}: {why}")
        self.response = Response(status, f"{why}\n".encode(), allow=allow)


class Exchange:
    """One connection: `feed` until it gives a request or raises, then `answer`, then close it."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_only = False
        self._received = 0

    def feed(self, data: bytes) -> Request | None:
        """The request, or None while it is not whole. data: empty when the client sends no more. Raises Refused for what is not
        taken, EOFError when nothing was asked."""
        self._received += len(data)
        if self._received > MAX_HEAD:  # h11 would take a longer one whose end has arrived already
            raise Refused(431, f"the request is longer than {MAX_HEAD} bytes")
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, str(error)) from None
        if isinstance(event, h11.Request):
            return self._take(event)
        if event is h11.NEED_DATA:
            return None
        raise EOFError  # ConnectionClosed: the client has gone without a word

    def _take(self, event: h11.Request) -> Request:
        method = event.method.decode("ascii", "replace")
        self._head_only = method == "HEAD"
        if method not in _METHODS:
            allowed = ", ".join(_METHODS)
            raise Refused(405, f"{method} is not allowed; allowed: {allowed}", allow=allowed)
        headers = dict(event.headers)
        if b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0"):
            raise Refused(413, "a request with a body is not taken")
        path, query = _target(event.target)
        return Request(path, query, headers.get(b"accept", b"").decode("latin-1"))

    def answer(self, response: Response, date: str) -> bytes:
        """The bytes to send, after which the connection is to be closed. date: now, as HTTP writes it."""
        headers = [
            ("Date", date),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ]
        if response.allow is not None:
            headers.append(("Allow", response.allow))
        head = self._connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
        body = b"" if self._head_only else self._connection.send(h11.Data(data=response.body)) or b""
        return head + body


def _target(target: bytes) -> tuple[str, Mapping[str, str]]:
    text = target.decode("ascii")  # h11 takes nothing else
    if not text.startswith("/") or text.startswith("//"):
        raise Refused(400, "the target is not a path")
    path, _, query = text.partition("?")
    try:
        pairs = (
            urllib.parse.parse_qsl(
                query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_PARAMETERS
            )
            if query
            else []
        )
    except ValueError as error:  # not UTF-8, too: UnicodeDecodeError is one
        raise Refused(400, f"the query cannot be read: {error}") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused(400, "a parameter is given twice")
    return path, MappingProxyType(found)
