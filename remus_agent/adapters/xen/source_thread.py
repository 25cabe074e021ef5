"""What both engines that take checkpoints do alike: `source.XenSource` and `helper_source.HelperSource` build on it.

A source has a thread of its own, in which all calls into Xen are made and which may wait for the guest. Here is what
surrounds an engine's work: the connection to Xen, the supervisor's line, the suspender, and what sets a guest going
again. What happens while the guest is down is written out in each engine, so that nothing gets in between unseen."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from remus_agent.adapters.ledger import Entry
from remus_agent.adapters.xen.control import Control, DomainControl
from remus_agent.adapters.xen.guard import Guard
from remus_agent.adapters.xen.libs import Libraries
from remus_agent.adapters.xen.suspend import Suspender
from remus_agent.adapters.xen.xen_thread import XenThread
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import GuestEnded, HypervisorError, RemusError
from remus_agent.ports import Domain
from remus_agent.source_ports import AtBarrier, Checkpoint, SeedRound

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class SourceThread(ABC):
    """`source_ports.Source` of one domain, except for the preamble and an engine's own work. supervisor: the socket of the
    supervisor, which must be there. entry: notes what it is done with."""

    def __init__(self, libs: Libraries, domain: Domain, supervisor: Path, entry: Entry | None = None) -> None:
        self._libs, self._domain = libs, domain
        self._guard = Guard(supervisor, domain.domid, domain.uuid, domain.name)
        self._entry = entry or Entry()
        self._thread = XenThread(
            f"source {domain.name}",
            domain=domain.name,
            left="the guest runs, or is resumed as soon as xenstored answers",
            initializer=self._entry.thread,
        )
        self._cleanup = ExitStack()
        self._suspender: Suspender | None = None
        self._closed = False
        self._incomplete: str | None = "the guest was not seeded"
        """Why no checkpoint can be taken: pages are missing that no bitmap names any more. None: one can."""
        self._stay_down = False
        """The checkpoint that is taken is the last one: the guest is not resumed after it."""
        self._left_down = False

    @property
    @abstractmethod
    def preamble(self) -> bytes:
        """The only one of `preambles`."""

    @property
    def preambles(self) -> Sequence[bytes]:
        return (self.preamble,)

    async def begin(self) -> None:
        await self._run(self._begin)

    async def seed(self) -> AsyncIterator[SeedRound]:
        rounds = self._seed()
        while (piece := await self._run(self._next, rounds)) is not None:
            yield piece

    async def checkpoint(
        self, epoch: int, at_barrier: AtBarrier, timeout: float, *, stay_down: bool = False
    ) -> Checkpoint:
        return await self._run(self._checkpoint, epoch, at_barrier, timeout, stay_down)

    async def leave_down(self) -> None:
        await self._run(self._leave_down)

    async def close(self) -> None:
        """As the port says. Who is cancelled, or told that xenstored does not answer, leaves it to the thread."""
        if self._closed:
            return
        self._closed = True
        if self._suspender is not None:
            self._suspender.abandon()
        await self._thread.finish(self._close)

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if self._closed:
            raise HypervisorError("the source is closed", domain=self._domain.name)
        return await self._thread.run(function, *args, **kwargs)

    # In the thread: what an engine does

    @abstractmethod
    def _set_up(self, stack: ExitStack) -> None:
        """Make everything that checkpoints need, `_open_suspender` included, and switch on log-dirty. stack: takes what
        undoes it, latest first, when the source is closed or this fails."""

    @abstractmethod
    def _seed(self) -> Iterator[SeedRound]:
        """As `source_ports.Source.seed`. Sets `_incomplete` to None once it is through."""

    @abstractmethod
    def _take(self, epoch: int, at_barrier: AtBarrier, timeout: float, suspender: Suspender) -> Checkpoint:
        """As `source_ports.Source.checkpoint`; the guest was seeded and the supervisor looks after it. Sets `_incomplete` before
        the bitmap is cleaned, and to None once the pages that it named are in the checkpoint."""

    # In the thread: what goes around it

    def _begin(self) -> None:
        with ExitStack() as stack:
            control = Control(self._libs)
            stack.callback(control.close)
            self._store = XenStore(self._libs)
            stack.callback(self._store.close)
            self._xen = DomainControl(control, self._domain.domid, self._domain.name, self._domain.uuid)
            self._xen.info()  # the domain is there, and the one that is meant
            self._guard.watch()
            stack.callback(self._end_care)
            self._set_up(stack)
            self._revive()
            self._cleanup = stack.pop_all()

    def _next(self, rounds: Iterator[SeedRound]) -> SeedRound | None:
        self._revive()
        return next(rounds, None)

    def _revive(self) -> None:
        """Resume a guest that is down although nobody waits for it: it accepted a request that was given up, perhaps of an
        earlier session, and froze later."""
        if self._suspender is not None and self._suspender.is_down():
            log.warning("%s: it went down for a request that was given up; resuming it", self._domain.name)
            self._let_go_on(self._suspender)

    def _open_suspender(self, stack: ExitStack) -> None:
        self._suspender = suspender = Suspender(self._libs, self._xen, self._store)
        stack.callback(self._leave_running)
        stack.callback(suspender.close)
        suspender.open()

    def _checkpoint(self, epoch: int, at_barrier: AtBarrier, timeout: float, stay_down: bool = False) -> Checkpoint:
        self._stay_down = stay_down
        try:
            if self._incomplete is not None or self._suspender is None:
                raise HypervisorError(
                    f"pages are missing: {self._incomplete}",
                    left="the guest runs",
                    hint="protection starts over with a full copy",
                )
            self._guard.ensure()
            self._revive()
            return self._take(epoch, at_barrier, timeout, self._suspender)
        except RemusError as error:
            error.epoch = epoch if error.epoch is None else error.epoch
            error.operation = error.operation or "take a checkpoint"
            error.domain = error.domain or self._domain.name
            raise

    def _resume(self) -> None:
        try:
            self._xen.resume()
        except HypervisorError as error:
            log.warning("%s; trying once more", error)
            self._xen.resume()

    def _leave_down(self) -> None:
        self._guard.leave_down()
        self._left_down = True

    def _before_resume(self) -> None:  # noqa: B027 - most have nothing to do
        """What goes on before the guest does, after a checkpoint that has left it down."""

    def _leave_running(self) -> None:
        """Resume the guest if it went down after a checkpoint had given up on it, or was left down by the last one and has not
        been handed over since."""
        if self._left_down:
            return
        with suppress(GuestEnded):
            if self._suspender is not None and self._suspender.settle():
                self._let_go_on(self._suspender)

    def _let_go_on(self, suspender: Suspender) -> None:
        self._before_resume()
        self._resume()
        suspender.resumed()

    def _end_care(self) -> None:
        """Of the supervisor, unless the guest may go down yet: then nobody else would resume it."""
        if self._suspender is not None and self._suspender.may_go_down:
            self._guard.hang_up()
        else:
            self._guard.unwatch()

    def _close(self) -> None:
        try:
            self._cleanup.close()  # looked up here: a `begin` that was still at work has replaced it
        finally:
            self._entry.close()
