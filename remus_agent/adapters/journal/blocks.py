"""What stands in a commit journal, as bytes: blocks of fixed size, written round and round.

Each record has a block of its own, so a write that a crash tears can only damage the record being written and
never the one before it. A block is

    magic "RMJ1" | crc32 u32 over what follows | sequence u64 | generation u64 | epoch u64 | session 16 |
    digest 16

little-endian, the rest zero; record n (its sequence) is in block n modulo the number of blocks. The newest
record is the valid one with the highest sequence.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from remus_agent.store_ports import CommitRecord

BLOCK_BYTES: Final = 4096
BLOCKS: Final = 64
FILE_BYTES: Final = BLOCK_BYTES * BLOCKS
MAGIC: Final = b"RMJ1"
RECORD: Final = struct.Struct("<4sIQQQ16s16s")
_CRC_START: Final = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its sequence, which counts from 1."""

    sequence: int
    record: CommitRecord

    @property
    def offset(self) -> int:
        """Where its block begins."""
        return self.sequence % BLOCKS * BLOCK_BYTES


def following(newest: Entry | None, record: CommitRecord) -> Entry:
    """The entry of the next record."""
    return Entry(newest.sequence + 1 if newest else 1, record)


def pack(entry: Entry) -> bytes:
    """The block of an entry. Raises ValueError when it cannot be written down."""
    record = entry.record
    try:
        session = uuid.UUID(record.session)
        body = RECORD.pack(MAGIC, 0, entry.sequence, record.generation, record.epoch, session.bytes, record.digest)
    except struct.error as error:
        raise ValueError(str(error)) from error
    if str(session) != record.session or len(record.digest) != 16:
        raise ValueError("the session must be a UUID with dashes and the digest 16 bytes")
    crc = struct.pack("<I", crc32(body[_CRC_START:]))
    return (MAGIC + crc + body[_CRC_START:]).ljust(BLOCK_BYTES, b"\0")


def newest(data: bytes | bytearray) -> Entry | None:
    """The newest entry of a whole journal; None: there is none."""
    found: Entry | None = None
    for index in range(BLOCKS):
        magic, crc, sequence, generation, epoch, session, digest = RECORD.unpack_from(data, index * BLOCK_BYTES)
        start = index * BLOCK_BYTES + _CRC_START
        if magic != MAGIC or crc != crc32(data[start : start + RECORD.size - _CRC_START]):
            continue
        if sequence % BLOCKS == index and (found is None or sequence > found.sequence):
            found = Entry(sequence, CommitRecord(str(uuid.UUID(bytes=session)), generation, epoch, digest))
    return found
