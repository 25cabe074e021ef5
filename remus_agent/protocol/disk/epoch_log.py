"""The log of one epoch of one disk."""

from __future__ import annotations

from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.extents import ExtentMap
from remus_agent.protocol.disk.operations import Extent
from remus_agent.protocol.disk.pieces import DiskData, DiskEnd
from remus_agent.protocol.replication.digest import EpochDigest


class EpochLog:
    """What waits to be handed out of an epoch, and the sums over what was. waiting: the extents that wait. Of what was taken
    out of it, a later change is handed out again, in a later piece."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.waiting = ExtentMap()
        self._digest = EpochDigest()
        self._extents = 0

    def pack(self, extents: list[Extent]) -> DiskData:
        """The piece that holds these extents, taken out of `waiting` before. In the order in which they were taken."""
        payload = wire.pack(extents)
        self._digest.update_all(payload)
        self._extents += len(extents)
        return DiskData(self.epoch, payload)

    def end(self) -> DiskEnd:
        """What was packed altogether."""
        return DiskEnd(self.epoch, self._digest.stream_bytes, self._extents, self._digest.digest())
