"""Changes of a disk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from remus_agent.protocol.replication.frames import Buffer


class Op(IntEnum):
    """Kind of a change. The value is the one on the wire and in the journal."""

    WRITE = 1
    ZERO = 2
    DISCARD = 3


@dataclass(frozen=True, slots=True)
class Extent:
    """One change of a run of bytes. offset, length: bytes, multiples of the disk's sector size. data: `length` bytes of a
    WRITE, empty otherwise. A discarded run has no defined content."""

    op: Op
    offset: int
    length: int
    data: Buffer = b""

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.length

    def part(self, start: int, end: int) -> Extent:
        """The same change of the bytes from start up to, not including, end: offsets on the disk inside the extent. The
        data of a WRITE is a view of this one's memory, nothing is copied."""
        if self.op is not Op.WRITE:
            return Extent(self.op, start, end - start)
        data = memoryview(self.data)[start - self.offset : end - self.offset]
        return Extent(Op.WRITE, start, end - start, data)
