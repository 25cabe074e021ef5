"""The log of one epoch of one disk."""

from __future__ import annotations

from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.extents import ExtentMap
from remus_agent.protocol.disk.pieces import DiskData, DiskEnd
from remus_agent.protocol.replication.digest import EpochDigest


class EpochLog:
    """What waits to be handed out of an epoch, and the sums over what was. waiting: the extents that wait."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.waiting = ExtentMap()
        self._digest = EpochDigest()
        self._extents = 0

    def take(self, limit: int) -> DiskData | None:
        """The next piece of at most `limit` bytes; None when nothing waits. Of what a piece holds, a later change is
        handed out again, in a later piece."""
        extents = self.waiting.take(limit)
        if not extents:
            return None
        payload = wire.pack(extents)
        self._digest.update_all(payload)
        self._extents += len(extents)
        return DiskData(self.epoch, payload)

    def end(self) -> DiskEnd:
        """What was handed out altogether."""
        return DiskEnd(self.epoch, self._digest.stream_bytes, self._extents, self._digest.digest())
