"""Numbers of the NBD protocol. Everything on the wire is big-endian (NBD protocol, "Conventions")."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

NBD_MAGIC: Final = 0x4E42444D41474943
"""`NBDMAGIC`, first in the greeting ("Newstyle negotiation")."""
OPTION_MAGIC: Final = 0x49484156454F5054
"""`IHAVEOPT`, in the greeting and in front of each option ("Newstyle negotiation")."""
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
"""In front of each answer to an option ("Fixed newstyle negotiation")."""
REQUEST_MAGIC: Final = 0x25609513
"""In front of each request ("Request message")."""
REPLY_MAGIC: Final = 0x67446698
"""In front of each reply ("Simple reply message")."""

GREETING: Final = struct.Struct(">QQH")
"""NBD_MAGIC, OPTION_MAGIC, handshake flags."""
CLIENT_FLAGS: Final = struct.Struct(">I")
OPTION: Final = struct.Struct(">QII")
"""OPTION_MAGIC, option, length of its data."""
OPTION_REPLY: Final = struct.Struct(">QIII")
"""OPTION_REPLY_MAGIC, option, reply type, length of its data."""
REQUEST: Final = struct.Struct(">IHHQQI")
"""REQUEST_MAGIC, command flags, command, handle, offset, length."""
REPLY: Final = struct.Struct(">IIQ")
"""REPLY_MAGIC, error, handle."""

MAX_PAYLOAD_BYTES: Final = 32 * 1024 * 1024
"""Most data of one request or reply ("Size constraints": no server should offer less). The Linux client asks for as much at
the most."""
MAX_OPTION_BYTES: Final = 8 * 1024
"""Most data of one option: the longest name and some 2000 information requests. The protocol has no limit of its own."""
MAX_NAME_BYTES: Final = 4096
"""Longest string ("Conventions")."""
PREFERRED_BLOCK_BYTES: Final = 4096
MAX_BLOCK_BYTES: Final = 65536
"""Largest minimum block size ("Size constraints")."""


class HandshakeFlag(IntFlag):
    """ "Handshake flags" and "Client flags"; both have the same values."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """What an export can do ("Transmission flags")."""

    HAS_FLAGS = 1 << 0
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6


class Option(IntEnum):
    """Options that are known, not all of them supported ("Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8


class OptionReply(IntEnum):
    """Answers to an option ("Option reply types")."""

    ACK = 1
    SERVER = 2
    INFO = 3
    ERR_UNSUP = 2**31 + 1
    ERR_INVALID = 2**31 + 3
    ERR_UNKNOWN = 2**31 + 6


class Info(IntEnum):
    """Kinds of information about an export ("Option reply types", NBD_REP_INFO)."""

    EXPORT = 0
    BLOCK_SIZE = 3


class Command(IntEnum):
    """Requests ("Request types")."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


class CommandFlag(IntFlag):
    """Flags of a request that are supported ("Command flags")."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1


class Errno(IntEnum):
    """All errors that a reply may have ("Error values"). The numbers are the protocol's, whatever the host's are."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108
