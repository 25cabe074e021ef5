"""Received bytes to events: `NbdServer`, one for each connection.

    server = NbdServer(export)          send server.greeting, then for everything that arrives:
    count = receive into server.get_buffer()
    for event in server.buffer_updated(count): send the bytes of a Send, carry out a request and answer it

The data of a write is received in the place where it stays, memory of its own for each request. Lengths are held against
the limits before anything is allocated: a connection holds _SCRATCH_BYTES and the data of one incomplete write. How many
unanswered requests a client may have, and how long a handshake may take, is for the caller to limit.
"""

from __future__ import annotations

from typing import Final

from remus_agent.errors import NbdError
from remus_agent.protocol.in_place import InPlaceDecoder
from remus_agent.protocol.nbd.constants import (
    CLIENT_FLAGS,
    MAX_OPTION_BYTES,
    OPTION,
    OPTION_MAGIC,
    REQUEST,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
)
from remus_agent.protocol.nbd.handshake import GREETING_BYTES, Phase, answer, takes_no_zeroes
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
    reply,
)

_SCRATCH_BYTES: Final = 64 * 1024
"""The handshake, requests and small writes arrive here, several in one read (15 of 4 KiB); at most so much of a large write is
copied once, which costs less than another read. A whole option has to fit."""
_FUA: Final = int(CommandFlag.FUA)
_NO_HOLE: Final = int(CommandFlag.NO_HOLE)
"""As plain numbers: arithmetic with flags costs as much as the rest of a request."""


class NbdServer(InPlaceDecoder[Event, NbdError]):
    """One connection of a client to an export, in any chunking.

    Broken rules that the protocol has an answer for are answered: options with an error reply, requests with an errno (the
    data of a refused write is dropped as it comes). Everything else is an NbdError. After a Disconnect everything is ignored.
    """

    _error = NbdError

    greeting: Final = GREETING_BYTES
    """To be sent first."""

    def __init__(self, export: Export) -> None:
        super().__init__()
        self.export = export
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._scratch_view = memoryview(self._scratch)
        self._held = 0  # bytes of an incomplete message at the start of the scratch
        self._phase = Phase.FLAGS
        self._no_zeroes = False
        self._write: tuple[int, int, bool] | None = None  # handle, offset, fua of a write whose data is incomplete
        self._data = memoryview(b"")
        self._filled = 0
        self._refusal = b""  # reply to a refused write, sent when all its data has come
        self._to_drop = 0
        self._dropped = 0

    @property
    def negotiated(self) -> bool:
        """Whether the handshake has led to the transmission phase (which may have ended since)."""
        return self._phase is Phase.REQUESTS

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete yet, 0 between messages. An end of the connection with pending bytes is a
        truncation, one without them and without a Disconnect is what a client does that died or dropped the connection."""
        if self._write is not None:
            return REQUEST.size + self._filled
        if self._to_drop:
            return REQUEST.size + self._dropped
        return self._held

    def _room(self) -> memoryview:
        if self._write is not None:
            return self._data[self._filled :]
        return self._scratch_view[self._held :]

    def _took(self, count: int, items: list[Event]) -> None:
        if self._write is not None:
            self._filled += count
            self._finish_write(items)
        else:
            self._take_scratch(self._held + count, items)

    def _take_scratch(self, end: int, events: list[Event]) -> None:
        start = 0
        while start < end:
            used = self._step(start, end, events)
            if not used:
                break
            start += used
        self._held = end - start
        if start and self._held:
            self._scratch[: self._held] = self._scratch[start:end]

    def _step(self, start: int, end: int, events: list[Event]) -> int:
        """Take one message, or a part of a write's data, from the scratch; the number of bytes taken, 0 where more have to
        come first."""
        room = end - start
        if self._to_drop:
            return self._drop(min(self._to_drop, room), events)
        if self._phase is Phase.REQUESTS:
            return self._request(start, end, events) if room >= REQUEST.size else 0
        if self._phase is Phase.OPTIONS:
            return self._option(start, end, events) if room >= OPTION.size else 0
        if self._phase is Phase.FLAGS:
            if room < CLIENT_FLAGS.size:
                return 0
            self._no_zeroes = takes_no_zeroes(CLIENT_FLAGS.unpack_from(self._scratch, start)[0])
            self._phase = Phase.OPTIONS
            return CLIENT_FLAGS.size
        return room

    def _option(self, start: int, end: int, events: list[Event]) -> int:
        magic, number, length = OPTION.unpack_from(self._scratch, start)
        if magic != OPTION_MAGIC:
            raise _bad("an option starts with the wrong magic", f"{OPTION_MAGIC:#x}", f"{magic:#x}", "NBD handshake")
        if length > MAX_OPTION_BYTES:
            raise _bad(f"data of option {number}", f"at most {MAX_OPTION_BYTES} bytes", str(length), "NBD handshake")
        start += OPTION.size
        if end - start < length:
            return 0
        data = bytes(self._scratch_view[start : start + length])
        said, self._phase = answer(self.export, number, data, no_zeroes=self._no_zeroes)
        events.append(Send(said))
        if self._phase is Phase.CLOSED:
            events.append(Disconnect())
        return OPTION.size + int(length)

    def _request(self, start: int, end: int, events: list[Event]) -> int:
        """Take a request, of a write as much of its data as there is ("Request message")."""
        magic, flags, command, handle, offset, length = REQUEST.unpack_from(self._scratch, start)
        if magic != REQUEST_MAGIC:
            raise _bad("a request starts with the wrong magic", f"{REQUEST_MAGIC:#x}", f"{magic:#x}", "NBD request")
        if command == Command.DISC:
            self._phase = Phase.CLOSED
            events.append(Disconnect())
            return REQUEST.size
        error = self.export.refuses(command, flags, offset, length)
        if error is not None:
            self._refuse(reply(handle, error), length if command == Command.WRITE else 0, events)
            return REQUEST.size
        fua = bool(flags & _FUA)
        if command == Command.WRITE:
            return REQUEST.size + self._begin_write(handle, offset, length, start + REQUEST.size, end, events, fua=fua)
        if command == Command.READ:
            events.append(Read(handle, offset, length))
        elif command == Command.FLUSH:
            events.append(Flush(handle))
        elif command == Command.TRIM:
            events.append(Trim(handle, offset, length, fua))
        else:
            events.append(WriteZeroes(handle, offset, length, fua, bool(flags & _NO_HOLE)))
        return REQUEST.size

    def _begin_write(
        self, handle: int, offset: int, length: int, start: int, end: int, events: list[Event], *, fua: bool
    ) -> int:
        """Take what the scratch has of a write's data, `start` to `end`; the number of bytes taken."""
        if end - start >= length:
            data = memoryview(bytearray(self._scratch_view[start : start + length]))
            events.append(Write(handle, offset, data.toreadonly(), fua))
            return length
        self._write = (handle, offset, fua)
        self._data = memoryview(bytearray(length))
        self._filled = end - start
        self._data[: self._filled] = self._scratch_view[start:end]
        return self._filled

    def _finish_write(self, events: list[Event]) -> None:
        if self._write is None or self._filled < len(self._data):
            return
        handle, offset, fua = self._write
        events.append(Write(handle, offset, self._data.toreadonly(), fua))
        self._write = None
        self._data = memoryview(b"")
        self._filled = 0
        self._held = 0

    def _refuse(self, refusal: bytes, data_bytes: int, events: list[Event]) -> None:
        """Answer a request with an error, after data_bytes that belong to it were dropped."""
        if data_bytes:
            self._refusal, self._to_drop, self._dropped = refusal, data_bytes, 0
        else:
            events.append(Send(refusal))

    def _drop(self, count: int, events: list[Event]) -> int:
        self._to_drop -= count
        self._dropped += count
        if not self._to_drop:
            events.append(Send(self._refusal))
        return count


def _bad(message: str, expected: str, found: str, operation: str) -> NbdError:
    return NbdError(message, expected=expected, found=found, operation=operation)
