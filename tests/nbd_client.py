"""The client's side of the NBD protocol, as tests need it: what a client sends, and what a server's bytes mean. Written from
the specification and without the server's tables, so that both can't be wrong in the same way."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from remus_agent.errors import NbdError
from remus_agent.protocol.nbd.messages import Disconnect, Event, Export, Read, Send, Write
from remus_agent.protocol.nbd.server import NbdServer

EXPORT = Export("xvda", 64 << 20, 512)

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META = range(1, 11)
ACK, SERVER, ABOUT = 1, 2, 3
ERR_UNSUP, ERR_INVALID, ERR_UNKNOWN = 0x80000001, 0x80000003, 0x80000006
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
FUA, NO_HOLE = 1, 2
LIMIT = 32 << 20


def flags(value: int = 3) -> bytes:
    """Client flags; fixed newstyle without zeroes unless told otherwise."""
    return struct.pack(">I", value)


def option(number: int, data: bytes = b"", length: int | None = None) -> bytes:
    """An option. length: announce this many bytes instead of what there is."""
    return b"IHAVEOPT" + struct.pack(">II", number, len(data) if length is None else length) + data


def about(name: str = EXPORT.name, infos: Sequence[int] = (3,)) -> bytes:
    """Data of INFO and GO."""
    raw = name.encode()
    return struct.pack(">I", len(raw)) + raw + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def go(name: str = EXPORT.name) -> bytes:
    """A whole handshake."""
    return flags() + option(GO, about(name))


def request(command: int, handle: int, offset: int = 0, length: int = 0, flag: int = 0, data: bytes = b"") -> bytes:
    """A request with its data."""
    return struct.pack(">IHHQQI", 0x25609513, flag, command, handle, offset, length) + data


def write(handle: int, offset: int, data: bytes, flag: int = 0) -> bytes:
    """A write."""
    return request(WRITE, handle, offset, len(data), flag, data)


@dataclass(frozen=True)
class OptionAnswer:
    """One answer to an option."""

    option: int
    kind: int
    data: bytes


def option_answers(data: bytes) -> list[OptionAnswer]:
    """What a server says to options other than EXPORT_NAME."""
    found = []
    while data:
        magic, number, kind, length = struct.unpack_from(">QIII", data)
        assert magic == 0x3E889045565A9
        assert len(data) >= 20 + length
        found.append(OptionAnswer(number, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def simple_replies(data: bytes) -> list[tuple[int, int]]:
    """Handle and error of replies without data."""
    assert len(data) % 16 == 0
    found = []
    for magic, error, handle in struct.iter_unpack(">IIQ", data):
        assert magic == 0x67446698
        found.append((handle, error))
    return found


def sent(events: Sequence[Event]) -> bytes:
    """All that a server says by itself."""
    return b"".join(event.data for event in events if isinstance(event, Send))


def connected(export: Export = EXPORT) -> NbdServer:
    """A server that is through with the handshake."""
    server = NbdServer(export)
    server.feed(go(export.name))
    assert server.negotiated
    return server


def receive(server: NbdServer, data: bytes, sizes: Sequence[int]) -> list[Event]:
    """Through get_buffer and buffer_updated, as from a transport that receives at most sizes[i] bytes at a time. An NbdError
    ends it; it is in server.failed."""
    found: list[Event] = []
    view, turn = memoryview(data), 0
    while view.nbytes and server.failed is None:
        room = server.get_buffer(-1)
        assert len(room) > 0
        count = min(len(room), len(view), sizes[turn % len(sizes)])
        room[:count] = view[:count]
        view, turn = view[count:], turn + 1
        try:
            found += server.buffer_updated(count)
        except NbdError as error:
            assert server.failed is error
    return found


def encode(event: Event) -> bytes:
    """The bytes of the request that an event stands for."""
    if isinstance(event, Write):
        return write(event.handle, event.offset, bytes(event.data), FUA * event.fua)
    if isinstance(event, Read):
        return request(READ, event.handle, event.offset, event.length)
    if isinstance(event, Disconnect):
        return request(DISC, 0)
    kind = {"Flush": FLUSH, "Trim": TRIM, "WriteZeroes": WRITE_ZEROES}[type(event).__name__]
    offset, length = getattr(event, "offset", 0), getattr(event, "length", 0)
    flag = FUA * getattr(event, "fua", False) | NO_HOLE * getattr(event, "no_hole", False)
    return request(kind, getattr(event, "handle", 0), offset, length, flag)
