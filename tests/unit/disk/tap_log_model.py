"""A primary's disk behind its raid, and a backup that holds a copy: what the log of the tap is checked against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.pieces import DiskData, DiskEnd
from remus_agent.protocol.disk.tap_log import TapLog
from remus_agent.protocol.replication.digest import EpochDigest

REGION = 64 * 1024
BLOCK = 4096
SIZE = 4 * REGION + 3 * BLOCK
Content = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def take(log: TapLog, limit: int = wire.PAYLOAD_LIMIT) -> DiskData | DiskEnd | None:
    """The next piece, ready to be sent."""
    packing = log.take(limit)
    return packing() if packing is not None else None


def pattern(number: int, length: int) -> Content:
    """Content that nothing else has."""
    return np.full(length // 4, number, dtype=np.uint32).view(np.uint8)


def put(disk: Content, extent: Extent, discarded: int) -> None:
    """Change a device. discarded: what it shows where a DISCARD was."""
    place = slice(extent.offset, extent.end)
    if extent.op is Op.WRITE:
        disk[place] = np.frombuffer(extent.data, dtype=np.uint8)
    else:
        disk[place] = 0 if extent.op is Op.ZERO else discarded


@dataclass(eq=False)
class Request:
    """A write of the guest. It is completed when it has both landed on the local device and been logged by the tap. old: the
    content before. logged_in: number of the session that logged it, 0 when it was only tracked, None when it is not."""

    extent: Extent
    old: Content
    landed: bool = False
    logged_in: int | None = None

    @property
    def place(self) -> slice:
        return slice(self.extent.offset, self.extent.end)


class Primary:
    """The local device and the writes under way. undefined: bytes whose last change is a DISCARD."""

    def __init__(self) -> None:
        self.disk = pattern(0xFFFF, SIZE).copy()
        self.undefined: Mask = np.zeros(SIZE, dtype=np.bool_)
        self.under_way: list[Request] = []
        self._writes = 0

    def submit(self, op: Op, offset: int, length: int) -> Request | None:
        """The guest issues a write; None when one to the same place is under way, which no guest does."""
        if any(r.extent.offset < offset + length and offset < r.extent.end for r in self.under_way):
            return None
        self._writes += 1
        data = pattern(self._writes, length).tobytes() if op is Op.WRITE else b""
        request = Request(Extent(op, offset, length, data), self.disk[offset : offset + length].copy())
        self.under_way.append(request)
        if op is Op.DISCARD:
            self.undefined[request.place] = True
        return request

    def land(self, request: Request) -> None:
        put(self.disk, request.extent, 255)
        request.landed = True
        self._complete(request)

    def logged(self, request: Request, session: int) -> None:
        request.logged_in = session
        self._complete(request)

    def _complete(self, request: Request) -> None:
        if request.landed and request.logged_in is not None:
            self.under_way.remove(request)
            self.undefined[request.place] = request.extent.op is Op.DISCARD

    @property
    def uncertain(self) -> Mask:
        """Bytes of writes that are not completed, and discarded ones."""
        mask = self.undefined.copy()
        for request in self.under_way:
            mask[request.place] = True
        return mask


class Snapshot:
    """The primary's disk as it was at a barrier. copying: bytes that the copier had not brought over by then."""

    def __init__(self, primary: Primary, copying: Mask) -> None:
        self.disk = primary.disk.copy()
        self.undefined = primary.undefined.copy()
        self.copying = copying
        self.under_way = [
            (r.place, r.old, np.frombuffer(r.extent.data, dtype=np.uint8), r.extent.op) for r in primary.under_way
        ]

    def check(self, disk: Content) -> None:
        """What is completed is there. What was under way is there or what was before, byte by byte."""
        good = (disk == self.disk) | self.undefined | self.copying
        for place, old, data, op in self.under_way:
            new = data if op is Op.WRITE else np.zeros_like(old)
            good[place] |= (disk[place] == old) | (disk[place] == new)
        wrong = np.flatnonzero(~good)
        assert not len(wrong), f"{len(wrong)} bytes from {wrong[0] // BLOCK} blocks on are not those of the barrier"


@dataclass
class Staged:
    extents: list[Extent] = field(default_factory=list)
    digest: EpochDigest = field(default_factory=EpochDigest)
    count: int = 0
    end: DiskEnd | None = None


class Backup:
    """Applies an epoch when it is committed, or, seeding, the first epoch of a session as it comes. durable: what a loss of
    power leaves of the disk."""

    def __init__(self) -> None:
        self.disk = pattern(0xEEEE, SIZE).copy()
        self.durable = self.disk.copy()
        self.staged: dict[int, Staged] = {}
        self.committed = 0
        self.seeding = False

    def begin(self, *, seeding: bool) -> None:
        self.drop()
        self.seeding = seeding
        self.committed = 0

    def receive(self, piece: DiskData | DiskEnd) -> None:
        epoch = self.staged.setdefault(piece.epoch, Staged())
        assert epoch.end is None, "a piece behind the end of its epoch"
        assert all(other.end for number, other in self.staged.items() if number < piece.epoch), "epochs out of order"
        if isinstance(piece, DiskEnd):
            assert piece.digest == epoch.digest.digest()
            assert (piece.data_bytes, piece.extents) == (epoch.digest.stream_bytes, epoch.count)
            epoch.end = piece
            return
        payload = b"".join(piece.payload)
        extents = wire.parse(payload, size=SIZE, block=BLOCK)
        epoch.digest.update(payload)
        epoch.count += len(extents)
        if self.seeding and piece.epoch == 1:
            for extent in extents:
                put(self.disk, extent, 0)
        else:
            epoch.extents += extents

    @property
    def ready(self) -> int | None:
        """The next epoch that can be committed."""
        found = self.staged.get(self.committed + 1)
        return self.committed + 1 if found and found.end else None

    def commit(self) -> int:
        self.committed += 1
        for extent in self.staged.pop(self.committed).extents:
            put(self.disk, extent, 0)
        self.durable[:] = self.disk
        return self.committed

    def drop(self) -> None:
        self.staged.clear()

    def lose_power(self) -> None:
        self.drop()
        self.disk[:] = self.durable
