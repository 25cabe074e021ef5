"""Frames between two agents: bytes to `Frame` and back, without any input or output of its own.

A frame is a 24-byte little-endian header and a payload:

    magic "RMUS" | type u8 | flags u8 | member u16 | epoch u64 | payload length u32 | check u32

member: whose PREAMBLE or STREAM it is, counted from 0 in the order of HELLO; 0 for a guest alone and in all other frames.

check = crc32(first 20 bytes of the header), and for every type but STREAM and DISK_DATA xor crc32(payload). The
payload of those two is covered by the digest of its epoch (`digest.py`), so its bytes are not read twice.

The length is held against the limit of its type before anything is allocated. `FrameDecoder` hands out the
memory that the transport receives into, so the bytes of a large payload are received in the place where they
stay.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from zlib import crc32

from remus_agent.errors import ReplicationError
from remus_agent.protocol.in_place import Buffer as Buffer  # noqa: PLC0414 - of what frames carry
from remus_agent.protocol.in_place import InPlaceDecoder

MAGIC: Final = b"RMUS"
HEADER: Final = struct.Struct("<4sBBHQII")
HEADER_BYTES: Final = HEADER.size
CHECKED_BYTES: Final = 20
CHECK: Final = struct.Struct("<I")
MAX_EPOCH: Final = 2**64 - 1

FLAG_LAST: Final = 0x01
"""On EPOCH_END: this is the last checkpoint; the primary does not resume its guest."""

_SCRATCH_BYTES: Final = 4096
"""Headers and small frames arrive here, several in one read; at most so much of a large payload is copied
once."""


class FrameType(IntEnum):
    """What a frame is. DISK_... frames travel on a disk's own connection, BEAT on one over the second path."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    PREAMBLE = 4
    STREAM = 5
    EPOCH_END = 6
    MEMORY_ACK = 7
    DISK_ACK = 8
    HEARTBEAT = 9
    STOP = 10
    STOPPED = 11
    DISK_HELLO = 12
    DISK_WELCOME = 13
    DISK_DATA = 14
    DISK_END = 15
    DISK_ASK = 16
    DISK_DIGESTS = 17
    BEAT = 18
    HAND_OVER = 19
    OUTCOME = 20
    ASK_OUTCOME = 21


_DEFAULT_LIMIT: Final = 64 * 1024
_LIMITS: Final = {
    FrameType.STREAM: 8 * 1024 * 1024,
    FrameType.PREAMBLE: 16 * 1024 * 1024,
    FrameType.DISK_DATA: 8 * 1024 * 1024,
}
_COVERED_BY_DIGEST: Final = frozenset({FrameType.STREAM, FrameType.DISK_DATA})
_FLAGS: Final = {FrameType.EPOCH_END: FLAG_LAST}
_OF_MEMBERS: Final = frozenset({FrameType.PREAMBLE, FrameType.STREAM})


def payload_limit(kind: FrameType) -> int:
    """The most payload bytes a frame of this type may have."""
    return _LIMITS.get(kind, _DEFAULT_LIMIT)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. epoch: 0 where the type has none. payload: buffers to send one after the other; a received
    frame has exactly one read-only memoryview, or none when its payload is empty. member: of a group, whose stream it is."""

    type: FrameType
    epoch: int = 0
    flags: int = 0
    payload: Sequence[Buffer] = ()
    member: int = 0

    @property
    def payload_bytes(self) -> int:
        """Length of the payload in bytes."""
        return sum(_bytes_in(part) for part in self.payload)

    @property
    def last(self) -> bool:
        """Whether this EPOCH_END closes the last checkpoint of the session."""
        return bool(self.flags & FLAG_LAST)

    def joined(self) -> bytes:
        """The payload as one bytes object (a copy; for small payloads)."""
        return b"".join(self.payload)


def _bytes_in(part: Buffer) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


def encode(frame: Frame) -> list[Buffer]:
    """The frame as buffers to write in order. Payload buffers are passed on, never copied.

    Raises ReplicationError for what the other side would refuse (payload over its limit, unknown flags, bad
    epoch).
    """
    kind = frame.type
    if not 0 <= frame.epoch <= MAX_EPOCH:
        raise ReplicationError(f"epoch {frame.epoch} does not fit a frame", operation="encode frame")
    if frame.flags & ~_FLAGS.get(kind, 0):
        raise ReplicationError(f"{kind.name} has no flags {frame.flags:#x}", operation="encode frame")
    if frame.member and kind not in _OF_MEMBERS:
        raise ReplicationError(f"{kind.name} is of no member, not of {frame.member}", operation="encode frame")
    parts: list[Buffer] = [_flat(part) for part in frame.payload]
    length = sum(_bytes_in(part) for part in parts)
    if length > payload_limit(kind):
        raise ReplicationError(
            f"{kind.name} of {length} bytes is over the limit of {payload_limit(kind)}",
            operation="encode frame",
            epoch=frame.epoch,
        )
    header = bytearray(HEADER.pack(MAGIC, kind, frame.flags, frame.member, frame.epoch, length, 0))
    check = crc32(header[:CHECKED_BYTES])
    if kind not in _COVERED_BY_DIGEST:
        check ^= _payload_crc(parts)
    CHECK.pack_into(header, CHECKED_BYTES, check)
    return [bytes(header), *(part for part in parts if _bytes_in(part))]


def _flat(part: Buffer) -> Buffer:
    """The same memory as a run of single bytes, so that len() is its length."""
    if not isinstance(part, memoryview) or (part.ndim == 1 and part.itemsize == 1 and part.contiguous):
        return part
    if not part.c_contiguous:
        raise ReplicationError("a payload buffer is not contiguous", operation="encode frame")
    return part.cast("B")


def _payload_crc(parts: Sequence[Buffer]) -> int:
    value = 0
    for part in parts:
        value = crc32(part, value)
    return value


class FrameDecoder(InPlaceDecoder[Frame, ReplicationError]):
    """Turns received bytes into frames, in any chunking."""

    _error = ReplicationError

    def __init__(self) -> None:
        super().__init__()
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._scratch_view = memoryview(self._scratch)
        self._held = 0  # bytes of an incomplete header at the start of the scratch
        self._header: tuple[FrameType, int, int, int, int] | None = None  # type, flags, member, epoch, check to be met
        self._payload = memoryview(b"")
        self._filled = 0

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet; 0 between frames. An end of the connection with pending
        bytes is a truncation."""
        return self._held if self._header is None else HEADER_BYTES + self._filled

    def _room(self) -> memoryview:
        if self._header is None:
            return self._scratch_view[self._held :]
        return self._payload[self._filled :]

    def _took(self, count: int, items: list[Frame]) -> None:
        if self._header is None:
            self._take_scratch(self._held + count, items)
        else:
            self._filled += count
            self._finish_payload(items)

    def _take_scratch(self, end: int, frames: list[Frame]) -> None:
        start = 0
        while end - start >= HEADER_BYTES:
            length = self._open(start)
            start += HEADER_BYTES
            count = min(length, end - start)
            self._payload[:count] = self._scratch_view[start : start + count]
            self._filled = count
            start += count
            if not self._finish_payload(frames):
                self._held = 0
                return
        self._held = end - start
        if start and self._held:
            self._scratch[: self._held] = self._scratch[start:end]

    def _open(self, start: int) -> int:
        magic, kind_number, flags, member, epoch, length, check = HEADER.unpack_from(self._scratch, start)
        if magic != MAGIC:
            raise _bad(f"frame starts with {magic.hex()} instead of {MAGIC.hex()}")
        try:
            kind = FrameType(kind_number)
        except ValueError:
            raise _bad(f"unknown frame type {kind_number}") from None
        if member and kind not in _OF_MEMBERS:
            raise _bad(f"{kind.name} is of no member, not of {member:#x}", epoch)
        if flags & ~_FLAGS.get(kind, 0):
            raise _bad(f"{kind.name} has unknown flags {flags:#x}", epoch)
        limit = payload_limit(kind)
        if length > limit:
            raise _bad(f"{kind.name} announces {length} bytes, the limit is {limit}", epoch)
        check ^= crc32(self._scratch_view[start : start + CHECKED_BYTES])
        if kind in _COVERED_BY_DIGEST and check:
            raise _bad(f"header check of {kind.name} does not match", epoch)
        self._header = (kind, flags, member, epoch, check)
        self._payload = memoryview(bytearray(length))
        self._filled = 0
        return int(length)

    def _finish_payload(self, frames: list[Frame]) -> bool:
        if self._header is None or self._filled < len(self._payload):
            return False
        kind, flags, member, epoch, check = self._header
        if kind not in _COVERED_BY_DIGEST and crc32(self._payload) != check:
            raise _bad(f"check of {kind.name} does not match its bytes", epoch)
        payload = (self._payload.toreadonly(),) if len(self._payload) else ()
        frames.append(Frame(kind, epoch, flags, payload, member))
        self._header = None
        self._payload = memoryview(b"")
        self._filled = 0
        self._held = 0
        return True


def _bad(message: str, epoch: int | None = None) -> ReplicationError:
    return ReplicationError(message, operation="receive frame", epoch=epoch)
