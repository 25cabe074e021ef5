"""Reads streams: whole records in a buffer (`iter_records`), or a complete saved domain in pieces
(`StreamReader`).

What stock `xl save`, `xl migrate` and `xl remus` emit for PV, PVH and HVM guests is accepted, libxc versions 2
and 3. Sources in Xen: docs/specs/, tools/libs/guest/xg_sr_restore.c, tools/libs/light/libxl_stream_read.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, records
from remus_agent.protocol.stream.bodies import CheckpointState, EmulatorContext, EmulatorXenstoreData
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.dependencies import Dependencies
from remus_agent.protocol.stream.order import Order, Position, Stage
from remus_agent.protocol.stream.records import Record

__all__ = ["Event", "Position", "StreamReader", "iter_records", "next_layer"]

Event = headers.XlHeader | headers.LibxlHeader | headers.ImageHeader | headers.DomainHeader | Record
"""What a StreamReader reports, in the order of the stream."""

_ENDS: Final = (Xc.CHECKPOINT, Xc.END)
_FIRST_CAPACITY: Final = 8 << 20
"""Bytes reserved at once for a record that arrives in pieces; twice what Xen's saver puts into one."""


def next_layer(record: Record) -> Layer:
    """The layer of the record that follows: libxc's CHECKPOINT and END give way to libxl, libxl's
    CHECKPOINT_END and LIBXC_CONTEXT to libxc. (In a stream of COLO, CHECKPOINT_STATE does instead of CHECKPOINT_END.)"""
    if record.layer is Layer.LIBXC:
        return Layer.LIBXL if record.type in _ENDS else Layer.LIBXC
    return Layer.LIBXC if record.type in (Xl.CHECKPOINT_END, Xl.LIBXC_CONTEXT) else Layer.LIBXL


def iter_records(view: c.Buffer, *, layer: Layer = Layer.LIBXC, offset: int = 0, ordinal: int = 1) -> Iterator[Record]:
    """The records of a buffer that holds only whole records, as views of it, without a look at their bodies.

    layer: of the first record; later ones follow from the records. offset: of the buffer in the stream, ordinal: of
    its first record, both for messages. Raises StreamError for a record that is cut off or too long."""
    whole = memoryview(view).cast("B")
    start = 0
    while start < len(whole):
        have = len(whole) - start
        if have < c.RECORD_HEADER_SIZE:
            raise records.truncated("a record header", have, c.RECORD_HEADER_SIZE, offset + len(whole))
        kind, length = records.parse_record_header(whole, layer, offset + start, start)
        need = c.RECORD_HEADER_SIZE + records.padded(length)
        record = Record(layer, kind, length, offset + start, whole[start : start + need], ordinal)
        if have < need:
            error = records.truncated(f"record {record.name}", have, need, offset + len(whole))
            records.locate(error, record)
            raise error
        yield record
        layer = next_layer(record)
        start += need
        ordinal += 1


class StreamReader:
    """Incremental reader of one saved domain: xl header, libxl stream, libxc stream, plain or checkpointed.

    Any chunking gives the same events. It holds at most one record; lengths are checked before anything of
    that length is collected. After an error it stays dead and raises the same error again.

    colo: the stream is COLO's, which nothing in it tells: CHECKPOINT_STATE starts every epoch but the first."""

    def __init__(self, *, colo: bool = False) -> None:
        self._held = memoryview(b"")
        self._filled = 0
        self._start = 0
        self._failed: StreamError | None = None
        self._iterating = False
        self._own = True
        self._colo = colo
        self._order = Order(colo=colo)
        self._needs = Dependencies()
        self._hvm = True
        self._headers = True
        self._checkpoints = 0
        self._ordinal = 0
        self._static_end: int | None = None
        self._xl: tuple[bool, int] = (True, 0)
        self._header = (0, 0)
        self._then = self._order.stage
        self._next("xl", "the xl header", headers.XL_FIXED.size, self._xl_fixed)

    @property
    def position(self) -> Position:
        """Where in the stream the next byte stands."""
        if self._headers:
            return Position.HEADERS
        inside = self._order.stage is Stage.BETWEEN_EPOCHS and self._filled
        return Position.INSIDE_EPOCH if inside else self._order.position

    @property
    def checkpoints(self) -> int:
        """How many checkpoints are complete (CHECKPOINT_END was read)."""
        return self._checkpoints

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._start + self._filled

    @property
    def records_read(self) -> int:
        """How many whole records were read, of both layers."""
        return self._ordinal

    @property
    def static_data_end(self) -> int | None:
        """Offset of the record that ends the static data: STATIC_DATA_END, or in version 2 the first record
        that implies it. None before it was read."""
        return self._static_end

    def feed(self, data: c.Buffer) -> list[Event]:
        """Take bytes, return what is complete now. `data` may be reused afterwards: records own their bytes, which
        were copied once. Raises StreamError."""
        return list(self._guarded(data, own=True))

    def views(self, data: c.Buffer) -> Iterator[Event]:
        """Take bytes, iterate over what is complete in them. A record that lies in `data` as a whole is a view of
        it, without a copy; one that began in earlier bytes owns its bytes, which were copied once.

        `data` must not change while such a record is in use, and the iteration must be finished before the next
        call. Meant for large buffers (a mapped file, reads of several MiB). Raises StreamError, while iterating."""
        return self._guarded(data, own=False)

    def close(self) -> None:
        """The bytes have ended. Raises StreamError unless the stream has ended too; `left` tells inside or
        between epochs."""
        if self._failed is not None:
            raise self._failed
        if self._order.stage is Stage.ENDED:
            return
        left = f"{self.position.value}, {self._checkpoints} checkpoints complete"
        if self._filled or self._headers:
            what = self._what or f"record {self._name()}"
            self._failed = records.truncated(what, self._filled, self._need, self.offset, left)
        else:
            self._failed = StreamError(
                f"truncated {self.position.value}: no END record",
                offset=self.offset,
                expected="a record",
                found="the end of the bytes",
                operation=c.READ,
                left=left,
            )
        self._locate(self._failed)
        raise self._failed

    def _guarded(self, data: c.Buffer, *, own: bool) -> Iterator[Event]:
        if self._iterating:
            raise RuntimeError("the events of the bytes before these were not all taken")
        if self._failed is not None:
            raise self._failed
        self._iterating, self._own = True, own
        return self._events(memoryview(data).cast("B"))

    def _events(self, data: memoryview) -> Iterator[Event]:
        try:
            used = 0
            while used < len(data):
                if self._order.stage is Stage.ENDED:
                    raise records.refused(
                        "bytes after the end of the stream", self._start, expected="none", found="more"
                    )
                if self._filled or len(data) - used < self._need:
                    used += self._hold(data[used:])
                    if self._filled < self._need:
                        continue
                    event = self._step(self._held[: self._need])
                else:
                    raw = data[used : used + self._need]
                    before = self._start
                    event = self._step(raw)
                    used += self._start - before
                if event is not None:
                    yield event
        except StreamError as error:
            self._locate(error)
            self._failed = error
            self._iterating = False
            self._release()
            raise
        self._iterating = False

    def _hold(self, data: memoryview) -> int:
        """Copy what the present structure still needs, into memory that is reserved as bytes arrive: a length is only
        a claim. Returns how much was taken."""
        size = min(len(data), self._need - self._filled)
        wanted = self._filled + size
        if wanted > len(self._held):
            capacity = min(self._need, max(wanted, 2 * len(self._held), _FIRST_CAPACITY))
            grown = np.empty(capacity, dtype=np.uint8).data  # not touched before it is filled
            grown[: self._filled] = self._held[: self._filled]
            self._held = grown
        self._held[self._filled : wanted] = data[:size]
        self._filled = wanted
        return size

    def _release(self) -> None:
        self._held = memoryview(b"")
        self._filled = 0

    def _taken(self, raw: memoryview) -> None:
        """The structure in `raw` is done; the next one begins behind it."""
        self._start += len(raw)
        if self._filled:
            self._release()

    def _next(self, layer: str, what: str, need: int, step: Callable[[memoryview], Event | None]) -> None:
        """What comes next. what: its name for messages, empty for a record, which need not be named while all is well."""
        self._layer, self._what, self._need, self._step = layer, what, need, step

    def _name(self) -> str:
        """The structure that is being read."""
        return self._what or records.record_name(Layer(self._layer), self._header[0])

    def _locate(self, error: StreamError) -> None:
        in_record = self._step in (self._record, self._record_header)
        ordinal = self._ordinal + 1 if in_record else None
        error.locate(str(self._layer), self._name(), start=self._start, ordinal=ordinal)

    def _xl_fixed(self, raw: memoryview) -> Event | None:
        length, json, optional = headers.parse_xl_fixed(raw)
        self._xl = (json, optional)
        self._taken(raw)
        if not length:
            self._next("libxl", "the libxl header", headers.LIBXL_HEADER.size, self._libxl_header)
            return headers.XlHeader(b"", json, optional)
        self._next("xl", "the configuration in the xl header", length, self._xl_optional)
        return None

    def _xl_optional(self, raw: memoryview) -> Event:
        json, optional = self._xl
        header = headers.parse_xl_optional(raw, json=json, optional_flags=optional)
        self._taken(raw)
        self._next("libxl", "the libxl header", headers.LIBXL_HEADER.size, self._libxl_header)
        return header

    def _libxl_header(self, raw: memoryview) -> Event:
        header = headers.parse_libxl_header(raw, self._start)
        self._taken(raw)
        self._expect_record()
        return header

    def _image_header(self, raw: memoryview) -> Event:
        header = headers.parse_image_header(raw, self._start)
        self._order.version = header.version
        self._taken(raw)
        self._next("libxc", "the libxc domain header", headers.DOMAIN_HEADER.size, self._domain_header)
        return header

    def _domain_header(self, raw: memoryview) -> Event:
        header = headers.parse_domain_header(raw, self._start)
        self._hvm = header.type is c.DomainType.HVM
        self._needs = Dependencies(hvm=self._hvm)
        self._headers = False
        self._taken(raw)
        self._expect_record()
        return header

    def _expect_record(self) -> None:
        self._next(self._order.layer, "a record header", c.RECORD_HEADER_SIZE, self._record_header)

    def _record_header(self, raw: memoryview) -> Event | None:
        layer = self._order.layer
        kind, length = self._header = records.RECORD_HEADER.unpack(raw)
        need = c.RECORD_HEADER_SIZE + records.padded(length)
        self._next(layer, "", need, self._record)
        records.check_length(layer, kind, length, self._start)
        if self._order.stage is Stage.BETWEEN_EPOCHS and self._hvm and (kind, length) == (Xl.CHECKPOINT_STATE, 8):
            raise records.colo_only(self._start)  # for libxc this type is a PV guest's, and COLO knows HVM guests only
        version = self._order.version
        records.check_header(layer, kind, length, self._start, version=version, hvm=self._hvm, colo=self._colo)
        if layer is Layer.LIBXC and not kind & c.RECORD_OPTIONAL:
            self._needs.need(kind, self._start)
        self._then = self._order.step(kind, self._start)
        return None if length else self._record(raw)

    def _record(self, raw: memoryview) -> Event:
        kind, length = self._header
        whole = memoryview(bytes(raw)) if self._own and not self._filled else raw.toreadonly()
        record = Record(self._order.layer, kind, length, self._start, whole, self._ordinal + 1)
        body = records.check_body(record, hvm=self._hvm, max_pfn=self._needs.max_pfn)
        if not record.optional:
            self._take(record, body)
        self._ordinal += 1
        self._taken(raw)
        if self._headers and kind == Xl.LIBXC_CONTEXT:
            self._next("libxc", "the libxc image header", headers.IMAGE_HEADER.size, self._image_header)
        else:
            self._expect_record()
        return record

    def _take(self, record: Record, body: records.Body) -> None:
        then = self._then
        if record.layer is Layer.LIBXC:
            if self._order.stage is Stage.STATIC and then is not Stage.STATIC:
                self._needs.leave_static_data(record.offset)
                self._static_end = record.offset
            self._needs.take(record, body)
        elif isinstance(body, EmulatorContext | EmulatorXenstoreData):
            self._needs.take_emulator(record, body)
        elif isinstance(body, CheckpointState) and body.id is not c.CheckpointStateId.NEW:
            raise records.refused(
                "COLO's secondary sends this CHECKPOINT_STATE back to the primary",
                record.body_offset,
                expected=c.CheckpointStateId.NEW.name,
                found=body.id.name,
            )
        elif record.type == Xl.CHECKPOINT_END:
            self._checkpoints += 1
        self._order.enter(then)
