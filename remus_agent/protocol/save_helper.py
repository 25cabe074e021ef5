"""What Xen's `libxl-save-helper --save-domain` says on its standard output, what it is answered, how it is started.

A message is u16 length, then as many bytes: u16 number and arguments. A string is u32 length with its NUL, then the bytes.
The helper waits after a callback and after COMPLETE until one int has come on its standard input: the callback's
return value. Numbers are in the host's byte order, which on x86 is little-endian.

Sources in Xen, 4.14 to 4.20 alike: tools/libs/light/libxl_save_msgs_gen.pl (messages, flags), libxl_save_helper.c
(framing, arguments), tools/include/xenguest.h (what the callbacks may return), xentoollog.h (levels).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from remus_agent.errors import ProtocolError

CONTINUE: Final = 1
"""Answer to a callback: go on."""
STOP: Final = 0
"""Answer to a callback: end here and clean up (log-dirty off), then COMPLETE."""

_LENGTH: Final = struct.Struct("<H")
_NUMBER: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_REPLY: Final = struct.Struct("<i")
_XCFLAGS_LIVE: Final = 1
_STREAM_REMUS: Final = 1
_NO_BACK_CHANNEL: Final = -1


class Callback(IntEnum):
    """Messages without arguments after which the helper waits for an answer."""

    SUSPEND = 3
    POSTCOPY = 4
    CHECKPOINT = 5
    WAIT_CHECKPOINT = 6


class _Number(IntEnum):
    """The other messages of a helper that saves."""

    LOG = 1
    PROGRESS = 2
    SWITCH_QEMU_LOGDIRTY = 7
    COMPLETE = 10


class LogLevel(IntEnum):
    """xentoollog's levels from the first that is meant for people; those below are for debugging."""

    INFO = 5
    NOTICE = 6
    WARN = 7
    ERROR = 8
    CRITICAL = 9


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log. level: xentoollog's; error: an errno or 0 or -1; context: the library that says it."""

    level: int
    error: int
    context: str
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. total 0: just a remark."""

    context: str
    doing: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class SwitchQemuLogDirty:
    """The device model of an HVM guest shall note what it writes to (enable) or shall not; waits for an answer, 0 is
    success."""

    domid: int
    enable: bool


@dataclass(frozen=True, slots=True)
class Complete:
    """xc_domain_save has returned: status 0 or an error with its errno. Waits for any answer, then exits."""

    status: int
    error: int


Message = Log | Progress | Callback | SwitchQemuLogDirty | Complete

CALLBACKS: Final = sum(
    1 << number for number in (Callback.SUSPEND, Callback.POSTCOPY, Callback.CHECKPOINT, _Number.SWITCH_QEMU_LOGDIRTY)
)
"""Bits of the callbacks that a checkpointed save needs (184)."""


def arguments(io_fd: int, domid: int) -> list[str]:
    """What follows the helper's name to take checkpoints of a running domain. io_fd: where it writes the stream."""
    numbers = (io_fd, _NO_BACK_CHANNEL, domid, _XCFLAGS_LIVE, CALLBACKS, _STREAM_REMUS)
    return ["--save-domain", *map(str, numbers)]


def reply(value: int) -> bytes:
    """The answer to a callback or to COMPLETE."""
    return _REPLY.pack(value)


class Decoder:
    """Messages from bytes that arrive in any pieces. It holds one message at most, 64 KiB; after an error it stays dead."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._failed: ProtocolError | None = None

    @property
    def inside(self) -> bool:
        """True when a message has begun and is not whole."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes, return the messages that are complete now. Raises ProtocolError."""
        if self._failed is not None:
            raise self._failed
        self._held += data
        found: list[Message] = []
        start = 0
        try:
            while len(self._held) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._held, start)
                end = start + _LENGTH.size + length
                if end > len(self._held):
                    break
                found.append(_parse(bytes(self._held[start + _LENGTH.size : end])))
                start = end
        except ProtocolError as error:
            self._failed = error
            self._held.clear()
            raise
        del self._held[:start]
        return found


class _Fields:
    """Arguments of one message, taken from the front."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def take(self, layout: struct.Struct) -> int:
        end = self._at + layout.size
        if end > len(self._body):
            raise _broken(f"a message of {len(self._body)} bytes ends inside a number", self._body)
        (value,) = layout.unpack_from(self._body, self._at)
        self._at = end
        return int(value)

    def text(self) -> str:
        length = self.take(_U32)
        raw = self._body[self._at : self._at + length]
        if len(raw) < length or not raw.endswith(b"\0"):
            raise _broken(f"a string of {length} bytes is cut off or has no NUL", self._body)
        self._at += length
        return raw[:-1].decode(errors="replace")

    def end(self) -> None:
        if self._at != len(self._body):
            raise _broken(f"{len(self._body) - self._at} bytes follow the arguments of a message", self._body)


_INT: Final = struct.Struct("<i")
_ULONG: Final = struct.Struct("<Q")


def _log(fields: _Fields) -> Message:
    # errnoval is passed as unsigned; libraries say -1 for "no errno".
    level, error = fields.take(_U32), fields.take(_INT)
    return Log(level, error, fields.text(), fields.text())


def _progress(fields: _Fields) -> Message:
    return Progress(fields.text(), fields.text(), fields.take(_ULONG), fields.take(_ULONG))


def _switch(fields: _Fields) -> Message:
    return SwitchQemuLogDirty(fields.take(_U32), bool(fields.take(_U32)))


def _complete(fields: _Fields) -> Message:
    return Complete(fields.take(_INT), fields.take(_INT))


_PARSERS: Final[dict[int, Callable[[_Fields], Message]]] = {
    _Number.LOG: _log,
    _Number.PROGRESS: _progress,
    _Number.SWITCH_QEMU_LOGDIRTY: _switch,
    _Number.COMPLETE: _complete,
}


def _parse(body: bytes) -> Message:
    fields = _Fields(body)
    number = fields.take(_NUMBER)
    message: Message
    if number in tuple(Callback):
        message = Callback(number)
    elif number in _PARSERS:
        message = _PARSERS[number](fields)
    else:
        raise _broken(f"message {number} is none that a helper sends while it saves", body)
    fields.end()
    return message


def _broken(what: str, body: bytes) -> ProtocolError:
    return ProtocolError(
        f"{what} (it begins with {body[:16].hex() or 'nothing'})",
        operation="read the save helper's messages",
        hint="this libxl-save-helper speaks another protocol; install the xen-utils of the running Xen",
    )
