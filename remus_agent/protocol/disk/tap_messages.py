"""What an agent and the process of one of its write taps say to each other, as bytes: a message, and behind some of them data.

    u32 length of the message, u32 length of the data, the message (msgpack), the data

There are four conversations, each a connection of its own, so that none waits for another: one that commands, one that ends
epochs, one that asks for the pieces of a session, and the copier's. In each the agent speaks; every request has one answer, in
order, but for those of NOT_ANSWERED. Both ends are of one release (Setup.release is checked) and trust each other.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from remus_agent.errors import ProtocolError

HEAD: Final = struct.Struct("<II")
MOST_MESSAGE: Final = 1 << 16
MOST_DATA: Final = 1 << 30


class _Message(msgspec.Struct, frozen=True, tag=True):
    """Its name says what it is."""


class Setup(_Message, frozen=True, kw_only=True):
    """The disk: of which domain, its name in the guest, the name of its mapper device, its size and sector in bytes. device: the
    local one. map_path: file of its region map; keep: use the one that is there if it is sound. socket: where to serve.
    log_bytes, early_bytes: limits of the log. Answered by Ready."""

    release: str
    domain: str
    vdev: str
    name: str
    size: int
    block: int
    device: str
    map_path: str
    keep: bool
    socket: str
    log_bytes: int
    early_bytes: int


class Serve(_Message, frozen=True):
    """Listen for the kernel, who has let go of an earlier connection. Answered by Done."""


class Hush(_Message, frozen=True):
    """Serve no more, until Serve. Answered by Done."""


class Look(_Message, frozen=True):
    """Does the kernel hold its end, and has never let go of it since Serve? Answered by Seen."""


class Begin(_Message, frozen=True):
    """disk_ports.WriteTap.begin. Answered by Begun."""

    same_base: bool


class Barrier(_Message, frozen=True):
    """disk_ports.WriteTap.barrier. Answered by Done, once the epoch has ended."""

    epoch: int


class Committed(_Message, frozen=True):
    """disk_ports.WriteTap.committed. Not answered; if it is wrong, the session ends."""

    epoch: int


class End(_Message, frozen=True):
    """disk_ports.WriteTap.end. Not answered."""


class Lose(_Message, frozen=True):
    """md does not use the tap any more: as if the kernel had let go of it. Not answered."""


class Next(_Message, frozen=True):
    """The next piece of this session. Answered by Data or Ended, when there is one."""

    session: int


class NextRun(_Message, frozen=True):
    """What the copier of this session has to read next. Answered by Run, once the log is not crowded. The copier has the local
    device open from then on, until Rest."""

    session: int


class CopyRun(_Message, frozen=True):
    """Read this of the local device and log it. theirs: digests of the backup's regions; what is equal is not logged. Answered by
    Copied."""

    session: int
    offset: int
    length: int
    theirs: bytes | None


class Rest(_Message, frozen=True):
    """The copier lets go of the local device. Not answered."""


class Ready(_Message, frozen=True):
    """map_id: identity of the region map."""

    map_id: str


class Done(_Message, frozen=True):
    """As asked."""


class Seen(_Message, frozen=True):
    """serving: as asked by Look."""

    serving: bool


class Progress(msgspec.Struct, frozen=True):
    """disk_ports.CopyProgress"""

    done: int
    total: int
    sent: int


class Begun(_Message, frozen=True):
    """session: its number."""

    session: int
    progress: Progress


class Data(_Message, frozen=True):
    """disk_ports.DiskData; the payload is behind the message."""

    epoch: int


class Ended(_Message, frozen=True):
    """disk_ports.DiskEnd"""

    epoch: int
    data_bytes: int
    extents: int
    digest: bytes


class Run(_Message, frozen=True):
    """length 0: nothing is left to be copied."""

    offset: int
    length: int


class Copied(_Message, frozen=True):
    """How far the copier is."""

    progress: Progress


class Failed(_Message, frozen=True, kw_only=True):
    """In place of the answer: facts of a DiskError."""

    message: str
    operation: str | None = None
    domain: str | None = None
    epoch: int | None = None
    left: str | None = None
    hint: str | None = None


Request = Setup | Serve | Hush | Look | Begin | Barrier | Committed | End | Lose | Next | NextRun | CopyRun | Rest
Answer = Ready | Done | Seen | Begun | Data | Ended | Run | Copied | Failed
NOT_ANSWERED: Final = (Committed, End, Lose, Rest)

_ENCODER: Final = msgspec.msgpack.Encoder()
_REQUESTS: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer, data_bytes: int = 0) -> bytes:
    """A message, and how many bytes of data will follow it."""
    packed = _ENCODER.encode(message)
    return HEAD.pack(len(packed), data_bytes) + packed


def lengths(head: bytes | bytearray) -> tuple[int, int]:
    """Of the message and of the data behind a head. Raises ProtocolError."""
    message, data = HEAD.unpack(head)
    if not 0 < message <= MOST_MESSAGE or data > MOST_DATA:
        raise ProtocolError(f"{message} and {data} bytes were announced", operation="talk to a tap")
    return message, data


def request(message: bytes | bytearray) -> Request:
    """Decode what an agent says. Raises ProtocolError."""
    try:
        return _REQUESTS.decode(message)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"a request cannot be read: {error}", operation="talk to a tap") from error


def answer(message: bytes | bytearray) -> Answer:
    """Decode what a tap answers. Raises ProtocolError."""
    try:
        return _ANSWERS.decode(message)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"an answer cannot be read: {error}", operation="talk to a tap") from error
