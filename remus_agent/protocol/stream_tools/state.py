"""What a stream makes of its guest at an epoch: memory as digests, everything else as it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import records
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.page_data import checked_pages
from remus_agent.protocol.stream.records import Record
from remus_agent.protocol.stream_tools.convert import no_such_epoch
from remus_agent.protocol.stream_tools.pages import ZERO_PAGE_DIGEST, PageTable, page_digests
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.walk import Structure

_OF_VCPU: Final = (Xc.X86_PV_VCPU_BASIC, Xc.X86_PV_VCPU_EXTENDED, Xc.X86_PV_VCPU_XSAVE, Xc.X86_PV_VCPU_MSRS)
_TYPE_STEP: Final = 0x9E3779B97F4A7C15
"""Odd, so that the same content of two page types has two digests."""


@dataclass(slots=True)
class State:
    """A guest at an epoch. static: bodies of the records before memory by name; tail: bodies of the records after
    memory and of the device model by name (of a PV processor with its number); memory: by pfn a digest of page type
    and content, pages without content as zeros."""

    epoch: int = 0
    static: dict[str, bytes] = field(default_factory=dict)
    tail: dict[str, bytes] = field(default_factory=dict)
    memory: PageTable = field(default_factory=PageTable)


class StateReader:
    """Takes every structure of a stream. epoch: the one that is wanted, None for the last complete one."""

    def __init__(self, epoch: int | None = None) -> None:
        self.guest = Guest()
        self._wanted = epoch
        self._state = State()
        self._new_memory = PageTable()
        self._new_tail: dict[str, bytes] = {}
        self._verifying = False

    @property
    def complete(self) -> int:
        """The newest complete epoch; 0: none yet."""
        return self._state.epoch

    @property
    def done(self) -> bool:
        """True when the wanted epoch is complete: the rest of the stream does not matter."""
        return self._wanted is not None and self._state.epoch >= self._wanted

    def take(self, structure: Structure) -> None:
        """Apply a structure. Raises StreamError."""
        self.guest.take(structure)
        self.guest.check(structure)
        record = structure.event
        if not isinstance(record, Record) or record.optional or self.done:
            return
        if structure.completes:
            self._state.memory.update(self._new_memory)
            self._state.tail = self._new_tail
            self._state.epoch = structure.epoch
            self._new_memory, self._new_tail = PageTable(), {}
        elif structure.is_libxc(Xc.PAGE_DATA):
            if not self._verifying:
                self._apply(record)
        elif structure.is_libxc(Xc.VERIFY):
            self._verifying = True  # what follows is compared with memory, not applied (xg_sr_restore.c)
        elif structure.is_libxc(Xc.X86_PV_P2M_FRAMES) or structure.epoch == 0:
            self._state.static[_key(record)] = bytes(record.body)
        elif not structure.is_libxc(Xc.CHECKPOINT, Xc.END):
            self._new_tail[_key(record)] = bytes(record.body)

    def finish(self) -> State:
        """The guest at the wanted epoch. Raises RefusedError when the stream does not hold it."""
        if self._state.epoch == 0 or (self._wanted is not None and self._state.epoch < self._wanted):
            raise no_such_epoch(self._wanted, self._state.epoch)
        return self._state

    def _apply(self, record: Record) -> None:
        page = checked_pages(record)
        full = page.has_content
        digests = np.full(len(page.pfns), ZERO_PAGE_DIGEST, dtype=np.uint64)
        digests[full] = page_digests(page.content)
        types = np.where(page.types == int(c.PageType.XALLOC), 0, page.types).astype(np.uint64)
        digests ^= types * np.uint64(_TYPE_STEP)
        applied = full | (page.types == int(c.PageType.XALLOC))  # XTAB and BROKEN leave memory as it is
        if applied.all():
            self._new_memory.add(page.pfns, digests)
        elif applied.any():
            self._new_memory.add(page.pfns[applied], digests[applied])


def _key(record: Record) -> str:
    """Name of a record among those of its epoch."""
    if record.layer is c.Layer.LIBXC and record.type in _OF_VCPU:
        return f"{record.name} {records.COUNT.unpack_from(record.body)[0]}"
    if record.layer is c.Layer.LIBXL and record.type in (Xl.EMULATOR_CONTEXT, Xl.EMULATOR_XENSTORE_DATA):
        number, index = records.COUNT.unpack_from(record.body)
        return f"{record.name} {number}.{index}"
    return record.name
