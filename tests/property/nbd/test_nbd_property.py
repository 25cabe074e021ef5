"""Requests survive any chunking; whatever a client sends ends in events or one NbdError, within the limits of memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import nbd_client as client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbd_client import EXPORT, connected, encode, receive, request

from remus_agent.errors import NbdError
from remus_agent.protocol.nbd.messages import Disconnect, Event, Flush, Read, Request, Send, Trim, Write, WriteZeroes
from remus_agent.protocol.nbd.server import NbdServer

handles = st.integers(0, 2**64 - 1)
sectors = st.integers(0, EXPORT.size // 512 - 200)
lengths = st.integers(1, 200).map(lambda n: 512 * n)
contents = st.builds(
    lambda n, seed: memoryview(bytes([seed, *range(255)]) * 2 * n), st.integers(1, 200), st.integers(0, 255)
)
offsets = sectors.map(lambda n: 512 * n)
good_requests: st.SearchStrategy[Request] = st.one_of(
    st.builds(Read, handles, offsets, lengths),
    st.builds(Write, handles, offsets, contents, st.booleans()),
    st.builds(Flush, handles),
    st.builds(Trim, handles, offsets, lengths, st.booleans()),
    st.builds(WriteZeroes, handles, offsets, lengths, st.booleans(), st.booleans()),
)
any_requests = st.builds(
    lambda command, handle, offset, length, flag: request(
        command, handle, offset, length, flag, b"d" * length if command == client.WRITE else b""
    ),
    st.integers(0, 9).filter(lambda n: n != client.DISC),
    handles,
    offsets | st.integers(0, 2**64 - 1),
    lengths | st.integers(0, 20_000),
    st.integers(0, 3) | st.integers(0, 2**16 - 1),
)
options = st.one_of(
    st.builds(client.option, st.integers(0, 12).filter(lambda n: n not in (1, 2, 7)), st.binary(max_size=300)),
    st.builds(
        lambda name, infos: client.option(client.INFO, client.about(name, infos)),
        st.sampled_from(["xvda", "xvdb", ""]) | st.text(max_size=50),
        st.lists(st.integers(0, 2**16 - 1), max_size=8),
    ),
)
chunk_sizes = st.lists(st.integers(1, 70_000) | st.integers(1, 40), min_size=1, max_size=20)
WHOLE = [10**9]


def plain(events: Sequence[Event]) -> list[Event | bytes]:
    """Events, with what is sent in a row joined: how it is cut does not matter."""
    found: list[Event | bytes] = []
    for event in events:
        if isinstance(event, Send):
            if found and isinstance(found[-1], bytes):
                found[-1] += event.data
            else:
                found.append(event.data)
        else:
            found.append(event)
    return found


@given(st.lists(good_requests, max_size=8), chunk_sizes)
def test_what_a_client_encodes_is_what_the_server_sees(requests: list[Request], sizes: list[int]) -> None:
    server = connected()
    whole = [*requests, Disconnect()]
    assert receive(server, b"".join(map(encode, whole)), sizes) == whole
    assert server.failed is None
    assert server.pending == 0


@given(st.lists(options, max_size=5), st.lists(any_requests, max_size=6), chunk_sizes)
def test_any_chunking_gives_the_same_events(haggling: list[bytes], requests: list[bytes], sizes: list[int]) -> None:
    raw = client.flags() + b"".join(haggling) + client.option(client.GO, client.about()) + b"".join(requests)
    one, other = NbdServer(EXPORT), NbdServer(EXPORT)
    assert plain(receive(one, raw, sizes)) == plain(receive(other, raw, WHOLE))
    assert one.failed is None
    assert other.failed is None
    assert one.negotiated
    assert one.pending == other.pending == 0


@given(st.lists(any_requests, max_size=6), chunk_sizes)
def test_every_request_has_one_event_or_one_reply(requests: list[bytes], sizes: list[int]) -> None:
    events = receive(connected(), b"".join(requests), sizes)
    answered = len(client.simple_replies(client.sent(events)))
    assert answered + sum(not isinstance(event, Send) for event in events) == len(requests)


@given(st.lists(any_requests | good_requests.map(encode), min_size=1, max_size=4), chunk_sizes, st.data())
def test_truncation_is_no_error_and_shows(requests: list[bytes], sizes: list[int], data: st.DataObject) -> None:
    whole = b"".join(requests)
    cut = data.draw(st.integers(0, len(whole) - 1))
    server = connected()
    events = receive(server, whole[:cut], sizes)
    complete, used = 0, 0
    while complete < len(requests) and used + len(requests[complete]) <= cut:
        used += len(requests[complete])
        complete += 1
    assert len(events) == complete
    assert server.failed is None
    assert server.pending == cut - used


@given(st.lists(options, min_size=1, max_size=4), chunk_sizes, st.data())
def test_truncation_of_a_handshake(haggling: list[bytes], sizes: list[int], data: st.DataObject) -> None:
    messages = [client.flags(), *haggling, client.option(client.GO, client.about())]
    whole = b"".join(messages)
    cut = data.draw(st.integers(0, len(whole) - 1))
    server = NbdServer(EXPORT)
    receive(server, whole[:cut], sizes)
    used = 0
    for message in messages:
        if used + len(message) > cut:
            break
        used += len(message)
    assert server.failed is None
    assert not server.negotiated
    assert server.pending == cut - used


def headers(draw_command: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """Requests whose lengths say anything, without what they announce."""
    return st.builds(request, draw_command, handles, offsets | handles, st.integers(0, 2**32 - 1), st.integers(0, 7))


hostile = st.lists(
    st.binary(max_size=60)
    | headers(st.integers(0, 9))
    | options
    | st.builds(client.option, st.integers(0, 12), st.binary(max_size=60), st.integers(0, 2**32 - 1))
    | any_requests,
    max_size=6,
).map(b"".join)


@settings(max_examples=300)
@given(st.sampled_from([b"", client.flags(), client.go()]), hostile, chunk_sizes)
def test_whatever_comes_ends_in_events_or_one_error(start: bytes, garbage: bytes, sizes: list[int]) -> None:
    one, other = NbdServer(EXPORT), NbdServer(EXPORT)
    tracemalloc.start()
    try:
        events = receive(one, start + garbage, sizes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < client.LIMIT + 8 * len(garbage) + (1 << 20)
    assert plain(events) == plain(receive(other, start + garbage, WHOLE))
    assert str(one.failed) == str(other.failed)
    if one.failed is None:
        assert one.pending == other.pending
        assert len(one.get_buffer()) <= client.LIMIT
        return
    assert one.failed.expected
    assert one.failed.found
    with pytest.raises(NbdError):
        one.get_buffer()
    with pytest.raises(NbdError):
        one.buffer_updated(1)
