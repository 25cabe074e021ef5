"""Changes of a disk as bytes: repeated headers, each followed by the data of a write.

    op u8 | 3 bytes 0 | length u32 | offset u64

Little-endian; the payload of DISK_DATA frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from remus_agent.errors import ReplicationError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.replication.frames import Buffer

HEADER: Final = struct.Struct("<B3xIQ")


def pack(extents: Iterable[Extent]) -> list[Buffer]:
    """The bytes of these changes, as buffers to send one after the other."""
    buffers: list[Buffer] = []
    for extent in extents:
        buffers.append(HEADER.pack(extent.op, extent.length, extent.offset))
        if extent.op is Op.WRITE:
            buffers.append(extent.data)
    return buffers


def parse(buffer: Buffer, *, size: int, block: int) -> list[Extent]:
    """The changes in a payload; their data are views of it. Raises ReplicationError for anything that does not fit a disk of
    this size and sector size."""
    view = memoryview(buffer)
    extents: list[Extent] = []
    at = 0
    while at < len(view):
        if len(view) - at < HEADER.size or any(view[at + 1 : at + 4]):
            raise ReplicationError(f"no header of a change at byte {at}", operation="read disk data")
        kind, length, offset = HEADER.unpack_from(view, at)
        at += HEADER.size
        try:
            op = Op(kind)
        except ValueError:
            raise ReplicationError(f"unknown change {kind} of a disk", operation="read disk data") from None
        if not length or length % block or offset % block or offset + length > size:
            raise ReplicationError(
                f"a change of {length} bytes at {offset} of a disk of {size}", operation="read disk data"
            )
        taken = length if op is Op.WRITE else 0
        if taken > len(view) - at:
            raise ReplicationError("the data of a change is cut off", operation="read disk data")
        extents.append(Extent(op, offset, length, view[at : at + taken] if taken else b""))
        at += taken
    return extents
