"""What a write tap hands out to be sent, and how far its copier is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remus_agent.protocol.replication.frames import Buffer


@dataclass(frozen=True, slots=True)
class DiskData:
    """Part of an epoch, ready to be the payload of one DISK_DATA frame (`protocol.disk.wire`)."""

    epoch: int
    payload: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class DiskEnd:
    """All of an epoch was handed out. data_bytes: of all its payloads; extents: their number. digest: xxh3_128 over all
    payload bytes in the order in which they were handed out."""

    epoch: int
    data_bytes: int
    extents: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far the copier is, in bytes. done counts regions that did not have to travel as well. sent: what travelled."""

    done: int
    total: int
    sent: int
