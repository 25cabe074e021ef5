"""Reads streams: whole records in a buffer (`iter_records`), or a complete saved domain in pieces
(`StreamReader`).

What stock `xl save`, `xl migrate` and `xl remus` emit for PVH and HVM guests is accepted, libxc versions 2
and 3; records of PV guests are checked by length only. Sources in Xen: docs/specs/,
tools/libs/guest/xg_sr_restore.c, tools/libs/light/libxl_stream_read.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, records
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.records import Record

Event = headers.XlHeader | headers.LibxlHeader | headers.ImageHeader | headers.DomainHeader | Record
"""What a StreamReader reports, in the order of the stream. A Record owns its bytes."""

_STATIC = (Xc.X86_PV_INFO, Xc.STATIC_DATA_END, Xc.X86_CPUID_POLICY, Xc.X86_MSR_POLICY)
_MEMORY = (Xc.PAGE_DATA, Xc.VERIFY, Xc.X86_PV_P2M_FRAMES)
_ENDS = (Xc.CHECKPOINT, Xc.END)


class Position(Enum):
    """Where in the stream a reader stands."""

    HEADERS = "in the headers"
    STATIC = "before memory"
    MEMORY = "in the first copy of memory"
    INSIDE_EPOCH = "inside an epoch"
    BETWEEN_EPOCHS = "between epochs"
    TRAILER = "after memory"
    ENDED = "after the end"


def next_layer(record: Record) -> Layer:
    """The layer of the record that follows: libxc's CHECKPOINT and END give way to libxl, libxl's
    CHECKPOINT_END and LIBXC_CONTEXT to libxc."""
    if record.layer is Layer.LIBXC:
        return Layer.LIBXL if record.type in _ENDS else Layer.LIBXC
    return Layer.LIBXC if record.type in (Xl.CHECKPOINT_END, Xl.LIBXC_CONTEXT) else Layer.LIBXL


def iter_records(view: c.Buffer, *, layer: Layer = Layer.LIBXC, offset: int = 0) -> Iterator[Record]:
    """The records of a buffer that holds only whole records, as views of it, without a look at their bodies.

    layer: of the first record; later ones follow from the records. offset: of the buffer in the stream,
    for messages. Raises StreamError for a record that is cut off or too long."""
    whole = memoryview(view).cast("B")
    start = 0
    while start < len(whole):
        have = len(whole) - start
        if have < c.RECORD_HEADER_SIZE:
            raise records.truncated("a record header", have, c.RECORD_HEADER_SIZE, offset + len(whole))
        kind, length = records.parse_record_header(whole, layer, offset + start, start)
        need = c.RECORD_HEADER_SIZE + records.padded(length)
        if have < need:
            raise records.truncated(f"record {records.record_name(layer, kind)}", have, need, offset + len(whole))
        record = Record(layer, kind, length, offset + start, whole[start : start + need])
        yield record
        layer = next_layer(record)
        start += need


class StreamReader:
    """Incremental reader of one saved domain: xl header, libxl stream, libxc stream, plain or checkpointed.

    Any chunking gives the same events. It holds at most one record; lengths are checked before anything of
    that length is collected. After an error it stays dead and raises the same error again."""

    def __init__(self) -> None:
        self._have = bytearray()
        self._start = 0
        self._failed: StreamError | None = None
        self._position = Position.HEADERS
        self._layer = Layer.LIBXL
        self._version = c.LIBXC_VERSION
        self._hvm = True
        self._checkpoints = 0
        self._tail: set[int] = set()
        self._xl: tuple[bool, int] = (True, 0)
        self._header = (0, 0)
        self._next("the xl header", headers.XL_FIXED.size, self._xl_fixed)

    @property
    def position(self) -> Position:
        """Where in the stream the next byte stands."""
        inside = self._position is Position.BETWEEN_EPOCHS and self._have
        return Position.INSIDE_EPOCH if inside else self._position

    @property
    def checkpoints(self) -> int:
        """How many checkpoints are complete (CHECKPOINT_END was read)."""
        return self._checkpoints

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._start + len(self._have)

    def feed(self, data: c.Buffer) -> list[Event]:
        """Take bytes, return what is complete now. `data` may be reused afterwards. Raises StreamError."""
        if self._failed is not None:
            raise self._failed
        try:
            return list(self._events(memoryview(data).cast("B")))
        except StreamError as error:
            self._failed = error
            self._have = bytearray()
            raise

    def close(self) -> None:
        """The bytes have ended. Raises StreamError unless the stream has ended too; `left` tells inside or
        between epochs."""
        if self._failed is not None:
            raise self._failed
        if self._position is Position.ENDED:
            return
        left = f"{self.position.value}, {self._checkpoints} checkpoints complete"
        if self._have or self._position is Position.HEADERS:
            self._failed = records.truncated(self._what, len(self._have), self._need, self.offset, left)
        else:
            self._failed = StreamError(
                f"truncated {self.position.value}: no END record",
                offset=self.offset,
                operation=c.READ,
                left=left,
            )
        raise self._failed

    def _next(self, what: str, need: int, step: Callable[[bytearray], Event | None]) -> None:
        self._what, self._need, self._step = what, need, step

    def _events(self, data: memoryview) -> Iterator[Event]:
        used = 0
        while used < len(data):
            if self._position is Position.ENDED:
                raise records.refused("bytes after the end of the stream", self._start)
            part = data[used : used + self._need - len(self._have)]
            self._have += part
            used += len(part)
            if len(self._have) == self._need:
                event = self._step(self._have)
                if event is not None:
                    yield event

    def _done(self) -> int:
        """Drop the structure that was collected; returns its offset."""
        offset = self._start
        self._start += len(self._have)
        self._have = bytearray()
        return offset

    def _xl_fixed(self, raw: bytearray) -> None:
        length, json, optional = headers.parse_xl_fixed(raw)
        self._xl = (json, optional)
        self._done()
        self._next("the configuration in the xl header", length, self._xl_optional)

    def _xl_optional(self, raw: bytearray) -> Event:
        json, optional = self._xl
        header = headers.parse_xl_optional(raw, json=json, optional_flags=optional)
        self._done()
        self._next("the libxl header", headers.LIBXL_HEADER.size, self._libxl_header)
        return header

    def _libxl_header(self, raw: bytearray) -> Event:
        header = headers.parse_libxl_header(raw, self._start)
        self._done()
        self._expect_record()
        return header

    def _image_header(self, raw: bytearray) -> Event:
        header = headers.parse_image_header(raw, self._start)
        self._version = header.version
        self._done()
        self._next("the libxc domain header", headers.DOMAIN_HEADER.size, self._domain_header)
        return header

    def _domain_header(self, raw: bytearray) -> Event:
        header = headers.parse_domain_header(raw, self._start)
        self._hvm = header.type is c.DomainType.HVM
        self._done()
        self._position, self._layer = Position.STATIC, Layer.LIBXC
        self._expect_record()
        return header

    def _expect_record(self) -> None:
        self._next("a record header", c.RECORD_HEADER_SIZE, self._record_header)

    def _record_header(self, raw: bytearray) -> Event | None:
        kind, length = self._header = records.parse_record_header(raw, self._layer, self._start)
        name = records.record_name(self._layer, kind)
        self._next(f"record {name}", c.RECORD_HEADER_SIZE + records.padded(length), self._record)
        return None if length else self._record(raw)

    def _record(self, raw: bytearray) -> Event:
        kind, length = self._header
        record = Record(self._layer, kind, length, self._start, memoryview(raw).toreadonly())
        records.check_record(record, self._version, hvm=self._hvm)
        if not record.optional:
            if self._layer is Layer.LIBXC:
                self._order_libxc(record)
            else:
                self._order_libxl(record)
        self._done()
        if self._position is Position.HEADERS and kind == Xl.LIBXC_CONTEXT:
            self._next("the libxc image header", headers.IMAGE_HEADER.size, self._image_header)
        else:
            self._expect_record()
        return record

    def _order_libxc(self, record: Record) -> None:
        kind = record.type
        if self._position is Position.STATIC:
            if kind in _STATIC:
                if kind == Xc.STATIC_DATA_END:
                    self._position = Position.MEMORY
                return
            if self._version >= 3:
                raise _order(record, "before STATIC_DATA_END")
            self._position = Position.MEMORY  # version 2 has no STATIC_DATA_END; the first other record implies it
        elif kind in _STATIC:
            raise _order(record, "after STATIC_DATA_END")
        if self._position is Position.BETWEEN_EPOCHS:
            self._position = Position.INSIDE_EPOCH
        if kind in _MEMORY:
            if self._tail:
                raise _order(record, "after the processor state of its epoch")
        elif kind not in _ENDS:
            if self._hvm and kind in self._tail:
                raise _order(record, "twice in an epoch")
            self._tail.add(kind)
        else:
            if self._hvm and Xc.HVM_CONTEXT not in self._tail:
                raise _order(record, "without HVM_CONTEXT before it")
            self._tail = set()
            self._layer = Layer.LIBXL
            self._position = Position.TRAILER if kind == Xc.END else Position.INSIDE_EPOCH

    def _order_libxl(self, record: Record) -> None:
        kind = record.type
        if self._position is Position.HEADERS:
            if kind != Xl.LIBXC_CONTEXT:
                raise _order(record, "before LIBXC_CONTEXT")
        elif kind == Xl.LIBXC_CONTEXT:
            raise _order(record, "a second time")
        elif kind == Xl.CHECKPOINT_END:
            if self._position is not Position.INSIDE_EPOCH:
                raise _order(record, "outside a checkpoint")
            self._checkpoints += 1
            self._layer, self._position = Layer.LIBXC, Position.BETWEEN_EPOCHS
        elif kind == Xl.END:
            if self._position is not Position.TRAILER:
                raise _order(record, "inside a checkpoint")
            self._position = Position.ENDED


def _order(record: Record, where: str) -> StreamError:
    return records.refused(f"wrong order: {record.layer.value}'s {record.name} {where}", record.offset)
