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
