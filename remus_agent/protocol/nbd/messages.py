"""An export, the requests of its client and the replies to them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from remus_agent.errors import NbdError
from remus_agent.protocol.nbd.constants import (
    MAX_BLOCK_BYTES,
    MAX_NAME_BYTES,
    MAX_PAYLOAD_BYTES,
    PREFERRED_BLOCK_BYTES,
    REPLY,
    REPLY_MAGIC,
    Command,
    CommandFlag,
    Errno,
    TransmissionFlag,
)
from remus_agent.protocol.replication.frames import Buffer

TRANSMISSION_FLAGS: Final = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
)
"""What every export offers. One connection only, so CAN_MULTI_CONN is not set; DF needs structured replies."""

_FLAGS: Final[dict[int, int]] = {
    Command.READ: int(CommandFlag.FUA),
    Command.WRITE: int(CommandFlag.FUA),
    Command.FLUSH: int(CommandFlag.FUA),
    Command.TRIM: int(CommandFlag.FUA),
    Command.WRITE_ZEROES: int(CommandFlag.FUA | CommandFlag.NO_HOLE),
}
"""Flags that each command may have, as plain numbers: what ~ makes of a flag depends on Python's version, and each request is
held against them. FUA has to be accepted on all of them ("Command flags")."""

_MAPPED: Final[dict[int, Errno]] = {
    errno.EACCES: Errno.EPERM,
    errno.EROFS: Errno.EPERM,
    errno.EDQUOT: Errno.ENOSPC,
    errno.EFBIG: Errno.ENOSPC,
}


@dataclass(frozen=True, slots=True)
class Export:
    """The one disk that is served. name: what a client has to ask for; an empty one makes it the default export. size: bytes.
    block: logical sector size in bytes; offsets and lengths of all requests are multiples of it.

    Raises NbdError for what the protocol can't describe ("Conventions", "Size constraints").
    """

    name: str
    size: int
    block: int

    def __post_init__(self) -> None:
        if not 1 <= self.block <= MAX_BLOCK_BYTES or self.block & (self.block - 1):
            raise _unfit("block size", f"a power of 2 up to {MAX_BLOCK_BYTES}", self.block)
        if self.size <= 0 or self.size >= 2**63 or self.size % self.block:
            raise _unfit("size", f"a multiple of {self.block} from {self.block} up", self.size)
        try:
            length = len(self.name.encode())
        except UnicodeEncodeError:
            raise _unfit("name", "a name that can be written in UTF-8", ascii(self.name)) from None
        if length > MAX_NAME_BYTES or "\0" in self.name:
            raise _unfit("name", f"up to {MAX_NAME_BYTES} bytes without NUL", f"{length} bytes: {self.name[:40]!r}")

    @property
    def preferred(self) -> int:
        """Preferred block size in bytes ("Size constraints")."""
        return max(PREFERRED_BLOCK_BYTES, self.block)

    def refuses(self, command: int, flags: int, offset: int, length: int) -> Errno | None:
        """Why a request other than DISC can't be served, None if it can ("Size constraints", "Error values").

        Requests of length 0 are refused, which the protocol leaves open. TRIM and WRITE_ZEROES may be longer than
        MAX_PAYLOAD_BYTES: nothing travels with them.
        """
        allowed = _FLAGS.get(command)
        if allowed is None or flags & ~allowed:
            return Errno.EINVAL
        if command == Command.FLUSH:
            return Errno.EINVAL if offset or length else None
        if not length or (offset | length) & (self.block - 1):
            return Errno.EINVAL
        if offset + length > self.size:
            return Errno.ENOSPC if command in (Command.WRITE, Command.WRITE_ZEROES) else Errno.EINVAL
        if length > MAX_PAYLOAD_BYTES and command in (Command.READ, Command.WRITE):
            return Errno.EINVAL
        return None


def _unfit(what: str, expected: str, found: object) -> NbdError:
    return NbdError(f"{what} of an export", expected=expected, found=str(found), operation="make export")


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the client, to be sent before what is answered later: an answer of the handshake, or the refusal of a
    request that broke a limit."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Answer with `read_reply`, or with `reply` and an error. handle: the client's name for the request, unique among those
    without a reply. offset, length: bytes, inside of the export and aligned, here and below."""

    handle: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Write:
    """Answer with `reply` once the data is written. fua: only once it is durable. data: read-only, in memory of its own that
    nobody else uses; at least one byte, at most MAX_PAYLOAD_BYTES."""

    handle: int
    offset: int
    data: memoryview
    fua: bool = False

    @property
    def length(self) -> int:
        """Bytes of data."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Flush:
    """Answer with `reply` once all writes, trims and zeroes that were answered before are durable."""

    handle: int


@dataclass(frozen=True, slots=True)
class Trim:
    """The client needs the content no longer; it may become anything. length: up to 4 GiB. Answer with `reply`."""

    handle: int
    offset: int
    length: int
    fua: bool = False


@dataclass(frozen=True, slots=True)
class WriteZeroes:
    """Write zeroes. length: up to 4 GiB. no_hole: the room has to stay allocated. Answer with `reply`."""

    handle: int
    offset: int
    length: int
    fua: bool = False
    no_hole: bool = False


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client is done: answer what is outstanding, then close the connection. Nothing follows."""


Request = Read | Write | Flush | Trim | WriteZeroes | Disconnect
Event = Send | Request


def error_of(number: int) -> int:
    """What stands for an errno of this host in a reply: 0 and the protocol's own errors as they are, EDQUOT and EFBIG as
    ENOSPC ("Error values"), what forbids writing as EPERM, every other one as EIO."""
    if not number:
        return 0
    try:
        return Errno(number)
    except ValueError:
        return _MAPPED.get(number, Errno.EIO)


def reply(handle: int, error: int = 0) -> bytes:
    """The reply to a request, without data ("Simple reply message"). error: an `Errno` or an errno of this host, 0 for
    success of anything but a Read."""
    return REPLY.pack(REPLY_MAGIC, error_of(error) if error else 0, handle)


def read_reply(request: Read, data: Buffer) -> list[Buffer]:
    """The successful reply to a Read, as buffers to send in order; data is passed on, never copied.

    Raises NbdError for data of another length than was asked for: the client would take the next reply for data.
    """
    view = memoryview(data)
    if view.nbytes != request.length:
        raise NbdError(
            "data of a read", expected=f"{request.length} bytes", found=str(view.nbytes), operation="reply to a read"
        )
    flat = view.ndim == 1 and view.itemsize == 1 and view.contiguous
    return [REPLY.pack(REPLY_MAGIC, 0, request.handle), data if flat else view.cast("B")]
