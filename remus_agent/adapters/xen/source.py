"""Takes checkpoints of one running PVH or HVM guest: `source_ports.Source`.

While the guest is down only what must be is done: the barrier, taking the dirty bitmap, copying the dirty
pages into staging, reading the context, resuming. Records are made afterwards, around the copied pages.
tools/libs/guest/xg_sr_save.c does the same with the guest down throughout. The thread it is done in, and what surrounds
it, is in `source_thread.py`.

An HVM guest's device model writes to the guest's memory and sends frames of its own. It is halted right after the
guest is down, saves its state, and goes on right before the guest does."""

from __future__ import annotations

import logging
import mmap
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.adapters.ledger import Entry
from remus_agent.adapters.memory import give_back
from remus_agent.adapters.xen.control import DirtyBitmap
from remus_agent.adapters.xen.device_model import DeviceModel
from remus_agent.adapters.xen.libs import Libraries
from remus_agent.adapters.xen.memory import SPECIAL, SPECIAL_HVM, GuestMemory, Pages
from remus_agent.adapters.xen.source_thread import SourceThread
from remus_agent.adapters.xen.structs import PAGE_SIZE
from remus_agent.adapters.xen.suspend import Suspender
from remus_agent.errors import GuestEnded, HypervisorError
from remus_agent.faults import FaultName, Phase, active, pause_at
from remus_agent.ports import Buffer, Domain, GuestType
from remus_agent.protocol.replication.frames import FrameType, payload_limit
from remus_agent.protocol.stream import writer
from remus_agent.protocol.stream.zero_pages import zero_pages
from remus_agent.source_ports import AtBarrier, Checkpoint, SeedRound, Timing

log = logging.getLogger(__name__)

SEED_PASSES: Final = 5
"""Seeding goes over memory once and then at most four times over what became dirty meanwhile."""
SEED_ENOUGH: Final = 256
"""Seeding ends early when about so many pages or fewer are dirty; the first checkpoint takes them."""
ROUND_PAGES: Final = 1024
"""Most pages of one SeedRound: one PAGE_DATA record."""
STAGING_KEPT: Final = 2048
"""Pages of staging that stay in memory between checkpoints (8 MiB); more is given back after use."""
_GROUP: Final = payload_limit(FrameType.STREAM)
_MAP_NORESERVE: Final = 0x4000


class Staging:
    """Room for the pages of one checkpoint: reserved for the guest's whole memory, backed by real memory
    only where used."""

    def __init__(self, pages: int) -> None:
        self._area = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        self.pages: Pages = np.frombuffer(self._area, np.uint8).reshape(pages, PAGE_SIZE)
        self.pages[: min(pages, STAGING_KEPT), 0] = 0  # touched, so that no page fault happens while a guest is down
        self._used = 0

    @property
    def held_bytes(self) -> int:
        """Of memory that are behind it now."""
        return max(min(len(self.pages), STAGING_KEPT), self._used) * PAGE_SIZE

    def take(self, count: int) -> Pages:
        self._used = max(self._used, count)
        return self.pages[:count]

    def trim(self) -> None:
        """Give back what an unusually large checkpoint needed. Its buffers must not be in use any more."""
        if self._used > STAGING_KEPT:
            give_back(self._area, STAGING_KEPT * PAGE_SIZE, self._used * PAGE_SIZE)
            self._used = 0


class XenSource(SourceThread):
    """`source_ports.Source` of one domain. supervisor: the socket of the supervisor, which must be there. device_model:
    makes what talks to an HVM guest's QEMU. entry: notes what it is done with."""

    def __init__(
        self,
        libs: Libraries,
        domain: Domain,
        preamble: bytes,
        supervisor: Path,
        device_model: Callable[[int, str], DeviceModel] = DeviceModel,
        entry: Entry | None = None,
    ) -> None:
        super().__init__(libs, domain, supervisor, entry)
        self._preamble = preamble
        self._make_device_model = device_model if domain.guest_type is GuestType.HVM else None
        self._device_model: DeviceModel | None = None

    @property
    def preamble(self) -> bytes:
        return self._preamble

    # In the thread

    def _set_up(self, stack: ExitStack) -> None:
        self._begin_device_model(stack)
        special = SPECIAL if self._device_model is None else SPECIAL_HVM
        self._memory = GuestMemory(self._libs, self._xen, special)
        stack.callback(self._memory.close)
        self._memory.map()
        self._bitmap = DirtyBitmap(self._xen.control, self._memory.frames)
        stack.callback(self._bitmap.close)
        self._staging = staging = Staging(self._memory.total)
        bitmap_bytes = self._bitmap.held_bytes
        self._entry.holds(lambda: staging.held_bytes + bitmap_bytes)
        self._xen.prepare_context()
        self._open_suspender(stack)
        stack.callback(self._logdirty_off)
        self._xen.logdirty_on()

    def _begin_device_model(self, stack: ExitStack) -> None:
        if self._make_device_model is None:
            return
        self._device_model = model = self._make_device_model(self._domain.domid, self._domain.name)
        stack.callback(model.close)
        with model.line():
            model.dirty_log(on=True)
        stack.callback(self._device_model_unlogged, model)

    def _device_model_unlogged(self, model: DeviceModel) -> None:
        try:
            with model.line():
                model.dirty_log(on=False)
        except HypervisorError as error:
            log.info("%s: the device model goes on telling Xen what it writes: %s", self._domain.name, error)

    def _seed(self) -> Iterator[SeedRound]:
        total = self._memory.total
        done = 0
        self._incomplete = "seeding was broken off"
        for start in range(0, total, ROUND_PAGES):
            stop = min(start + ROUND_PAGES, total)
            records, count = self._first_copy(self._memory.gfns_of(start, stop), np.arange(start, stop))
            done = stop
            yield SeedRound(records, count, done, total)
        for _ in range(SEED_PASSES - 1):
            if self._xen.dirty_count() <= SEED_ENOUGH:
                break
            self._memory.check_unchanged(int(self._xen.info().tot_pages))
            # CLEAN comes before the copies: a page written to while it is copied is dirty again.
            self._xen.clean(self._bitmap, final=False)
            gfns, rows = self._memory.rows_of(self._bitmap.gfns())
            total += len(gfns)
            for start in range(0, len(gfns), ROUND_PAGES):
                part = slice(start, start + ROUND_PAGES)
                pages = self._gather(rows[part])
                done += len(pages)
                yield SeedRound(_flat(writer.page_data(gfns[part], pages.data)), len(pages), done, total)
        self._incomplete = None

    def _first_copy(self, gfns: NDArray[np.uint64], rows: NDArray[np.int64]) -> tuple[list[Buffer], int]:
        """Records of pages of which nothing was sent yet, and how many have content. Pages of zeros go as
        XALLOC, eight bytes each. Stock Xen populates those and writes nothing, and its free memory is *not*
        always scrubbed (what a live domain frees is not: page_alloc.c, free_domheap_pages); therefore our
        `XenTarget` writes zeros for them."""
        pages = self._gather(rows)
        zero = zero_pages(pages.data)
        if zero.any():
            pages = pages[np.flatnonzero(~zero)]
        return (
            _flat(writer.page_data(gfns[~zero], pages.data)) + _flat(writer.page_xalloc(gfns[zero])),
            len(pages),
        )

    def _gather(self, rows: NDArray[np.int64]) -> Pages:
        pages = self._staging.take(len(rows))
        self._memory.gather(rows, pages)
        return pages

    def _take(self, epoch: int, at_barrier: AtBarrier, timeout: float, suspender: Suspender) -> Checkpoint:
        self._staging.trim()
        model = self._device_model
        with nullcontext() if model is None else model.line():
            if model is not None:
                model.prepare()
            return self._suspended(epoch, at_barrier, timeout, suspender)

    def _suspended(self, epoch: int, at_barrier: AtBarrier, timeout: float, suspender: Suspender) -> Checkpoint:
        clock, model = time.monotonic_ns, self._device_model
        emulator = b""
        asked = clock()
        info = suspender.suspend(timeout)
        down = clock()
        try:
            if model is not None:
                model.stop()
                self._memory.check_in_place()
            self._memory.check_unchanged(int(info.tot_pages))
            at_barrier()
            barrier = clock()
            self._incomplete = f"epoch {epoch} was broken off"
            self._xen.clean(self._bitmap, final=True)
            clean = clock()
            gfns, rows = self._memory.rows_of(self._bitmap.gfns())
            if not len(gfns):
                raise self._logdirty_lost()
            pages = self._gather(rows)
            copied = clock()
            tsc = self._xen.tsc_info()
            context = self._xen.hvm_context()
            params = self._xen.hvm_params()
            if model is not None:
                emulator = model.save()
            state = clock()
            pause_at(Phase.COPIED)
        finally:
            if not self._stays_down(failed=sys.exception() is not None):
                deaf = self._let_device_model_go_on()
                self._resume()
                if deaf is not None:
                    raise deaf
        running = clock()
        if not self._stay_down:
            suspender.resumed()
        records = _flat(writer.page_data(gfns, pages.data))
        records += (
            writer.tsc_info(*tsc),
            writer.hvm_context(context),
            writer.hvm_params(params),
            writer.checkpoint(),
            *([] if model is None else [writer.emulator_context(emulator)]),
            writer.checkpoint_end(),
        )
        self._incomplete = None
        timing = Timing(
            freeze=down - asked,
            barrier=barrier - down,
            clean=clean - barrier,
            copy=copied - clean,
            context=state - copied,
            resume=running - state,
            down=running - down,
        )
        return Checkpoint(epoch, len(gfns), list(writer.grouped(records, _GROUP)), timing)

    def _stays_down(self, *, failed: bool) -> bool:
        return active(FaultName.ERROR_LEAVES_SUSPENDED) if failed else self._stay_down

    def _before_resume(self) -> None:
        if self._device_model is None:
            return
        try:
            with self._device_model.line():
                self._device_model.cont()
        except HypervisorError as error:
            log.error("%s: its device model may be halted: %s", self._domain.name, error)

    def _logdirty_lost(self) -> HypervisorError:
        """A guest that suspends writes to its memory; Xen gives an empty bitmap, and no error, when
        log-dirty is off."""
        return HypervisorError(
            "Xen reports no dirty page: something else has switched log-dirty off",
            domain=self._domain.name,
            left="the guest runs; this copy of it is unusable",
            hint="do not save or migrate a protected guest; protection starts over with a full copy",
        )

    def _let_device_model_go_on(self) -> HypervisorError | None:
        """Before the guest runs, as libxl does. A guest whose device model is deaf is resumed all the same."""
        if self._device_model is None:
            return None
        try:
            self._device_model.cont()
        except HypervisorError as error:
            error.left = "the guest runs; its device model may be halted"
            return error
        return None

    def _logdirty_off(self) -> None:
        try:
            self._xen.info()
        except GuestEnded:
            return
        self._xen.logdirty_off()


def _flat(records: list[list[Buffer]]) -> list[Buffer]:
    return [buffer for record in records for buffer in record]
