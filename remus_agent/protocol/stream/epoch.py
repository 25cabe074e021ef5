"""Checks the records of one epoch and sorts them into memory, tail and device model, without copying.

An epoch is PAGE_DATA*, the state that belongs to the guest's type, CHECKPOINT (libxc), for an HVM guest the records
of its device model, CHECKPOINT_END (libxl), in the order in which Xen's saver emits them (xg_sr_save.c,
xg_sr_save_x86_hvm.c, xg_sr_save_x86_pv.c, libxl_stream_write.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import records
from remus_agent.protocol.stream.bodies import VcpuState
from remus_agent.protocol.stream.constants import GuestType, Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.reader import iter_records, next_layer
from remus_agent.protocol.stream.records import Record


@dataclass(frozen=True, slots=True)
class _Step:
    """Records that may stand at one place of an epoch. least, most: how many of them."""

    layer: Layer
    kinds: tuple[int, ...]
    least: int = 1
    most: int = 1

    @property
    def names(self) -> str:
        return " or ".join(records.record_name(self.layer, kind) for kind in self.kinds)


_TSC: Final = _Step(Layer.LIBXC, (Xc.X86_TSC_INFO,))
_VCPU: Final = (Xc.X86_PV_VCPU_BASIC, Xc.X86_PV_VCPU_EXTENDED, Xc.X86_PV_VCPU_XSAVE, Xc.X86_PV_VCPU_MSRS)
"""In the order in which they are written for one vcpu; only the first is always there."""
_CHECKPOINT: Final = _Step(Layer.LIBXC, (Xc.CHECKPOINT,))
_CHECKPOINT_END: Final = _Step(Layer.LIBXL, (Xl.CHECKPOINT_END,))
_HVM_STATE: Final = (_TSC, _Step(Layer.LIBXC, (Xc.HVM_CONTEXT,)), _Step(Layer.LIBXC, (Xc.HVM_PARAMS,)), _CHECKPOINT)
_AFTER_MEMORY: Final = {
    GuestType.PVH: (*_HVM_STATE, _CHECKPOINT_END),
    GuestType.HVM: (
        *_HVM_STATE,
        _Step(Layer.LIBXL, (Xl.EMULATOR_XENSTORE_DATA,), least=0),
        _Step(Layer.LIBXL, (Xl.EMULATOR_CONTEXT,), least=0),
        _CHECKPOINT_END,
    ),
    GuestType.PV: (
        _TSC,
        _Step(Layer.LIBXC, (Xc.SHARED_INFO,)),
        _Step(Layer.LIBXC, _VCPU, most=len(_VCPU) * c.VCPUS_MAX),
        _CHECKPOINT,
        _CHECKPOINT_END,
    ),
}
_MARKS: Final = {(Layer.LIBXC, Xc.CHECKPOINT), (Layer.LIBXL, Xl.CHECKPOINT_END)}
"""Records that end a part and carry nothing to keep."""


@dataclass(frozen=True, slots=True)
class StagedEpoch:
    """One complete epoch. page_records: whole PAGE_DATA records in order (first epoch of a PV guest: its
    X86_PV_P2M_FRAMES before them); tail: X86_TSC_INFO and the processor state, whole records (PVH and HVM:
    HVM_CONTEXT, HVM_PARAMS; PV: SHARED_INFO, X86_PV_VCPU_…); pages: how many pages with content; emulator: the
    records of an HVM guest's device model, whole. All buffers are views of what was parsed."""

    page_records: list[c.Buffer]
    tail: list[c.Buffer]
    pages: int
    emulator: list[c.Buffer] = field(default_factory=list)


class EpochParser:
    """Checks an epoch as its parts arrive. max_pfn: largest pfn allowed, inclusive. guest: whose epoch it is.
    After an error it stays dead."""

    def __init__(self, max_pfn: int, guest: GuestType = GuestType.PVH) -> None:
        self._max_pfn = max_pfn
        self._hvm = guest is not GuestType.PV
        self._steps = _AFTER_MEMORY[guest]
        self._layer = Layer.LIBXC
        self._offset = 0
        self._ordinal = 1
        self._step = 0
        self._count = 0
        self._vcpu = (-1, len(_VCPU))
        self._page_records: list[c.Buffer] = []
        self._tail: list[c.Buffer] = []
        self._emulator: list[c.Buffer] = []
        self._pages = 0
        self._any_page = False
        self._failed: StreamError | None = None

    @property
    def complete(self) -> bool:
        """True once CHECKPOINT_END was read."""
        return self._step == len(self._steps)

    def feed(self, view: c.Buffer) -> None:
        """Take a buffer of whole records. It is kept, not copied. Raises StreamError (offset: from the
        epoch's first byte, ordinal: from its first record)."""
        if self._failed is not None:
            raise self._failed
        try:
            for record in iter_records(view, layer=self._layer, offset=self._offset, ordinal=self._ordinal):
                try:
                    self._take(record)
                except StreamError as error:
                    records.locate(error, record)
                    raise
                self._layer = next_layer(record)
                self._ordinal += 1
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
            needed = self._needed()
            raise records.refused(
                f"truncated inside an epoch: {needed.names} is missing",
                self._offset,
                expected=needed.names,
                found="the end of the epoch's bytes",
            )
        return StagedEpoch(self._page_records, self._tail, self._pages, self._emulator)

    def _take(self, record: Record) -> None:
        if self._step == 0 and self._take_memory(record):
            return
        body = records.check_record(record, hvm=self._hvm)
        if record.optional:
            return
        if self.complete:
            raise records.refused(
                f"wrong order: {record.name} after the end of the epoch",
                record.offset,
                expected="nothing",
                found=record.name,
            )
        self._step, self._count = self._place(record)
        if isinstance(body, VcpuState):
            self._order_vcpu(record, body)
        if (record.layer, record.type) not in _MARKS:
            (self._tail if record.layer is Layer.LIBXC else self._emulator).append(record.raw)
        if self._count == self._steps[self._step].most:
            self._step, self._count = self._step + 1, 0

    def _take_memory(self, record: Record) -> bool:
        if record.type == Xc.PAGE_DATA:
            page = records.parse_page_data(record.body, record.body_offset, max_pfn=self._max_pfn, hvm=self._hvm)
            self._pages += page.pages
            self._any_page = True
        elif record.type == Xc.X86_PV_P2M_FRAMES and not self._hvm and not self._any_page:
            records.check_record(record, hvm=False)
        else:
            return False
        self._page_records.append(record.raw)
        return True

    def _place(self, record: Record) -> tuple[int, int]:
        """(step, how many records of it with this one) at which a record stands. Raises StreamError."""
        step, count = self._step, self._count
        while step < len(self._steps):
            place = self._steps[step]
            if record.layer is place.layer and record.type in place.kinds:
                return step, count + 1
            if count < place.least:
                break
            step, count = step + 1, 0
        needed = self._needed()
        raise records.refused(
            f"wrong order: {record.name} where {needed.names} belongs",
            record.offset,
            expected=needed.names,
            found=record.name,
        )

    def _needed(self) -> _Step:
        """The next record that must come; the epoch is not complete."""
        place = self._steps[self._step]
        if self._count < place.least:
            return place
        return next(step for step in self._steps[self._step + 1 :] if step.least)

    def _order_vcpu(self, record: Record, body: VcpuState) -> None:
        """A vcpu's records begin with its BASIC, stand together, and follow those of smaller vcpus."""
        if not body.context:
            return
        vcpu, last = self._vcpu
        rank = _VCPU.index(Xc(record.type))
        if body.vcpu < vcpu or (rank <= last if body.vcpu == vcpu else rank > 0):
            raise records.refused(
                f"wrong order: {record.name} of vcpu {body.vcpu}",
                record.offset,
                expected="X86_PV_VCPU_BASIC of the next vcpu, or more of the last",
                found=f"{record.name} of vcpu {body.vcpu}",
            )
        self._vcpu = (body.vcpu, rank)


def parse_epoch(views: Iterable[c.Buffer], max_pfn: int, guest: GuestType = GuestType.PVH) -> StagedEpoch:
    """One epoch from buffers of whole records. max_pfn: largest pfn allowed, inclusive. guest: whose epoch it is.

    Raises StreamError: truncated, wrong order, bad record, pfn beyond max_pfn; offset: bytes from the
    first view's start."""
    parser = EpochParser(max_pfn, guest)
    for view in views:
        parser.feed(view)
    return parser.finish()
