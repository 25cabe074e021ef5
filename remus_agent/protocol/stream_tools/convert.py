"""Makes a plain stream, or the records of one epoch, of a checkpointed stream.

A plain restore applies PAGE_DATA as it comes, so the memory of epochs 1 to N in order is the memory of epoch N; what
is not memory counts once, at the end (tools/libs/guest/xg_sr_restore.c: process_record, stream_complete).
"""

from __future__ import annotations

from remus_agent.errors import RefusedError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, writer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.records import Record
from remus_agent.protocol.stream.zero_pages import with_zero_pages
from remus_agent.protocol.stream_tools.walk import Structure


class PlainConversion:
    """Takes every structure of a stream and gives what a plain stream of an epoch holds.

    epoch: the one that is wanted, None for the last complete one. What `take` gives
    is a view of the structure. What it gave since `complete` last rose belongs
    to an epoch that may never be complete; without a wanted epoch it must not stay in the output then."""

    def __init__(self, epoch: int | None = None) -> None:
        self._wanted = epoch
        self.complete = 0
        """The newest complete epoch; 0: none yet."""
        self._hvm = True
        self._new: tuple[list[c.Buffer], list[c.Buffer]] = ([], [])
        self._tail: tuple[list[c.Buffer], list[c.Buffer]] = ([], [])

    @property
    def done(self) -> bool:
        """True when the wanted epoch is complete: the rest of the stream does not matter."""
        return self._wanted is not None and self.complete >= self._wanted

    def take(self, structure: Structure) -> list[c.Buffer]:
        """What to write for a structure: headers and memory at once, everything else not before `finish`."""
        record = structure.event
        if isinstance(record, headers.DomainHeader):
            self._hvm = record.type is c.DomainType.HVM
        if not isinstance(record, Record):
            return [structure.raw]
        if record.optional or self.done:
            return []
        if structure.epoch == 0 or structure.is_libxc(Xc.VERIFY, Xc.X86_PV_P2M_FRAMES):
            return [record.raw]
        if structure.is_libxc(Xc.PAGE_DATA):
            return with_zero_pages(record) if self._hvm else [record.raw]
        if structure.completes:
            self.complete, self._tail, self._new = structure.epoch, self._new, ([], [])
        elif not structure.is_libxc(Xc.CHECKPOINT, Xc.END):
            self._new[record.layer is c.Layer.LIBXL].append(bytes(record.raw))
        return []

    def finish(self) -> list[c.Buffer]:
        """The end of the plain stream: the tail of the epoch and both END records. Raises RefusedError when the
        wanted epoch is not there."""
        if self.complete == 0 or (self._wanted is not None and self.complete < self._wanted):
            raise no_such_epoch(self._wanted, self.complete)
        libxc, libxl = self._tail
        return [*libxc, writer.end_of_libxc(), *libxl, writer.end_of_libxl()]


class EpochCut:
    """Takes every structure of a stream and gives the records of one epoch as they stand."""

    def __init__(self, epoch: int) -> None:
        self._wanted = epoch
        self.complete = 0
        """The newest complete epoch; 0: none yet."""

    @property
    def done(self) -> bool:
        """True when the epoch is complete: the rest of the stream does not matter."""
        return self.complete >= self._wanted

    def take(self, structure: Structure) -> list[c.Buffer]:
        """What to write for a structure."""
        if self.done:
            return []
        if structure.completes:
            self.complete = structure.epoch
        return [structure.raw] if structure.epoch == self._wanted else []

    def finish(self) -> list[c.Buffer]:
        """Nothing more. Raises RefusedError when the epoch is not there."""
        if not self.done:
            raise no_such_epoch(self._wanted, self.complete)
        return []


def no_such_epoch(wanted: int | None, complete: int) -> RefusedError:
    """The error of an epoch that a stream does not hold completely."""
    if not complete:
        return RefusedError("the stream holds no complete epoch", operation="read the stream", epoch=wanted)
    return RefusedError(
        f"the stream holds {complete} complete epochs, epoch {wanted} is not among them",
        operation="read the stream",
        epoch=wanted,
        hint=f"ask for an epoch from 1 to {complete}",
    )
