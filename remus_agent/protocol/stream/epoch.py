"""Checks the records of one epoch and sorts them into memory and tail, without copying.

An epoch is PAGE_DATA* X86_TSC_INFO HVM_CONTEXT HVM_PARAMS CHECKPOINT (libxc) CHECKPOINT_END (libxl): the
order in which Xen's saver emits a checkpoint of a PVH guest (xg_sr_save.c, xg_sr_save_x86_hvm.c,
libxl_stream_write.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import records
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.reader import iter_records, next_layer
from remus_agent.protocol.stream.records import Record

_AFTER_MEMORY: Final = (
    (Layer.LIBXC, Xc.X86_TSC_INFO),
    (Layer.LIBXC, Xc.HVM_CONTEXT),
    (Layer.LIBXC, Xc.HVM_PARAMS),
    (Layer.LIBXC, Xc.CHECKPOINT),
    (Layer.LIBXL, Xl.CHECKPOINT_END),
)
_TAIL: Final = 3


@dataclass(frozen=True, slots=True)
class StagedEpoch:
    """One complete epoch. page_records: whole PAGE_DATA records in order; tail: TSC_INFO, HVM_CONTEXT,
    HVM_PARAMS, whole records; pages: how many pages with content. All buffers are views of what was
    parsed."""

    page_records: list[c.Buffer]
    tail: list[c.Buffer]
    pages: int


class EpochParser:
    """Checks an epoch as its parts arrive. max_pfn: largest pfn allowed, inclusive. After an error it stays
    dead."""

    def __init__(self, max_pfn: int) -> None:
        self._max_pfn = max_pfn
        self._layer = Layer.LIBXC
        self._offset = 0
        self._step = 0
        self._page_records: list[c.Buffer] = []
        self._tail: list[c.Buffer] = []
        self._pages = 0
        self._failed: StreamError | None = None

    @property
    def complete(self) -> bool:
        """True once CHECKPOINT_END was read."""
        return self._step == len(_AFTER_MEMORY)

    def feed(self, view: c.Buffer) -> None:
        """Take a buffer of whole records. It is kept, not copied. Raises StreamError (offset: from the
        epoch's first byte)."""
        if self._failed is not None:
            raise self._failed
        try:
            for record in iter_records(view, layer=self._layer, offset=self._offset):
                self._take(record)
                self._layer = next_layer(record)
        except StreamError as error:
            self._failed = error
            raise
        self._offset += memoryview(view).nbytes

    def take_pages(self) -> list[c.Buffer]:
        """The PAGE_DATA records since the last call, which are then forgotten here (seeding: apply memory as
        it comes)."""
        taken, self._page_records = self._page_records, []
        return taken

    def finish(self) -> StagedEpoch:
        """The epoch. Raises StreamError when its end has not arrived."""
        if self._failed is not None:
            raise self._failed
        if not self.complete:
            layer, kind = _AFTER_MEMORY[self._step]
            raise records.refused(
                f"truncated inside an epoch: {records.record_name(layer, kind)} is missing", self._offset
            )
        return StagedEpoch(self._page_records, self._tail, self._pages)

    def _take(self, record: Record) -> None:
        if self._step == 0 and (record.layer, record.type) == (Layer.LIBXC, Xc.PAGE_DATA):
            page = records.parse_page_data(record.body, record.offset + c.RECORD_HEADER_SIZE, max_pfn=self._max_pfn)
            self._page_records.append(record.raw)
            self._pages += page.pages
            return
        records.check_record(record)
        if record.optional:
            return
        if self.complete:
            raise records.refused(f"wrong order: {record.name} after the end of the epoch", record.offset)
        layer, kind = _AFTER_MEMORY[self._step]
        if (record.layer, record.type) != (layer, kind):
            raise records.refused(
                f"wrong order: {record.name} where {records.record_name(layer, kind)} belongs", record.offset
            )
        if self._step < _TAIL:
            self._tail.append(record.raw)
        self._step += 1


def parse_epoch(views: Iterable[c.Buffer], max_pfn: int) -> StagedEpoch:
    """One epoch from buffers of whole records. max_pfn: largest pfn allowed, inclusive.

    Raises StreamError: truncated, wrong order, bad record, pfn beyond max_pfn; offset: bytes from the
    first view's start."""
    parser = EpochParser(max_pfn)
    for view in views:
        parser.feed(view)
    return parser.finish()
