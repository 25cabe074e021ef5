"""The handshake: what a server says first, and its answers to the options of a client.

One export, no TLS, no structured replies. A client that asks for something else is told so and may go on asking.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Final

from remus_agent.errors import NbdError
from remus_agent.protocol.nbd.constants import (
    GREETING,
    MAX_PAYLOAD_BYTES,
    NBD_MAGIC,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
)
from remus_agent.protocol.nbd.messages import TRANSMISSION_FLAGS, Export

_OFFERED: Final = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
_NAME_LENGTH: Final = struct.Struct(">I")
_COUNT: Final = struct.Struct(">H")
_ZEROES: Final = bytes(124)
"""Reserved bytes after the answer to EXPORT_NAME ("Newstyle negotiation")."""

GREETING_BYTES: Final = GREETING.pack(NBD_MAGIC, OPTION_MAGIC, _OFFERED)
"""What the server sends first ("Newstyle negotiation")."""


class Phase(Enum):
    """What a client sends next ("Protocol phases")."""

    FLAGS = "its flags"
    OPTIONS = "options"
    REQUESTS = "requests"
    CLOSED = "nothing"


def takes_no_zeroes(flags: int) -> bool:
    """Whether a client with these flags wants no reserved bytes. FIXED_NEWSTYLE is honoured from clients that did not set
    it, as "Client flags" allows.

    Raises NbdError for flags that were not offered; the connection has to be dropped then.
    """
    if flags & ~_OFFERED:
        raise _bad("the client has unknown flags", expected=f"only {_OFFERED:#x}", found=f"{flags:#x}")
    return bool(flags & HandshakeFlag.NO_ZEROES)


def answer(export: Export, number: int, data: bytes, *, no_zeroes: bool) -> tuple[bytes, Phase]:
    """The answer to an option and what the client sends after it ("Option types").

    Raises NbdError for EXPORT_NAME with another name: it can't be answered with an error, the session has to be ended.
    """
    if number == Option.EXPORT_NAME:
        if data != export.name.encode():
            raise _bad("the client asks for an unknown export", expected=repr(export.name), found=_shown(data))
        end = b"" if no_zeroes else _ZEROES
        return struct.pack(">QH", export.size, TRANSMISSION_FLAGS) + end, Phase.REQUESTS
    if number == Option.ABORT:  # data is ignored, as the protocol asks
        return _pack(number, OptionReply.ACK), Phase.CLOSED
    if number in (Option.INFO, Option.GO):
        return _about(export, number, data)
    if number in (Option.LIST, Option.STARTTLS, Option.STRUCTURED_REPLY) and data:
        return _refusal(number, OptionReply.ERR_INVALID, "this option has no data"), Phase.OPTIONS
    if number == Option.LIST:
        name = export.name.encode()
        listed = _pack(number, OptionReply.SERVER, _NAME_LENGTH.pack(len(name)) + name)
        return listed + _pack(number, OptionReply.ACK), Phase.OPTIONS
    return _refusal(number, OptionReply.ERR_UNSUP, "this option is not supported"), Phase.OPTIONS


def _about(export: Export, number: int, data: bytes) -> tuple[bytes, Phase]:
    """The answer to INFO and GO. Block sizes are told to everyone, as they are enforced; what else is asked for is left
    out, as the protocol allows."""
    name = _name_asked_for(data)
    if name is None:
        return _refusal(number, OptionReply.ERR_INVALID, "the lengths do not fit the data"), Phase.OPTIONS
    if name != export.name.encode():
        text = f"there is no export of this name, only {export.name!r}"
        return _refusal(number, OptionReply.ERR_UNKNOWN, text), Phase.OPTIONS
    about = struct.pack(">HQH", Info.EXPORT, export.size, TRANSMISSION_FLAGS)
    sizes = struct.pack(">HIII", Info.BLOCK_SIZE, export.block, export.preferred, MAX_PAYLOAD_BYTES)
    parts = (
        _pack(number, OptionReply.INFO, about),
        _pack(number, OptionReply.INFO, sizes),
        _pack(number, OptionReply.ACK),
    )
    return b"".join(parts), Phase.REQUESTS if number == Option.GO else Phase.OPTIONS


def _name_asked_for(data: bytes) -> bytes | None:
    """The name in the data of INFO and GO, None where its lengths contradict each other."""
    if len(data) < _NAME_LENGTH.size + _COUNT.size:
        return None
    (length,) = _NAME_LENGTH.unpack_from(data)
    end = _NAME_LENGTH.size + length
    if end + _COUNT.size > len(data):
        return None
    (count,) = _COUNT.unpack_from(data, end)
    return data[_NAME_LENGTH.size : end] if end + _COUNT.size * (1 + count) == len(data) else None


def _pack(number: int, kind: OptionReply, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, number, kind, len(data)) + data


def _refusal(number: int, kind: OptionReply, text: str) -> bytes:
    """An error; its data is a text for people ("Option reply types")."""
    return _pack(number, kind, text.encode())


def _shown(data: bytes) -> str:
    """A name as it can stand in a message."""
    return repr(data[:80].decode(errors="backslashreplace")) + ("…" if len(data) > 80 else "")


def _bad(message: str, *, expected: str, found: str) -> NbdError:
    return NbdError(message, expected=expected, found=found, operation="NBD handshake")
