"""Extents as bytes, as they stand in a slot's body: `<B3xIQ` (op, length, offset) and the data of a WRITE, repeated."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from remus_agent.errors import ReplicationError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.replication.frames import Buffer

HEAD: Final = struct.Struct("<B3xIQ")
_REGION: Final = 64 << 10
_REGIONS: Final = 1 << 20


def pack(extents: Iterable[Extent]) -> list[Buffer]:
    """The extents as buffers; data is not copied."""
    parts: list[Buffer] = []
    for extent in extents:
        parts.append(HEAD.pack(extent.op, extent.length, extent.offset))
        if extent.op is Op.WRITE:
            parts.append(extent.data)
    return parts


def parse(buffer: Buffer, *, size: int, block: int) -> list[Extent]:
    """The extents in a body of a disk of `size` bytes with sectors of `block` bytes; data points into it. Raises
    ReplicationError."""
    view = memoryview(buffer).cast("B")
    extents: list[Extent] = []
    at = 0
    while at < len(view):
        if len(view) - at < HEAD.size:
            raise ReplicationError(f"the extent at byte {at} is cut off")
        op, length, offset = HEAD.unpack_from(view, at)
        at += HEAD.size
        if not 1 <= op <= len(Op) or length == 0 or length % block or offset % block or offset + length > size:
            raise ReplicationError(f"the extent before byte {at} has op {op}, offset {offset}, length {length}")
        data = view[at : at + length] if op == Op.WRITE else b""
        if op == Op.WRITE and len(data) != length:
            raise ReplicationError(f"the data of the extent before byte {at} is cut off")
        at += len(data)
        extents.append(Extent(Op(op), offset, length, data))
    return extents


def region_bytes(size: int) -> int:
    """Bytes of a region of a disk of `size` bytes: 64 KiB, doubled until there are at most 2^20 of them."""
    region = _REGION
    while size > region * _REGIONS:
        region *= 2
    return region
