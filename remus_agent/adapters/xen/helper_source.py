"""Takes checkpoints of one running PV guest through Xen's own save helper: `source_ports.Source`.

A PV guest's page tables hold machine addresses, so its pages must be rewritten as they are read; the helper does that, as
it does for `xl remus`. What is different from there: while the guest is down the helper writes into the buffer of a
socket that nobody reads, and its stream is taken out and sent when the guest runs again.

The helper waits in its `checkpoint` callback from one epoch to the next. The thread it is done in, and what
surrounds it, is in `source_thread.py`."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, TypeVar

from remus_agent.adapters.ledger import Entry
from remus_agent.adapters.xen.helper_stream import DEEPEST, PIECE, SLACK, Found, HelperStream
from remus_agent.adapters.xen.libs import Libraries
from remus_agent.adapters.xen.memory import memory_changed
from remus_agent.adapters.xen.save_helper import SaveHelper
from remus_agent.adapters.xen.source_thread import SourceThread
from remus_agent.adapters.xen.structs import PAGE_SIZE
from remus_agent.adapters.xen.suspend import Suspender
from remus_agent.errors import GuestEnded, HypervisorError
from remus_agent.faults import Phase, pause_at
from remus_agent.ports import Buffer, Domain
from remus_agent.protocol.replication.frames import FrameType, payload_limit
from remus_agent.protocol.save_helper import Callback
from remus_agent.protocol.stream import headers, writer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.preamble import parse_preamble
from remus_agent.source_ports import AtBarrier, Checkpoint, SeedRound, Timing

log = logging.getLogger(__name__)

STALL: Final = 60.0
"""Seconds that the helper may neither say nor write anything while it should."""
STALL_DOWN: Final = 20.0
"""The same while the guest is down."""
STOP: Final = 10.0
"""Seconds for the helper to clean up and exit; less than a service manager waits for the agent."""
_LOOK: Final = 5
"""Milliseconds between looks at how full the socket's buffer is while the guest is down."""
_LOOK_ALONG: Final = 100
"""The same while its stream is read: what it writes or says ends the wait."""
_GROUP: Final = payload_limit(FrameType.STREAM)
_LIBXC_HEADERS: Final = headers.IMAGE_HEADER.size + headers.DOMAIN_HEADER.size

_T = TypeVar("_T")


class HelperSource(SourceThread):
    """`source_ports.Source` of one domain. config: its configuration as JSON. supervisor: the socket of the supervisor, which
    must be there. helper: the program. entry: notes what it is done with."""

    def __init__(
        self,
        libs: Libraries,
        domain: Domain,
        config: str,
        supervisor: Path,
        helper: Path,
        entry: Entry | None = None,
    ) -> None:
        super().__init__(libs, domain, supervisor, entry)
        self._config, self._path = config, helper
        self._preamble: bytes | None = None
        self._abandoned = threading.Event()
        self._wake = os.eventfd(0)

    @property
    def preamble(self) -> bytes:
        """As the port says; from `begin` on, because the helper writes most of it."""
        if self._preamble is None:
            raise HypervisorError("the source has not begun", domain=self._domain.name)
        return self._preamble

    async def close(self) -> None:
        if self._closed:
            return
        self._abandoned.set()
        os.eventfd_write(self._wake, 1)
        await super().close()

    # In the thread

    def _set_up(self, stack: ExitStack) -> None:
        self._tot_pages = int(self._xen.info().tot_pages)
        self._open_suspender(stack)
        self._stream = stream = HelperStream(self._tot_pages * PAGE_SIZE, self._domain.name)
        stack.callback(self._stream.close)
        self._entry.holds(lambda: stream.held_bytes)
        self._helper = SaveHelper(self._path, self._stream.helper_fd, self._domain.domid, self._domain.name)
        self._entry.process(self._helper.pid)
        stack.callback(self._stop_helper)
        self._quiet, self._busy = select.poll(), select.poll()
        for poll in (self._quiet, self._busy):
            poll.register(self._helper, select.POLLIN)
            poll.register(self._wake, select.POLLIN)
        self._busy.register(self._stream, select.POLLIN)
        self._preamble = self._read_preamble()
        # The helper switches log-dirty on before it reads the first page.
        self._until(lambda: self._stream.has_begun(Xc.PAGE_DATA), "first pages", drain=True)

    def _read_preamble(self) -> bytes:
        parts = [writer.opening(self._config.encode())]
        parts.append(self._have(lambda: self._stream.take(_LIBXC_HEADERS), "headers of the stream"))
        kind = None
        while kind != Xc.STATIC_DATA_END:
            record = self._have(self._stream.next_record, "records before memory")
            parts.append(bytes(record.raw))
            kind = record.kind
        preamble = b"".join(parts)
        parse_preamble(preamble)  # what Xen has written is what the backup will accept
        return preamble

    def _seed(self) -> Iterator[SeedRound]:
        """What the helper writes until it asks for the guest to be suspended. It goes over memory once and then at most
        four times over what became dirty meanwhile (xg_sr_save.c, simple_precopy_policy)."""
        self._incomplete = "seeding was broken off"
        total, done = self._tot_pages, 0
        while (record := self._seeded()) is not None:
            done += record.listed
            total = max(total, done)
            yield SeedRound([record.raw], record.pages, done, total)
        self._stream.reset()
        self._stream.set_depth(min(self._tot_pages * PAGE_SIZE + SLACK, DEEPEST))
        if not self._stream.deferred:
            log.warning(
                "%s: the socket's buffer may not be enlarged (CAP_NET_ADMIN); checkpoints are read while the guest is down",
                self._domain.name,
            )
        self._incomplete = None

    def _seeded(self) -> Found | None:
        """The next record of seeding; None when the helper is done with it."""
        self._stream.compact()

        def more() -> bool:
            return self._stream.has_record or self._helper.waiting is Callback.SUSPEND

        self._until(more, "pages", drain=True)
        if not self._stream.has_record:
            self._stream.receive_all()  # what it wrote before it asked
        record = self._stream.next_record()
        if record is None:
            self._expect_whole()
        return record

    def _take(self, epoch: int, at_barrier: AtBarrier, timeout: float, suspender: Suspender) -> Checkpoint:
        self._stream.reset()
        if self._helper.waiting is Callback.CHECKPOINT:
            self._incomplete = f"epoch {epoch} was broken off"
            self._go_on(Callback.SUSPEND, drain=True)
            self._incomplete = None
        return self._suspended(epoch, at_barrier, timeout, suspender)

    def _suspended(self, epoch: int, at_barrier: AtBarrier, timeout: float, suspender: Suspender) -> Checkpoint:
        clock = time.monotonic_ns
        asked = clock()
        info = suspender.suspend(timeout)
        down = clock()
        try:
            # The p2m table that the helper has read once must be the one that the guest still uses. (libxc itself looks at
            # it only while memory is seeded: xg_sr_save_x86_pv.c, x86_pv_check_vm_state_p2m_list.)
            if int(info.tot_pages) != self._tot_pages:
                raise memory_changed(self._tot_pages, int(info.tot_pages), self._domain.name)
            at_barrier()
            barrier = clock()
            self._incomplete = f"epoch {epoch} was broken off"
            self._go_on(Callback.POSTCOPY, drain=not self._stream.deferred, seconds=STALL_DOWN)
            copied = clock()
            pause_at(Phase.COPIED)
        finally:
            if sys.exception() is not None or not self._stay_down:
                self._resume()
        running = clock()
        if not self._stay_down:
            suspender.resumed()
        self._go_on(Callback.CHECKPOINT, drain=True)
        records, pages = self._epoch(epoch)
        self._incomplete = None
        # The helper takes the bitmap, the pages and the state of the processors in one go.
        timing = Timing(
            freeze=down - asked,
            barrier=barrier - down,
            clean=0,
            copy=copied - barrier,
            context=0,
            resume=running - copied,
            down=running - down,
        )
        return Checkpoint(epoch, pages, list(writer.grouped(records, _GROUP)), timing)

    def _epoch(self, epoch: int) -> tuple[list[Buffer], int]:
        """Records of an epoch that the helper has written whole, and how many pages have content."""
        self._stream.receive_all()
        found: list[Found] = []
        while (record := self._stream.next_record()) is not None:
            found.append(record)
        self._expect_whole()
        if not found or found[-1].kind != Xc.CHECKPOINT:
            raise self._wrong("the save helper has ended an epoch without a CHECKPOINT record")
        pages = sum(record.pages for record in found)
        if not pages:
            # A guest that suspends writes to its memory.
            raise self._wrong("Xen reports no dirty page: something else has switched log-dirty off")
        without = sum(record.listed for record in found) - pages
        if without and epoch > 1:
            # Epoch 1 names the holes in the guest's memory. Later, a page that libxc could not translate is sent this
            # way as well, and then forgotten (normalise_pagetable takes a suspended domain for a running one).
            log.warning(
                "%s: epoch %d: %d pages became dirty and were sent without content", self._domain.name, epoch, without
            )
        return [*(record.raw for record in found), writer.checkpoint_end()], pages

    # Waiting for the helper

    def _go_on(self, wanted: Callback, *, drain: bool, seconds: float | None = None) -> None:
        """Let the helper go on from the callback it waits in to the next one, which must be this one."""
        self._helper.answer()
        what = f"{wanted.name.lower()} callback"
        self._until(lambda: self._helper.waiting is not None, what, drain=drain, seconds=seconds)
        if self._helper.waiting is not wanted:
            raise self._wrong(f"the save helper called {self._helper.waiting!r} instead of {wanted!r}")

    def _have(self, get: Callable[[], _T | None], what: str) -> _T:
        """What get() gives as soon as it gives something."""
        found: list[_T] = []

        def there() -> bool:
            found.extend(value for value in [get()] if value is not None)
            return bool(found)

        self._until(there, what, drain=True)
        return found[0]

    def _until(self, done: Callable[[], bool], what: str, *, drain: bool, seconds: float | None = None) -> None:
        """Listen to the helper until done(). drain: take its stream out of the socket meanwhile; otherwise only when the
        socket is nearly full. seconds: that it may stand still. Raises HypervisorError when it ends, stands still longer,
        or the source is being closed."""
        stall = STALL if seconds is None else seconds
        patience = time.monotonic() + stall
        while not done():
            (self._busy if drain else self._quiet).poll(_LOOK_ALONG if drain else _LOOK)
            if self._abandoned.is_set():
                raise self._wrong("the checkpoint was given up, because protection ends")
            try:
                moved = self._helper.listen()
            except HypervisorError:
                self._xen.info()  # a domain that is gone is the better explanation
                raise
            wrote = self._stream.receive(PIECE) if drain or self._stream.nearly_full else self._stream.grew()
            if moved or wrote:
                patience = time.monotonic() + stall
            elif time.monotonic() > patience:
                raise self._wrong(f"the save helper stands still: no {what} for {stall:g} s")

    def _expect_whole(self) -> None:
        if self._stream.partial:
            raise self._wrong(f"the save helper has left {self._stream.partial} bytes of a record that is not whole")

    def _wrong(self, what: str) -> HypervisorError:
        return HypervisorError(
            what,
            domain=self._domain.name,
            left="the guest runs; this copy of it is unusable",
            hint="protection starts over with a full copy; the agent's log has what the save helper said",
        )

    # Ending

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            os.close(self._wake)  # not before: the thread listens to it

    def _stop_helper(self) -> None:
        self._entry.look()
        clean = False
        try:
            clean = self._helper.stop(STOP)
        finally:
            if not clean:
                self._log_dirty_off()

    def _log_dirty_off(self) -> None:
        with suppress(GuestEnded):
            self._xen.info()
            log.warning("%s: the save helper has not cleaned up; switching log-dirty off", self._domain.name)
            try:
                self._xen.logdirty_off()
            except HypervisorError as error:
                log.warning("%s: it may have been off already: %s", self._domain.name, error)
