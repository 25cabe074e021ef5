"""Extents as bytes: the payload of DISK_DATA frames and the body of a journal's slot.

Extents one after the other, each a 16-byte little-endian header, followed by `length` bytes of data if it is a WRITE:

    op u8 | three zero bytes | length u32 | offset u64

offset and length are bytes and multiples of the disk's sector size. Later extents are newer than earlier ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from remus_agent.errors import ReplicationError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.replication.frames import Buffer

HEADER: Final = struct.Struct("<B3sIQ")
HEADER_BYTES: Final = HEADER.size
PAYLOAD_LIMIT: Final = 8 * 1024 * 1024
"""The most bytes of extents in one DISK_DATA frame."""

MOST_EXTENTS: Final = 16384
"""The most extents in one DISK_DATA frame. Each takes memory besides its bytes, and PAYLOAD_LIMIT would let in half a million
discards; as many writes of one sector as fit are fewer than this."""

MAX_LENGTH: Final = 1 << 31
"""The longest extent that is put into one header, in bytes."""

CUT_BYTES: Final = 4096
"""Extents are cut in multiples of this, which every sector size divides."""

_RESERVED: Final = bytes(3)
_OPS: Final = {int(op): op for op in Op}


def pack(extents: Iterable[Extent]) -> list[Buffer]:
    """The extents as buffers to send in order. Data is passed on, never copied.

    Raises ReplicationError for an extent that no header can hold (an `ExtentMap` has none such) or whose data is not
    `length` bytes.
    """
    parts: list[Buffer] = []
    for extent in extents:
        data = extent.data
        found = data.nbytes if isinstance(data, memoryview) else len(data)
        expected = extent.length if extent.op is Op.WRITE else 0
        if found != expected:
            raise ReplicationError(
                f"{extent.op.name} of {extent.length} bytes at {extent.offset}: expected {expected} bytes of data, found {found}",
                operation="pack disk extents",
            )
        if not 0 < extent.length <= MAX_LENGTH:
            raise ReplicationError(
                f"{extent.op.name} at {extent.offset}: expected a length from 1 to {MAX_LENGTH}, found {extent.length}",
                operation="pack disk extents",
            )
        parts.append(HEADER.pack(extent.op, _RESERVED, extent.length, extent.offset))
        if found:
            parts.append(data)
    return parts


def parse(buffer: Buffer, *, size: int, block: int, most: int | None = None) -> list[Extent]:
    """The extents in a payload, in order. Data are views of the buffer, nothing is copied.

    size: bytes of the disk; block: bytes of a sector; most: how many extents there may be, any number if None. Raises
    ReplicationError for whatever breaks the format, naming the byte of the payload, what was expected and what was found."""
    view = memoryview(buffer).cast("B")
    total = len(view)
    extents: list[Extent] = []
    at = 0
    while at < total:
        if total - at < HEADER_BYTES:
            raise _bad(at, f"a header of {HEADER_BYTES} bytes", f"{total - at} bytes")
        number, reserved, length, offset = HEADER.unpack_from(view, at)
        op = _OPS.get(number)
        if op is None:
            raise _bad(at, f"an operation from {min(_OPS)} to {max(_OPS)}", str(number))
        if reserved != _RESERVED:
            raise _bad(at + 1, "three zero bytes", reserved.hex())
        if not 0 < length <= MAX_LENGTH or length % block:
            raise _bad(at + 4, f"a length from {block} to {MAX_LENGTH} in multiples of {block}", str(length))
        if offset % block:
            raise _bad(at + 8, f"an offset that is a multiple of {block}", str(offset))
        if offset + length > size:
            raise _bad(at + 8, f"an extent that ends inside the disk of {size} bytes", f"its end at {offset + length}")
        if most is not None and len(extents) == most:
            raise _bad(at, f"at most {most} extents", "more")
        at += HEADER_BYTES
        if op is not Op.WRITE:
            extents.append(Extent(op, offset, length))
            continue
        if total - at < length:
            raise _bad(at, f"{length} bytes of data", f"{total - at} bytes")
        extents.append(Extent(op, offset, length, view[at : at + length]))
        at += length
    return extents


def _bad(at: int, expected: str, found: str) -> ReplicationError:
    return ReplicationError(f"byte {at}: expected {expected}, found {found}", operation="parse disk extents")
