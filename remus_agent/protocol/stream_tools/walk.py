"""Walks a saved domain structure by structure: what each one is, where it stands, to which epoch it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.reader import Event, Position, StreamReader
from remus_agent.protocol.stream.records import Record, locate

_FRONT: Final = c.CONFIG_LENGTH_MAX + 4096
"""All headers stand in so many bytes."""


class StreamCut(StreamError):
    """A stream ends before its END."""


class CutInsideEpoch(StreamCut):
    """A stream ends inside an epoch, or before its first epoch is complete."""

    code: ClassVar[str] = "stream-cut-inside"
    exit_code: ClassVar[int] = 14


class CutBetweenEpochs(StreamCut):
    """A stream ends after a complete epoch, without its END: what is left when a sender stops or dies then."""

    code: ClassVar[str] = "stream-cut-between"
    exit_code: ClassVar[int] = 15


@dataclass(frozen=True, slots=True)
class Structure:
    """One header or record. raw: all its bytes as they stood; epoch: from 1 on, 0 before memory (the first copy of
    memory belongs to epoch 1, what stands between the last checkpoint and the END to one more); offset: bytes from the
    start of the stream."""

    event: Event
    raw: c.Buffer
    epoch: int
    offset: int

    @property
    def layer(self) -> str:
        """`xl`, `libxl` or `libxc`."""
        match self.event:
            case Record():
                return self.event.layer.value
            case headers.XlHeader():
                return "xl"
            case headers.LibxlHeader():
                return "libxl"
            case _:
                return "libxc"

    @property
    def name(self) -> str:
        """Type of the record, or name of the header."""
        match self.event:
            case Record():
                return self.event.name
            case headers.XlHeader():
                return "the xl header"
            case headers.LibxlHeader():
                return "the libxl header"
            case headers.ImageHeader():
                return "the libxc image header"
            case _:
                return "the libxc domain header"

    def is_libxc(self, *kinds: Xc) -> bool:
        """Whether it is a record of libxc of one of these types."""
        return isinstance(self.event, Record) and self.event.layer is Layer.LIBXC and self.event.type in kinds

    def is_libxl(self, *kinds: Xl) -> bool:
        """Whether it is a record of libxl of one of these types."""
        return isinstance(self.event, Record) and self.event.layer is Layer.LIBXL and self.event.type in kinds

    @property
    def completes(self) -> bool:
        """Whether it completes its epoch."""
        return self.is_libxl(Xl.CHECKPOINT_END, Xl.END)

    def blame(self, error: StreamError) -> StreamError:
        """Say that an error is of this structure."""
        if isinstance(self.event, Record):
            locate(error, self.event)
        else:
            error.locate(self.layer, self.name, start=self.offset)
        error.epoch = self.epoch or None
        return error


class StreamWalk:
    """One saved domain in pieces of any size. It holds at most one structure. After an error it stays dead."""

    def __init__(self) -> None:
        self._reader = StreamReader()
        self._front: bytearray | None = bytearray()
        self._end = 0
        self._before = Position.HEADERS

    def feed(self, data: c.Buffer) -> Iterator[Structure]:
        """The structures that `data` completes, each as soon as it is found; go through all of them before the next
        call. `data` must not change while one of them is in use: a record that lies in it is not copied. Raises
        StreamError, with the epoch where it is known."""
        if self._front is not None:
            self._front += memoryview(data).cast("B")[: _FRONT - len(self._front)]
        checkpoints = self._reader.checkpoints
        try:
            for event in self._reader.views(data):
                yield self._structure(event, checkpoints)
                checkpoints = self._reader.checkpoints
        except StreamError as error:
            error.epoch = self._epoch_now()
            raise

    def close(self) -> None:
        """The bytes have ended. Raises CutBetweenEpochs or CutInsideEpoch unless the stream has ended too."""
        between = self._reader.position is Position.BETWEEN_EPOCHS
        try:
            self._reader.close()
        except StreamError as error:
            cut = (CutBetweenEpochs if between else CutInsideEpoch)(
                error.what,
                offset=error.offset,
                expected=error.expected,
                found=error.found,
                operation=error.operation,
                epoch=self._epoch_now(),
                left=error.left,
            )
            if error.layer is not None and error.record is not None and error.start is not None:
                cut.locate(error.layer, error.record, start=error.start, ordinal=error.ordinal)
            raise cut from error

    def _structure(self, event: Event, checkpoints: int) -> Structure:
        start, self._end = self._end, self._reader.offset
        before, self._before = self._before, self._reader.position
        if isinstance(event, Record):
            static = before is Position.STATIC and event.type == Xc.STATIC_DATA_END
            in_epoch = not static and self._before not in (Position.HEADERS, Position.STATIC)
            return Structure(event, event.raw, checkpoints + 1 if in_epoch else 0, start)
        # The reader takes headers apart and does not keep their bytes.
        raw = bytes(self._front[start : self._end]) if self._front is not None else b""
        if isinstance(event, headers.DomainHeader):
            self._front = None
        return Structure(event, raw, 0, start)

    def _epoch_now(self) -> int | None:
        inside = self._reader.position not in (Position.HEADERS, Position.STATIC)
        return self._reader.checkpoints + 1 if inside else None
