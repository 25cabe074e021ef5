"""Requests and replies ("Request message", "Simple reply message", "Request types", "Error values")."""

from __future__ import annotations

import errno
import tracemalloc

import nbd_client as client
import numpy as np
import pytest
from nbd_client import EINVAL, ENOSPC, EXPORT, FUA, LIMIT, NO_HOLE, connected, request, sent, simple_replies

from remus_agent.errors import NbdError
from remus_agent.protocol.nbd.constants import Errno
from remus_agent.protocol.nbd.messages import (
    Disconnect,
    Event,
    Export,
    Flush,
    Read,
    Send,
    Trim,
    Write,
    WriteZeroes,
    error_of,
    read_reply,
    reply,
)

END = EXPORT.size


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (request(client.READ, 7, 512, 1024), Read(7, 512, 1024)),
        (request(client.READ, 7, 512, 1024, FUA), Read(7, 512, 1024)),
        (request(client.READ, 7, 0, LIMIT), Read(7, 0, LIMIT)),
        (client.write(2**64 - 1, 1024, b"x" * 512), Write(2**64 - 1, 1024, memoryview(b"x" * 512))),
        (client.write(0, END - 512, b"y" * 512, FUA), Write(0, END - 512, memoryview(b"y" * 512), fua=True)),
        (request(client.FLUSH, 9), Flush(9)),
        (request(client.FLUSH, 9, flag=FUA), Flush(9)),
        (request(client.TRIM, 3, 0, END), Trim(3, 0, END)),
        (request(client.TRIM, 3, 4096, 512, FUA), Trim(3, 4096, 512, fua=True)),
        (request(client.WRITE_ZEROES, 4, 0, END), WriteZeroes(4, 0, END)),
        (request(client.WRITE_ZEROES, 4, 0, 512, NO_HOLE), WriteZeroes(4, 0, 512, no_hole=True)),
        (request(client.WRITE_ZEROES, 4, 0, 512, FUA | NO_HOLE), WriteZeroes(4, 0, 512, fua=True, no_hole=True)),
        (request(client.DISC, 0), Disconnect()),
    ],
)
def test_requests(raw: bytes, event: Event) -> None:
    assert connected().feed(raw) == [event]


READ, WRITE, FLUSH, TRIM, ZEROES = client.READ, client.WRITE, client.FLUSH, client.TRIM, client.WRITE_ZEROES


@pytest.mark.parametrize(
    ("command", "offset", "length", "flag", "error"),
    [
        *[(command, 511, 512, 0, EINVAL) for command in (READ, WRITE, TRIM, ZEROES)],
        *[(command, 512, 511, 0, EINVAL) for command in (READ, WRITE, TRIM, ZEROES)],
        *[(command, 512, 0, 0, EINVAL) for command in (READ, WRITE, TRIM, ZEROES)],
        *[(command, END, 512, 0, EINVAL) for command in (READ, TRIM)],
        *[(command, END, 512, 0, ENOSPC) for command in (WRITE, ZEROES)],
        *[(command, END - 512, 1024, 0, EINVAL) for command in (READ, TRIM)],
        *[(command, END - 512, 1024, 0, ENOSPC) for command in (WRITE, ZEROES)],
        *[(command, 2**64 - 512, 1024, 0, EINVAL) for command in (READ, TRIM)],
        *[(command, 2**64 - 512, 1024, 0, ENOSPC) for command in (WRITE, ZEROES)],
        (READ, 0, LIMIT + 512, 0, EINVAL),
        (WRITE, 0, LIMIT + 512, 0, EINVAL),
        (READ, 0, 2**32 - 512, 0, EINVAL),
        (FLUSH, 512, 0, 0, EINVAL),
        (FLUSH, 0, 512, 0, EINVAL),
        *[(command, 0, 512, 1 << bit, EINVAL) for command in (READ, WRITE, TRIM) for bit in range(1, 16)],
        *[(ZEROES, 0, 512, 1 << bit, EINVAL) for bit in range(2, 16)],
        *[(FLUSH, 0, 0, 1 << bit, EINVAL) for bit in range(1, 16)],
        *[(command, 0, 512, 0, EINVAL) for command in (client.CACHE, client.BLOCK_STATUS, 8, 0xFFFF)],
    ],
)
def test_requests_that_are_refused(command: int, offset: int, length: int, flag: int, error: int) -> None:
    server = connected()
    data = b"p" * length if command == WRITE else b""
    events = server.feed(request(command, 11, offset, length, flag, data) + request(FLUSH, 12))
    assert events[-1] == Flush(12)
    assert simple_replies(sent(events)) == [(11, error)]
    assert len(events) == 2
    assert server.failed is None
    assert server.pending == 0


def test_a_refused_write_is_answered_when_its_data_has_come() -> None:
    server = connected()
    assert server.feed(request(WRITE, 1, END, 1 << 20)) == []
    assert server.pending == 28
    assert server.feed(bytes((1 << 20) - 1)) == []
    assert server.pending == 28 + (1 << 20) - 1
    assert server.feed(b"\0") == [Send(reply(1, ENOSPC))]
    assert server.pending == 0


@pytest.mark.parametrize(("offset", "length"), [(0, LIMIT + 512), (0, 2**32 - 512), (END, LIMIT), (1, LIMIT)])
def test_nothing_is_allocated_for_a_refused_write(offset: int, length: int) -> None:
    server = connected()
    raw = request(WRITE, 1, offset, length)
    tracemalloc.start()
    try:
        server.feed(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024
    assert len(server.get_buffer()) <= 64 * 1024


def test_large_data_is_received_in_the_place_where_it_stays() -> None:
    server = connected()
    raw = client.write(5, 0, bytes(range(256)) * 4 * 4096)
    room = server.get_buffer(-1)
    room[:28] = raw[:28]
    assert server.buffer_updated(28) == []
    room = server.get_buffer(-1)
    assert len(room) == len(raw) - 28
    room[:] = raw[28:]
    (event,) = server.buffer_updated(len(room))
    assert isinstance(event, Write)
    assert event.data.obj is room.obj
    assert event.data.readonly
    assert event.data == raw[28:]
    assert event.length == len(raw) - 28


def test_each_write_has_memory_of_its_own() -> None:
    server = connected()
    events = server.feed(b"".join(client.write(n, 0, bytes([n]) * 512) for n in range(200)))
    writes = [event for event in events if isinstance(event, Write)]
    assert [bytes(event.data) for event in writes] == [bytes([n]) * 512 for n in range(200)]
    assert len({id(event.data.obj) for event in writes}) == 200
    assert all(isinstance(event.data.obj, bytearray) and len(event.data.obj) == 512 for event in writes)


def test_the_block_size_is_the_export_s() -> None:
    server = connected(Export("xvdb", 1 << 20, 4096))
    events = server.feed(request(READ, 1, 512, 512) + request(READ, 2, 4096, 4096))
    assert simple_replies(sent(events)) == [(1, EINVAL)]
    assert events[-1] == Read(2, 4096, 4096)


def test_what_follows_a_disconnect_is_ignored() -> None:
    server = connected()
    assert server.feed(request(client.DISC, 1, 99, 99, 99) + b"anything") == [Disconnect()]
    assert server.feed(bytes(100_000)) == []
    assert server.pending == 0
    assert server.failed is None


def test_a_request_with_another_magic_is_the_end() -> None:
    server = connected()
    events = server.feed(request(FLUSH, 1) + bytes(28) + request(FLUSH, 2))
    assert events == [Flush(1)]
    assert server.failed is not None
    for _ in range(2):
        with pytest.raises(NbdError, match="magic; expected 0x25609513, found 0x0") as caught:
            server.get_buffer()
        assert caught.value is server.failed
        with pytest.raises(NbdError):
            server.buffer_updated(0)


def test_replies() -> None:
    assert reply(7) == bytes.fromhex("67446698 00000000 0000000000000007")
    assert reply(2**64 - 1, Errno.ENOSPC) == bytes.fromhex("67446698 0000001c ffffffffffffffff")
    assert reply(1, errno.EXDEV) == reply(1, Errno.EIO)


@pytest.mark.parametrize(
    ("number", "sent_as"),
    [
        (0, 0),
        *[(known, known) for known in (1, 5, 12, 22, 28, 75, 95, 108)],
        (errno.EDQUOT, ENOSPC),
        (errno.EFBIG, ENOSPC),
        (errno.EROFS, client.EPERM),
        (errno.EACCES, client.EPERM),
        (errno.EREMOTEIO, client.EIO),
        (-1, client.EIO),
    ],
)
def test_errors_of_the_host_become_those_of_the_protocol(number: int, sent_as: int) -> None:
    assert error_of(number) == sent_as


def test_read_data_is_passed_on_and_not_copied() -> None:
    data = memoryview(bytearray(b"d" * 512))
    header, passed = read_reply(Read(3, 0, 512), data)
    assert header == reply(3)
    assert passed is data


def test_read_data_of_wider_items_is_counted_in_bytes() -> None:
    numbers = np.arange(64, dtype=np.uint64)
    _, passed = read_reply(Read(3, 0, 512), memoryview(numbers))
    assert passed == numbers.tobytes()
    assert len(passed) == 512


def test_read_data_of_another_length_is_not_sent() -> None:
    with pytest.raises(NbdError, match="expected 512 bytes, found 511"):
        read_reply(Read(3, 0, 512), bytes(511))
