"""What the HTTP endpoint takes, byte by byte."""

from __future__ import annotations

import pytest

from remus_agent.protocol.http import MAX_HEAD, Exchange, Refused, Request, Response

DATE = "Sat, 28 Nov 2026 12:00:00 GMT"


def ask(*lines: str) -> bytes:
    """A request of these lines."""
    return "\r\n".join((*lines, "", "")).encode()


GET = ask("GET /primary?domain=web1 HTTP/1.1", "Host: alpha", "Accept: text/plain;q=0.5")


def test_a_request() -> None:
    request = Exchange().feed(GET)
    assert request == Request("/primary", {"domain": "web1"}, "text/plain;q=0.5")


def test_it_may_arrive_byte_by_byte() -> None:
    exchange = Exchange()
    assert [exchange.feed(bytes([byte])) for byte in GET[:-1]] == [None] * (len(GET) - 1)
    assert exchange.feed(GET[-1:]) is not None


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/metrics", "/metrics", {}),
        ("/metrics?", "/metrics", {}),
        ("/primary?domain=", "/primary", {"domain": ""}),
        ("/primary?domain=a%2Fb+c", "/primary", {"domain": "a/b c"}),
        ("/primary?domain=%C3%A4", "/primary", {"domain": "ä"}),
    ],
)
def test_targets(target: str, path: str, query: dict[str, str]) -> None:
    request = Exchange().feed(ask(f"GET {target} HTTP/1.1", "Host: a"))
    assert request is not None
    assert (request.path, dict(request.query)) == (path, query)


@pytest.mark.parametrize(
    ("raw", "status", "why"),
    [
        (ask("POST /metrics HTTP/1.1", "Host: a", "Content-Length: 0"), 405, "POST is not allowed; allowed: GET, HEAD"),
        (ask("OPTIONS * HTTP/1.1", "Host: a"), 405, "OPTIONS is not allowed"),
        (ask("CONNECT a:1 HTTP/1.1", "Host: a"), 405, "CONNECT is not allowed"),
        (ask("GET http://a/metrics HTTP/1.1", "Host: a"), 400, "not a path"),
        (ask("GET //a/metrics HTTP/1.1", "Host: a"), 400, "not a path"),
        (ask("GET /metrics HTTP/1.1"), 400, "Missing mandatory Host"),
        (ask("GET /metrics HTTP/1.1", "Host: a", "Host: b"), 400, "multiple Host"),
        (ask("GET /metrics HTTP/1.1", "Host: a", "Content-Length: 5"), 413, "with a body"),
        (ask("GET /metrics HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"), 413, "with a body"),
        (ask("GET /metrics HTTP/1.1", "Host: a", "Transfer-Encoding: gzip"), 501, "Transfer-Encoding"),
        (ask("GET /metrics HTTP/1.1", "Host: a", "Content-Length: 1, 2"), 400, "Content-Length"),
        (ask("GET /metrics HTTP/1.1", "Host: a", "Bad Name: 1"), 400, "illegal header"),
        (ask("GET /a?domain=a&domain=b HTTP/1.1", "Host: a"), 400, "given twice"),
        (ask("GET /a?domain HTTP/1.1", "Host: a"), 400, "cannot be read"),
        (ask("GET /a?domain=%FF HTTP/1.1", "Host: a"), 400, "cannot be read"),
        (ask("GET /a?a=1&b=2&c=3&d=4&e=5 HTTP/1.1", "Host: a"), 400, "cannot be read"),
        (ask("GET /" + "a" * MAX_HEAD + " HTTP/1.1", "Host: a"), 431, "longer than 8192 bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "illegal"),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_told(raw: bytes, status: int, why: str) -> None:
    exchange = Exchange()
    with pytest.raises(Refused, match=why) as caught:
        for start in range(0, len(raw), 4096):
            exchange.feed(raw[start : start + 4096])
    answer = exchange.answer(caught.value.response, DATE)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (b"\r\nallow: GET, HEAD\r\n" in answer.lower().replace(b"get, head", b"GET, HEAD")) is (status == 405)


def test_an_endless_head_is_cut_off() -> None:
    exchange = Exchange()
    exchange.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(Refused) as caught:
        for number in range(MAX_HEAD):
            exchange.feed(b"X-%d: y\r\n" % number)
    assert caught.value.response.status == 431


def test_who_asks_nothing_gets_nothing() -> None:
    with pytest.raises(EOFError):
        Exchange().feed(b"")


def test_half_a_request_is_none() -> None:
    exchange = Exchange()
    exchange.feed(GET[:20])
    with pytest.raises(Refused) as caught:
        exchange.feed(b"")
    assert caught.value.response.status == 400


def test_the_answer() -> None:
    exchange = Exchange()
    exchange.feed(GET)
    head, _, body = exchange.answer(Response(200, b"yes\n"), DATE).partition(b"\r\n\r\n")
    assert body == b"yes\n"
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 ",
        f"Date: {DATE}".encode(),
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 4",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Connection: close",
    ]


def test_head_gets_no_body() -> None:
    exchange = Exchange()
    exchange.feed(GET.replace(b"GET", b"HEAD"))
    answer = exchange.answer(Response(503, b"no\n"), DATE)
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 3\r\n" in answer


def test_an_old_client() -> None:
    exchange = Exchange()
    assert exchange.feed(ask("GET /metrics HTTP/1.0")) == Request("/metrics")
    assert exchange.answer(Response(200, b"yes\n"), DATE).startswith(b"HTTP/1.1 200 ")
