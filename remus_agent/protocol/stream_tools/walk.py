"""Walks a saved domain structure by structure: what each one is, where it stands, to which epoch it belongs.

`StreamReader` knows the rules. This adds what people need to find a fault again: the number of the record, its layer,
type and offset, and what was allowed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from remus_agent.errors import ProtocolError, StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, records
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.reader import Event, Position, StreamReader, next_layer
from remus_agent.protocol.stream.records import Record

_XL: Final = "the xl header"
_LIBXL: Final = "the libxl header"
_IMAGE: Final = "the libxc image header"
_DOMAIN: Final = "the libxc domain header"
_RECORD: Final = "a record"

_BEGINS: Final = 16
"""Bytes of a structure that an error shows."""
_EPOCH: Final = (
    "PAGE_DATA, then the processors' state (X86_TSC_INFO, HVM_CONTEXT, HVM_PARAMS; of a PV guest SHARED_INFO and its "
    "processors), then CHECKPOINT or END"
)
_ALLOWED: Final = {
    (Position.HEADERS, Layer.LIBXL): "LIBXC_CONTEXT",
    (Position.STATIC, Layer.LIBXC): "X86_PV_INFO, X86_CPUID_POLICY, X86_MSR_POLICY, then STATIC_DATA_END",
    (Position.MEMORY, Layer.LIBXC): _EPOCH,
    (Position.INSIDE_EPOCH, Layer.LIBXC): _EPOCH,
    (Position.BETWEEN_EPOCHS, Layer.LIBXC): _EPOCH,
    (Position.INSIDE_EPOCH, Layer.LIBXL): "EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT, then CHECKPOINT_END",
    (Position.TRAILER, Layer.LIBXL): "EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT, then END",
    (Position.ENDED, Layer.LIBXL): "nothing",
}
"""What may stand at a place, by position and layer."""
_OTHER: Final = "the end of the stream"
_HEADERS: Final[dict[type, tuple[str, str]]] = {
    headers.XlHeader: (_XL, "xl"),
    headers.LibxlHeader: (_LIBXL, "libxl"),
    headers.ImageHeader: (_IMAGE, "libxc"),
    headers.DomainHeader: (_DOMAIN, "libxc"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. record: its number from 1 on over both layers, None for a header; what: type of the
    record, or name of the header; length: of the record's body, None where it is not known; begins: its first bytes,
    hexadecimal, empty at the end of the stream; epoch: None before memory; expected: what was allowed there."""

    record: int | None
    layer: str
    what: str
    length: int | None
    offset: int
    begins: str
    epoch: int | None
    expected: str

    def as_dict(self) -> dict[str, Any]:
        """The facts of an error."""
        facts = {
            "record": self.record,
            "layer": self.layer,
            "type": self.what,
            "length": self.length,
            "starts": self.offset,
            "begins": self.begins,
            "expected": self.expected,
        }
        return {name: value for name, value in facts.items() if value is not None}


class DamagedStream(StreamError):
    """A stream breaks a rule. place: the structure in question; offset: the byte, from the start of the stream."""

    code: ClassVar[str] = "stream-damaged"

    def __init__(self, error: StreamError, place: Place) -> None:
        # Not StreamError's own: it would write the offset into the message a second time.
        ProtocolError.__init__(
            self,
            error.message,
            operation=error.operation,
            epoch=place.epoch,
            left=error.left,
            hint=error.hint,
        )
        self.offset = error.offset
        self.place = place

    def as_dict(self) -> dict[str, Any]:
        """The error with its place."""
        return super().as_dict() | {"offset": self.offset} | self.place.as_dict()


class CutInsideEpoch(DamagedStream):
    """A stream ends inside an epoch, or before its first epoch is complete."""

    code: ClassVar[str] = "stream-cut-inside"
    exit_code: ClassVar[int] = 14


class CutBetweenEpochs(DamagedStream):
    """A stream ends after a complete epoch, without its END: what is left when a sender stops or dies then."""

    code: ClassVar[str] = "stream-cut-between"
    exit_code: ClassVar[int] = 15


@dataclass(frozen=True, slots=True)
class Structure:
    """One header or record. raw: all its bytes as they stood; epoch: from 1 on, 0 before memory (the first copy of
    memory belongs to epoch 1, what stands between the last checkpoint and the END to one more); offset: bytes from the
    start of the stream; number: of a record from 1 on over both layers, None for a header; before: the position at
    which it begins."""

    event: Event
    raw: c.Buffer
    epoch: int
    offset: int
    number: int | None
    before: Position

    @property
    def place(self) -> Place:
        """Where it stands, for errors and lists."""
        begins = bytes(self.raw[:_BEGINS]).hex()
        if not isinstance(self.event, Record):
            what, layer = _HEADERS[type(self.event)]
            return Place(None, layer, what, None, self.offset, begins, None, what)
        record = self.event
        expected = _ALLOWED.get((self.before, record.layer), _OTHER)
        layer = record.layer.value
        return Place(self.number, layer, record.name, record.length, self.offset, begins, self.epoch or None, expected)

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


class StreamWalk:
    """One saved domain in pieces of any size. It holds at most one structure. After an error it stays dead."""

    def __init__(self) -> None:
        self._reader = StreamReader()
        self._layer = Layer.LIBXL
        self._what = _XL
        self._head = bytearray()
        self._left = headers.XL_FIXED.size
        self._in_body = False
        self._records = 0
        self._start = 0
        self._before = Position.HEADERS

    @property
    def position(self) -> Position:
        """Where in the stream the next byte stands."""
        return self._reader.position

    @property
    def checkpoints(self) -> int:
        """How many checkpoints are complete."""
        return self._reader.checkpoints

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._reader.offset

    def feed(self, data: c.Buffer) -> Iterator[Structure]:
        """The structures that `data` completes, each as soon as it is whole; go through all of them. `data` may be
        reused afterwards. Raises DamagedStream."""
        view = memoryview(data).cast("B")
        used = 0
        while used < len(view):
            part = view[used : used + self._left]
            used += len(part)
            found = self._take(part)
            if found is not None:
                yield found

    def close(self) -> None:
        """The bytes have ended. Raises CutBetweenEpochs or CutInsideEpoch unless the stream has ended too."""
        between = self.position is Position.BETWEEN_EPOCHS
        try:
            self._reader.close()
        except StreamError as error:
            raise (CutBetweenEpochs if between else CutInsideEpoch)(error, self._place()) from error

    def _take(self, part: memoryview) -> Structure | None:
        checkpoints = self._reader.checkpoints
        if not self._in_body:
            self._head += part
        try:
            events = self._reader.feed(part)
        except StreamError as error:
            raise DamagedStream(error, self._place()) from error
        self._left -= len(part)
        if self._left:
            return None
        if not events:
            self._expect_rest()
            return None
        event = events[0]
        is_record = isinstance(event, Record)
        found = Structure(
            event,
            event.raw if isinstance(event, Record) else bytes(self._head),
            checkpoints + 1 if self._of_epoch(event) else 0,
            self._start,
            self._records if is_record else None,
            self._before,
        )
        self._expect_after(event)
        return found

    def _of_epoch(self, event: Event) -> bool:
        if self._reader.position in (Position.HEADERS, Position.STATIC) or not isinstance(event, Record):
            return False
        return not (self._before is Position.STATIC and event.type == Xc.STATIC_DATA_END)

    def _expect_rest(self) -> None:
        """Of a structure whose length stands in what was read."""
        if self._what == _XL:
            self._left, _, _ = headers.parse_xl_fixed(self._head)
            return
        _, length = records.RECORD_HEADER.unpack(self._head)
        self._in_body = True
        self._left = records.padded(length)

    def _expect_after(self, event: Event) -> None:
        match event:
            case Record() if event.layer is Layer.LIBXL and event.type == Xl.LIBXC_CONTEXT:
                self._layer = Layer.LIBXC
                self._expect(_IMAGE, headers.IMAGE_HEADER.size)
            case Record():
                self._layer = next_layer(event)
                self._expect(_RECORD, c.RECORD_HEADER_SIZE)
            case headers.XlHeader():
                self._expect(_LIBXL, headers.LIBXL_HEADER.size)
            case headers.ImageHeader():
                self._expect(_DOMAIN, headers.DOMAIN_HEADER.size)
            case _:
                self._expect(_RECORD, c.RECORD_HEADER_SIZE)

    def _expect(self, what: str, size: int) -> None:
        self._what, self._left, self._in_body = what, size, False
        self._head = bytearray()
        self._records += what == _RECORD
        self._start = self._reader.offset
        self._before = self._reader.position

    def _place(self) -> Place:
        """Of the structure that is not complete."""
        begins = self._head[:_BEGINS].hex()
        if self._what != _RECORD:
            layer = "xl" if self._what == _XL else self._layer.value
            return Place(None, layer, self._what, None, self._start, begins, None, self._what)
        name, length = _RECORD, None
        if len(self._head) == c.RECORD_HEADER_SIZE:
            kind, length = records.RECORD_HEADER.unpack(self._head)
            name = records.record_name(self._layer, kind)
        epoch = None if self._before in (Position.HEADERS, Position.STATIC) else self._reader.checkpoints + 1
        expected = _ALLOWED.get((self._before, self._layer), _OTHER)
        return Place(self._records, self._layer.value, name, length, self._start, begins, epoch, expected)
