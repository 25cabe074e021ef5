"""Whatever arrives at the HTTP endpoint, in whatever pieces: a request, a refusal that can be answered, or an end."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from remus_agent.protocol.http import MAX_HEAD, Exchange, Refused, Request, Response

DATE = "Sat, 28 Nov 2026 12:00:00 GMT"
LINES = st.sampled_from(
    [b"GET /metrics HTTP/1.1\r\n", b"HEAD /primary?domain=a HTTP/1.1\r\n", b"Host: a\r\n", b"Accept: */*\r\n", b"\r\n",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"abc", b" "],
)  # fmt: skip
REQUESTS = st.lists(st.one_of(LINES, st.binary(max_size=20)), max_size=12).map(b"".join)


@given(raw=st.one_of(REQUESTS, st.binary(max_size=200)), cut=st.integers(1, 64))
@example(raw=b"GET /" + b"a" * MAX_HEAD, cut=4096)
def test_everything_has_one_of_three_ends(raw: bytes, cut: int) -> None:
    exchange = Exchange()
    pieces = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    response = Response(200, b"yes\n")
    found: Request | None = None
    try:
        for piece in (*pieces, b""):
            found = exchange.feed(piece)
            if found is not None:
                break
    except EOFError:
        return
    except Refused as refused:
        response = refused.response
        assert 400 <= response.status < 600
    else:
        assert found is not None, "the client has ended, and nobody said so"
        assert found.path.startswith("/")
    answer = exchange.answer(response, DATE)
    assert answer.startswith(b"HTTP/1.1 %d " % response.status)
    assert b"\r\nConnection: close\r\n" in answer
