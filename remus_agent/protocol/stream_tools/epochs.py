"""Cuts a stream with checkpoints into what the protocol between agents carries: preamble, whole records, ends of epochs.

A plain stream is refused, which can be known only where it ends: nothing in its beginning says that no checkpoint will come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from remus_agent.errors import RefusedError, StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, records, writer
from remus_agent.protocol.stream.constants import GuestType
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.page_data import checked_pages, content_pages
from remus_agent.protocol.stream.records import Record, refused
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.walk import StreamWalk, Structure

_CONFIG_AT: Final = headers.XL_FIXED.size + 4
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MEMORY_MAX_KIB: Final = 1 << 40
"""libxl says "not set" by a number above this."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Everything before memory, and whose it is. memory_kib: what the guest is meant to have; xen: (major, minor) of the
    writer; devices: kinds of devices that the guest has besides interfaces, as libxl calls them (`disks`)."""

    raw: bytes
    name: str
    uuid: str
    guest_type: GuestType
    memory_kib: int
    xen: tuple[int, int]
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """One whole record of an epoch, in buffers that follow each other."""

    epoch: int
    buffers: tuple[c.Buffer, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Complete:
    """All records of an epoch have come. pages: with content."""

    epoch: int
    pages: int


Part = Beginning | Piece | Complete


class EpochSplitter:
    """Takes the bytes of a stream in pieces of any size. limit: bytes that one record may have in what comes out; longer
    PAGE_DATA is cut, other records of that length are refused. After an error it stays dead."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._walk = StreamWalk()
        self._guest = Guest()
        self._front = bytearray()
        self._pages = 0
        self.complete = 0
        """The newest complete epoch; 0: none yet."""

    def feed(self, data: c.Buffer) -> Iterator[Part]:
        """What `data` completes; go through all of it before the next call. Records are views of `data` where they lie in
        it as a whole. Raises StreamError, RefusedError for a plain stream."""
        for structure in self._walk.feed(data):
            self._guest.take(structure)
            self._guest.check(structure)
            try:
                yield from self._parts(structure)
            except StreamError as error:
                raise structure.blame(error) from None

    def close(self) -> None:
        """The bytes have ended. Raises CutBetweenEpochs or CutInsideEpoch unless the stream has ended too."""
        self._walk.close()

    def _parts(self, structure: Structure) -> Iterator[Part]:
        record = structure.event
        if not isinstance(record, Record) or structure.epoch == 0:
            yield from self._before_memory(structure)
            return
        for buffers in self._fitting(record, self._raw(structure)):
            yield Piece(structure.epoch, buffers, sum(map(_size, buffers)))
        if structure.is_libxc(Xc.PAGE_DATA):
            self._pages += content_pages(record)
        elif structure.completes:
            self.complete = structure.epoch
            pages, self._pages = self._pages, 0
            yield Complete(self.complete, pages)

    def _before_memory(self, structure: Structure) -> Iterator[Part]:
        if isinstance(structure.event, headers.ImageHeader) and structure.event.version < c.LIBXC_VERSION:
            raise refused(
                "a libxc stream of version 2 cannot be sent: nothing in it ends the preamble",
                structure.offset,
                expected="version 3 (Xen 4.14 or later)",
                found="version 2",
            )
        self._front += structure.raw
        if structure.is_libxc(Xc.STATIC_DATA_END):
            raw, self._front = bytes(self._front), bytearray()
            yield self._beginning(raw)

    def _beginning(self, raw: bytes) -> Beginning:
        guest = self._guest
        kind = (guest.kind or "").lower()
        if (
            guest.config is None
            or guest.name is None
            or guest.domain is None
            or kind not in {known.value for known in GuestType}
        ):
            raise _unfit("name and type of the guest", "JSON with c_info.name and c_info.type")
        info = guest.config["c_info"]
        uuid = str(info.get("uuid")).lower()
        if _UUID.fullmatch(uuid) is None:
            raise _unfit("the guest's UUID", "c_info.uuid", found=uuid)
        # Every list of libxl's configuration is one of devices.
        lists = (key for key, value in guest.config.items() if isinstance(value, list) and value)
        devices = tuple(sorted({*lists} - {"nics"}))
        return Beginning(raw, guest.name, uuid, GuestType(kind), _memory(guest.config), guest.domain.xen, devices)

    def _raw(self, structure: Structure) -> c.Buffer:
        """The record; in the place of END records those of a checkpoint, because the state at the end of a stream
        is an epoch like any other."""
        if structure.is_libxc(Xc.END):
            if self.complete == 0:
                raise RefusedError(
                    "this is a plain stream, which has no checkpoints to acknowledge",
                    operation="read the stream",
                    hint="send what xl remus writes; what xl save wrote is for xl restore",
                )
            return writer.checkpoint()
        return writer.checkpoint_end() if structure.is_libxl(Xl.END) else structure.raw

    def _fitting(self, record: Record, raw: c.Buffer) -> Iterator[tuple[c.Buffer, ...]]:
        if len(raw) <= self._limit:
            yield (raw,)
        elif record.layer is c.Layer.LIBXC and record.type == Xc.PAGE_DATA:
            yield from shorter(record)
        else:
            raise refused(
                f"{record.name} is too long to be sent",
                record.offset,
                expected=f"at most {self._limit} bytes",
                found=f"{len(raw)}",
            )


def shorter(record: Record) -> Iterator[tuple[c.Buffer, ...]]:
    """The same pages as PAGE_DATA records of at most 1024 pfns, which is what Xen's saver puts into one. No content is
    copied."""
    page = checked_pages(record)
    ends = np.cumsum(page.has_content) * c.PAGE_SIZE
    begin = 0
    for start in range(0, len(page.entries), c.PAGES_PER_RECORD):
        part = page.entries[start : start + c.PAGES_PER_RECORD]
        end = int(ends[start + len(part) - 1])
        length = records.COUNT.size + part.nbytes + end - begin
        head = records.RECORD_HEADER.pack(Xc.PAGE_DATA, length) + records.COUNT.pack(len(part), 0) + part.tobytes()
        yield (head, page.content[begin:end]) if end > begin else (head,)
        begin = end


def _memory(config: dict[str, Any]) -> int:
    build = config.get("b_info")
    for key in ("target_memkb", "max_memkb"):
        value = build.get(key) if isinstance(build, dict) else None
        if isinstance(value, int) and 0 < value < _MEMORY_MAX_KIB:
            return value
    raise _unfit("how much memory the guest has", "b_info.target_memkb or b_info.max_memkb")


def _unfit(what: str, expected: str, found: str = "none") -> StreamError:
    """The configuration in the xl header lacks something."""
    error = refused(f"the configuration does not say {what}", _CONFIG_AT, expected=expected, found=found)
    error.locate("xl", "the xl header", start=0)
    return error


def _size(buffer: c.Buffer) -> int:
    return memoryview(buffer).nbytes
