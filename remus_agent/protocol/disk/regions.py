"""The region map: which parts of a disk may differ from what the backup has committed (ADR 0005).

A header of 64 bytes, little-endian, and one bit for each region (bit r % 8 of byte r // 8; 1: may differ):

    magic "RMUSMAP1" | version u32 = 1 | four zero bytes | map_id, 16 bytes | disk size u64 | region size u64
    | twelve zero bytes | crc32 of the 60 bytes before, u32

The memory is the caller's, usually a mapped file, so that the map outlives the process. The bits have no checksum: a bit is
set by the store of one byte, and whatever was stored when the process was killed is there.
"""

from __future__ import annotations

import struct
from typing import Final
from uuid import UUID
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from remus_agent.errors import DiskError

HEADER_BYTES: Final = 64
SMALLEST_REGION: Final = 64 * 1024
MOST_REGIONS: Final = 1 << 20

_HEADER: Final = struct.Struct("<8sI4x16sQQ12x")
_CHECK: Final = struct.Struct("<I")
_MAGIC: Final = b"RMUSMAP1"
_VERSION: Final = 1

Regions = NDArray[np.int64]
"""Numbers of regions."""


def region_bytes(size: int) -> int:
    """Bytes of one region of a disk of this size: 64 KiB, doubled until there are at most 1 Mi regions."""
    region = SMALLEST_REGION
    while -(-size // region) > MOST_REGIONS:
        region *= 2
    return region


def map_bytes(size: int) -> int:
    """Bytes of memory that the map of a disk of this size needs."""
    return HEADER_BYTES + (_regions(size) + 7) // 8


def _regions(size: int) -> int:
    return -(-size // region_bytes(size))


class RegionMap:
    """The map of one disk. Made by `create` or `open`.

    map_id: its identity (a UUID in canonical form). size: bytes of the disk. region: bytes of a region, a power of two; the
    last region may be shorter. regions: how many there are. Drop the object before its memory is unmapped.
    """

    def __init__(self, memory: memoryview, map_id: str, size: int) -> None:
        self.map_id = map_id
        self.size = size
        self.region = region_bytes(size)
        self.regions = _regions(size)
        self._shift = self.region.bit_length() - 1
        self._bits = memory[HEADER_BYTES:]
        self._array: NDArray[np.uint8] = np.frombuffer(self._bits, dtype=np.uint8)

    @classmethod
    def create(cls, buffer: bytearray | memoryview, map_id: str, size: int) -> RegionMap:
        """Make an empty map in this memory of `map_bytes(size)` bytes, whatever was there. The header comes last: a map that
        was not finished can't be opened. Raises DiskError when the memory has another length."""
        memory = _flat(buffer, size)
        memory[:] = bytes(len(memory))
        header = _HEADER.pack(_MAGIC, _VERSION, UUID(map_id).bytes, size, region_bytes(size))
        memory[:HEADER_BYTES] = header + _CHECK.pack(crc32(header))
        return cls(memory, str(UUID(map_id)), size)

    @classmethod
    def open(cls, buffer: bytearray | memoryview, size: int) -> RegionMap:
        """The map that an earlier process left in this memory. Raises DiskError, saying why, when it is damaged, of
        another version or of a disk of another size."""
        memory = _flat(buffer, size)
        header = bytes(memory[: _HEADER.size])
        (check,) = _CHECK.unpack_from(memory, _HEADER.size)
        magic, version, identity, of_size, region = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise _bad(f"it starts with {magic.hex()}")
        if check != crc32(header):
            raise _bad("its header does not match its checksum")
        if version != _VERSION:
            raise _bad(f"it has version {version}, this agent knows {_VERSION}")
        if of_size != size or region != region_bytes(size):
            raise _bad(f"it is of a disk of {of_size} bytes with regions of {region}, this one has {size} bytes")
        found = cls(memory, str(UUID(bytes=identity)), size)
        if found.regions % 8 and found._bits[-1] >> (found.regions % 8):
            raise _bad("it names regions behind the end of the disk")
        return found

    @property
    def marked(self) -> Regions:
        """Numbers of the marked regions, rising."""
        return np.flatnonzero(self.flags())

    @property
    def count(self) -> int:
        """How many regions are marked."""
        return int(np.bitwise_count(self._array).sum(dtype=np.int64))

    def flags(self) -> NDArray[np.bool_]:
        """For each region whether it is marked (a copy)."""
        return np.unpackbits(self._array, count=self.regions, bitorder="little").view(np.bool_)

    def mark(self, offset: int, length: int) -> tuple[int, int]:
        """These bytes of the disk may differ from now on. length > 0, inside the disk. Returns the regions that hold them:
        the first one's number and the number behind the last one's."""
        first = offset >> self._shift
        last = (offset + length - 1) >> self._shift
        if first == last:
            self._bits[first >> 3] |= 1 << (first & 7)
        else:
            low, high = first >> 3, last >> 3
            low_mask, high_mask = 0xFF << (first & 7) & 0xFF, 0xFF >> (7 - (last & 7))
            if low == high:
                self._bits[low] |= low_mask & high_mask
            else:
                self._bits[low] |= low_mask
                self._array[low + 1 : high] = 0xFF
                self._bits[high] |= high_mask
        return first, last + 1

    def mark_all(self) -> None:
        """Everything may differ from now on."""
        self.mark(0, self.size)

    def clear(self, regions: Regions) -> None:
        """These regions do not differ any more. Any order, repeated numbers do no harm."""
        if not len(regions):
            return
        numbers = np.sort(regions)
        places = numbers >> 3
        starts = starts_of(places)
        masks = np.left_shift(1, numbers & 7).astype(np.uint8)
        self._array[places[starts]] &= ~np.bitwise_or.reduceat(masks, starts)


def starts_of(rising: Regions) -> NDArray[np.intp]:
    """Where each of these numbers stands first. Not by `numpy.unique`, which imports numpy.ma when it is first used: from a disk,
    while the guest's writes wait."""
    first = np.ones(len(rising), dtype=np.bool_)
    np.not_equal(rising[1:], rising[:-1], out=first[1:])
    return np.flatnonzero(first)


def _flat(buffer: bytearray | memoryview, size: int) -> memoryview:
    memory = memoryview(buffer).cast("B")
    if size <= 0:
        raise _bad(f"there is no disk of {size} bytes")
    if len(memory) != map_bytes(size):
        raise _bad(f"it has {len(memory)} bytes, a disk of {size} bytes needs {map_bytes(size)}")
    return memory


def _bad(reason: str) -> DiskError:
    return DiskError(f"the region map can't be used: {reason}", operation="open region map")
