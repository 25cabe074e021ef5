"""Takes checkpoints of one running PV guest through Xen's own save helper: `ports.Source`.

A PV guest's page tables hold machine addresses, so its pages must be rewritten as they are read; the helper does that, as
it does for `xl remus`. What is different from there: while the guest is down the helper writes into the buffer of a
socket that nobody reads, and its stream is taken out and sent when the guest runs again.

The helper waits in its `checkpoint` callback from one epoch to the next. Everything is done in one thread."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from remus_agent.adapters.xen.control import Control, DomainControl
from remus_agent.adapters.xen.guard import Guard
from remus_agent.adapters.xen.helper_stream import DEEPEST, PIECE, SLACK, Found, HelperStream
from remus_agent.adapters.xen.libs import Libraries
from remus_agent.adapters.xen.save_helper import SaveHelper
from remus_agent.adapters.xen.structs import PAGE_SIZE
from remus_agent.adapters.xen.suspend import Suspender
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import GuestEnded, HypervisorError, RemusError
from remus_agent.faults import Phase, pause_at
from remus_agent.ports import Buffer, Checkpoint, Domain, SeedRound, Timing
from remus_agent.protocol.replication.frames import FrameType, payload_limit
from remus_agent.protocol.save_helper import Callback
from remus_agent.protocol.stream import headers, writer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.preamble import parse_preamble

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

_P = ParamSpec("_P")
_T = TypeVar("_T")


class HelperSource:
    """`ports.Source` of one domain. config: its configuration as JSON. supervisor: the socket of the supervisor, which must be
    there. helper: the program."""

    def __init__(self, libs: Libraries, domain: Domain, config: str, supervisor: Path, helper: Path) -> None:
        self._libs, self._domain, self._config, self._path = libs, domain, config, helper
        self._guard = Guard(supervisor, domain.domid, domain.uuid, domain.name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"source {domain.name}")
        self._cleanup = ExitStack()
        self._suspender: Suspender | None = None
        self._preamble: bytes | None = None
        self._closed = False
        self._abandoned = threading.Event()
        self._wake = os.eventfd(0)
        self._incomplete: str | None = "the guest was not seeded"

    @property
    def preamble(self) -> bytes:
        """As the port says; from `begin` on, because the helper writes most of it."""
        if self._preamble is None:
            raise HypervisorError("the source has not begun", domain=self._domain.name)
        return self._preamble

    async def begin(self) -> None:
        await self._run(self._begin)

    async def seed(self) -> AsyncIterator[SeedRound]:
        rounds = self._seed()
        while (piece := await self._run(next, rounds, None)) is not None:
            yield piece

    async def checkpoint(self, epoch: int, at_barrier: Callable[[], None], timeout: float) -> Checkpoint:
        return await self._run(self._checkpoint, epoch, at_barrier, timeout)

    async def close(self) -> None:
        if self._closed:
            return
        self._abandoned.set()
        os.eventfd_write(self._wake, 1)
        if self._suspender is not None:
            self._suspender.abandon()
        try:
            await self._run(self._close)
        finally:
            self._closed = True
            os.close(self._wake)
            self._thread.shutdown(wait=False)

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **_: _P.kwargs) -> _T:
        if self._closed:
            raise HypervisorError("the source is closed", domain=self._domain.name)
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # In the thread

    def _begin(self) -> None:
        with ExitStack() as stack:
            control = Control(self._libs)
            stack.callback(control.close)
            store = XenStore(self._libs)
            stack.callback(store.close)
            self._xen = DomainControl(control, self._domain.domid, self._domain.name, self._domain.uuid)
            self._tot_pages = int(self._xen.info().tot_pages)
            self._guard.watch()
            stack.callback(self._guard.unwatch)
            self._suspender = suspender = Suspender(self._libs, self._xen, store)
            stack.callback(self._leave_running)
            stack.callback(suspender.close)
            suspender.open()
            self._stream = HelperStream(self._tot_pages * PAGE_SIZE, self._domain.name)
            stack.callback(self._stream.close)
            self._helper = SaveHelper(self._path, self._stream.helper_fd, self._domain.domid, self._domain.name)
            stack.callback(self._stop_helper)
            self._quiet, self._busy = select.poll(), select.poll()
            for poll in (self._quiet, self._busy):
                poll.register(self._helper, select.POLLIN)
                poll.register(self._wake, select.POLLIN)
            self._busy.register(self._stream, select.POLLIN)
            self._preamble = self._read_preamble()
            # The helper switches log-dirty on before it reads the first page.
            self._until(lambda: self._stream.has_begun(Xc.PAGE_DATA), "first pages", drain=True)
            self._cleanup = stack.pop_all()

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
        if not self._stream.set_depth(min(self._tot_pages * PAGE_SIZE + SLACK, DEEPEST)):
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

    def _checkpoint(self, epoch: int, at_barrier: Callable[[], None], timeout: float) -> Checkpoint:
        try:
            if self._incomplete is not None or self._suspender is None:
                raise HypervisorError(
                    f"pages are missing: {self._incomplete}",
                    left="the guest runs",
                    hint="protection starts over with a full copy",
                )
            self._stream.reset()
            self._guard.ensure()
            if self._helper.waiting is Callback.CHECKPOINT:
                self._incomplete = f"epoch {epoch} was broken off"
                self._go_on(Callback.SUSPEND, drain=True)
                self._incomplete = None
            return self._suspended(epoch, at_barrier, timeout, self._suspender)
        except RemusError as error:
            error.epoch = epoch if error.epoch is None else error.epoch
            error.operation = error.operation or "take a checkpoint"
            error.domain = error.domain or self._domain.name
            raise

    def _suspended(
        self, epoch: int, at_barrier: Callable[[], None], timeout: float, suspender: Suspender
    ) -> Checkpoint:
        clock = time.monotonic_ns
        asked = clock()
        info = suspender.suspend(timeout)
        down = clock()
        try:
            self._check_unchanged(int(info.tot_pages))
            at_barrier()
            barrier = clock()
            self._incomplete = f"epoch {epoch} was broken off"
            self._go_on(Callback.POSTCOPY, drain=not self._stream.deferred, seconds=STALL_DOWN)
            copied = clock()
            pause_at(Phase.COPIED)
        finally:
            self._resume()
        running = clock()
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

    def _check_unchanged(self, tot_pages: int) -> None:
        """The p2m table that the helper has read once is the one that the guest still uses. (libxc itself looks at it
        only while memory is seeded: xg_sr_save_x86_pv.c, x86_pv_check_vm_state_p2m_list.)"""
        if tot_pages != self._tot_pages:
            raise HypervisorError(
                f"the guest's memory changed from {self._tot_pages} to {tot_pages} pages",
                domain=self._domain.name,
                left="the guest runs; this copy of it is unusable",
                hint="keep its memory constant (no xl mem-set); protection starts over with a full copy",
            )

    def _wrong(self, what: str) -> HypervisorError:
        return HypervisorError(
            what,
            domain=self._domain.name,
            left="the guest runs; this copy of it is unusable",
            hint="protection starts over with a full copy; the agent's log has what the save helper said",
        )

    # Ending

    def _close(self) -> None:
        self._cleanup.close()  # looked up here: a `begin` that was still at work has replaced it

    def _resume(self) -> None:
        try:
            self._xen.resume()
        except HypervisorError as error:
            log.warning("%s; trying once more", error)
            self._xen.resume()

    def _leave_running(self) -> None:
        """Resume the guest if it went down after a checkpoint had given up on it."""
        with suppress(GuestEnded):
            if self._suspender is not None and self._suspender.settle():
                self._xen.resume()
                self._suspender.resumed()

    def _stop_helper(self) -> None:
        if self._helper.stop(STOP):
            return
        with suppress(GuestEnded):
            self._xen.info()
            log.warning("%s: the save helper has not cleaned up; switching log-dirty off", self._domain.name)
            try:
                self._xen.logdirty_off()
            except HypervisorError as error:
                log.warning("%s: it may have been off already: %s", self._domain.name, error)
