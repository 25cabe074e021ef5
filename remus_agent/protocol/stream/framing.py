"""Framing of records: header (u32 type, u32 length), body, zeros up to a multiple of 8 bytes; and the errors that
name a place in a stream.

Sources in Xen: docs/specs/libxc-migration-stream.pandoc (Records), libxl-migration-stream.pandoc (Record
Overview), tools/libs/guest/xg_sr_common.c (read_record).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc

RECORD_HEADER: Final = struct.Struct("<II")

_NAMES: Final = {
    c.Layer.LIBXC: {int(kind): kind.name for kind in Xc},
    c.Layer.LIBXL: {int(kind): kind.name for kind in c.LibxlRecordType},
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record. raw: header, body and padding. offset: of its header, in bytes from the stream's start.
    ordinal: its number in the stream, from 1 on and over both layers."""

    layer: c.Layer
    type: int
    length: int
    offset: int
    raw: memoryview
    ordinal: int = 1

    @property
    def body(self) -> memoryview:
        """The body without padding."""
        return self.raw[c.RECORD_HEADER_SIZE : c.RECORD_HEADER_SIZE + self.length]

    @property
    def body_offset(self) -> int:
        """Where the body begins, in bytes from the stream's start."""
        return self.offset + c.RECORD_HEADER_SIZE

    @property
    def name(self) -> str:
        """The type as the specification names it."""
        return record_name(self.layer, self.type)

    @property
    def optional(self) -> bool:
        """True for records that a reader may skip."""
        return bool(self.type & c.RECORD_OPTIONAL)


def known(layer: c.Layer, kind: int) -> bool:
    """Whether the specification has this record type."""
    return kind in _NAMES[layer]


def record_name(layer: c.Layer, kind: int) -> str:
    """Name of a record type, for messages."""
    name = _NAMES[layer].get(kind)
    if name is not None:
        return name
    return f"{'optional' if kind & c.RECORD_OPTIONAL else 'mandatory'} {layer.value} record {kind:#x}"


def padded(length: int) -> int:
    """The length of a body with its padding."""
    return -(-length // c.RECORD_ALIGN) * c.RECORD_ALIGN


def pack_record(kind: int, body: c.Buffer = b"") -> bytes:
    """A whole record; the body is copied (page content never goes through here). Raises StreamError above
    REC_LENGTH_MAX."""
    length = len(body)
    if length > c.REC_LENGTH_MAX:
        raise StreamError(
            f"a record of {length} bytes is longer than the limit of {c.REC_LENGTH_MAX}",
            offset=0,
            operation=c.WRITE,
        )
    return b"".join((RECORD_HEADER.pack(kind, length), body, bytes(padded(length) - length)))


def parse_record_header(raw: c.Buffer, layer: c.Layer, offset: int, start: int = 0) -> tuple[int, int]:
    """(type, body length) of the record whose header is at raw[start:]. Raises StreamError above
    REC_LENGTH_MAX."""
    kind, length = RECORD_HEADER.unpack_from(raw, start)
    check_length(layer, kind, length, offset)
    return kind, length


def check_length(layer: c.Layer, kind: int, length: int, offset: int) -> None:
    """Raises StreamError for a body above REC_LENGTH_MAX. offset: of the record's header."""
    if length > c.REC_LENGTH_MAX:
        raise refused(
            f"{record_name(layer, kind)} is too long",
            offset + 4,
            expected=f"at most {c.REC_LENGTH_MAX} bytes",
            found=f"{length}",
        )


def refused(
    message: str, offset: int, *, expected: str | None = None, found: str | None = None, hint: str | None = None
) -> StreamError:
    """The error of a reader at a byte of the stream. expected: what the rule asks for; found: what is there (both,
    unless the message says them)."""
    return StreamError(message, offset=offset, expected=expected, found=found, operation=c.READ, hint=hint)


def truncated(what: str, have: int, need: int, offset: int, left: str | None = None) -> StreamError:
    """The error of a structure of `need` bytes that ended after `have`. offset: where the bytes end."""
    return StreamError(
        f"truncated in {what}: {need - have} of its {need} bytes are missing",
        offset=offset,
        expected=f"{need} bytes",
        found=f"{have}",
        operation=c.READ,
        left=left,
    )


def locate(error: StreamError, record: Record) -> None:
    """Say that an error is this record's, unless it names another place already."""
    error.locate(record.layer.value, record.name, start=record.offset, ordinal=record.ordinal)
