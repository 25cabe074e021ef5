"""What is there for one guest alone, and what it takes of this host: `cost_ports.Costs`.

Whoever has a thread, a process or an amount of memory for a guest keeps an `Entry` of it. That costs nothing while they work:
the kernel counts anyway, and is asked when somebody wants to know, and right before one of them ends. Of a process that ends by
itself counts what it had used when it was last asked about.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from remus_agent.adapters.proc import Proc, Times
from remus_agent.cost_ports import Account, Cost, Part

log = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds for the kernel to answer. It waits for a lock of the process that it is asked about, and that may wait for a disk."""
FRESH_SECONDS: Final = 10.0
"""For how long the memory of a process is taken as read: the kernel goes through all of its pages for it, which takes some
hundred microseconds for a tap."""


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds, and bytes of memory. Those of threads are the agent's own."""

    threads: float = 0.0
    processes: float = 0.0
    held: int = 0
    process_bytes: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.threads + other.threads,
            self.processes + other.processes,
            self.held + other.held,
            self.process_bytes + other.process_bytes,
        )


class _Worker:
    """A thread, or a process with all that it has started. seconds: processor time when it was last asked about, and for good
    once it has ended. Two threads may ask at the same time."""

    def __init__(self, number: int, *, process: bool, started: int) -> None:
        self.number = number
        self.process = process
        self.started = started
        self.seconds = 0.0
        self.ended = False
        self._memory = 0
        self._memory_at: float | None = None
        self._lock = threading.Lock()

    def ask(self, proc: Proc) -> None:
        """How much it has used."""
        if self.ended:
            return
        times = proc.process(self.number) if self.process else proc.thread(self.number)
        if times is None or times.started != self.started:
            self.ended = True
            return
        seconds = times.own + times.children
        if self.process:
            seconds += sum(_all(one) for one in (proc.process(child) for child in self._below(proc)))
        with self._lock:
            self.seconds = max(self.seconds, seconds)

    def memory(self, proc: Proc, now: float) -> int:
        """Its own, at most FRESH_SECONDS old."""
        if self.ended or not self.process:
            return 0
        if self._memory_at is None or now - self._memory_at >= FRESH_SECONDS:
            self._memory = proc.share(self.number) + sum(proc.share(child) for child in self._below(proc))
            self._memory_at = now
        return self._memory

    def _below(self, proc: Proc) -> list[int]:
        """All that it has started: `xl restore` leaves the guest's pages to a process of its own."""
        found, look = [], [self.number]
        while look:
            children = proc.started_by(look.pop())
            found += children
            look += children
        return found


class Entry:
    """What one user of threads, processes and memory has for one guest, until `close`. It may be used from any thread. Nothing
    that its user calls raises: who works for a guest does not depend on being counted. first: called at the first use. closed:
    called by `close`."""

    def __init__(
        self,
        proc: Proc | None = None,
        first: Callable[[Entry], None] | None = None,
        closed: Callable[[Entry], None] | None = None,
    ) -> None:
        self._proc = proc or Proc()
        self._first = first
        self._closed = closed
        self._workers: list[_Worker] = []
        self._held: Callable[[], int] = _nothing
        self._more: Callable[[], float] = _no_time

    def thread(self) -> None:
        """The calling thread works for the guest alone from now on: for an executor's `initializer`."""
        self._take(threading.get_native_id(), process=False)

    def process(self, number: int) -> None:
        """This child of the agent, and all that it starts, works for the guest alone until it ends."""
        self._take(number, process=True)

    def holds(self, held: Callable[[], int]) -> None:
        """held: how many bytes of the agent's own memory are there for the guest now. Asked in any thread."""
        self._held = held
        self._use()

    def adds(self, seconds: Callable[[], float]) -> None:
        """seconds: processor time of threads that were there for moments only, added up by who had them."""
        self._more = seconds

    def look(self) -> None:
        """Before a thread or a process ends: what it has used counts for good."""
        try:
            for worker in list(self._workers):
                worker.ask(self._proc)
        except (OSError, ValueError) as error:
            log.warning("what a guest costs is not known: %s", error)

    def used(self, now: float) -> Used:
        """Up to this moment. now: monotonic seconds. Raises OSError, ValueError."""
        threads, processes, memory = self._more(), 0.0, 0
        for worker in list(self._workers):
            worker.ask(self._proc)
            if worker.process:
                processes += worker.seconds
                memory += worker.memory(self._proc, now)
            else:
                threads += worker.seconds
        return Used(threads, processes, self._held(), memory)

    def spent(self) -> Used:
        """As `used`, without asking, and without memory."""
        threads = self._more() + sum(worker.seconds for worker in self._workers if not worker.process)
        return Used(threads, sum(worker.seconds for worker in self._workers if worker.process))

    def close(self) -> None:
        """While its thread is still there, best in it: its memory is given back, and what it has used counts for good. Safe to
        call twice."""
        self.look()
        self._held = _nothing
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self)

    def _take(self, number: int, *, process: bool) -> None:
        try:
            times = self._proc.process(number) if process else self._proc.thread(number)
        except (OSError, ValueError) as error:
            log.warning("what a guest costs is not known: %s", error)
            return
        if times is not None:
            self._workers.append(_Worker(number, process=process, started=times.started))
            self._use()

    def _use(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            first(self)


class Ledger:
    """Of one agent. now: monotonic seconds. patience: seconds for the kernel to answer."""

    def __init__(
        self, proc: Proc | None = None, now: Callable[[], float] = time.monotonic, patience: float = PATIENCE
    ) -> None:
        self._proc = proc or Proc()
        self._now = now
        self._patience = patience
        # Its own: who commits to a journal must never wait for a thread that waits here.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._late: asyncio.Future[Any] | None = None
        self._lock = threading.Lock()
        self._open: dict[Entry, tuple[str, Part]] = {}
        self._ended: defaultdict[tuple[str, Part], Used] = defaultdict(Used)
        self._shared = 0.0
        self._failing = False

    def open(self, guest: str, part: Part) -> Entry:
        """An entry of this guest. One that is never used needs no `close`."""
        place = (guest, part)

        def first(entry: Entry) -> None:
            with self._lock:
                self._open[entry] = place

        def closed(entry: Entry) -> None:
            with self._lock:
                if self._open.pop(entry, None) is not None:
                    self._ended[place] += entry.spent()

        return Entry(self._proc, first, closed)

    async def read(self) -> Account | None:
        """As the port says. None, too, while the thread does not get on."""
        if self._late is not None and not self._late.done():
            return None
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._read)
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(asked)
        except TimeoutError:
            self._late = asked
            log.warning("what protections cost is not known: the kernel has not answered within %g s", self._patience)
            return None

    # In the thread

    def _read(self) -> Account | None:
        try:
            used = self._used()
            times = self._proc.this()
            if times is None:
                raise ValueError("the agent does not find itself")
            resident = self._proc.resident()
        except (OSError, ValueError) as error:
            if not self._failing:  # said once, until it is known again: it is asked every second
                self._failing = True
                log.warning("what protections cost is not known: %s", error)
            return None
        self._failing = False
        inside = sum(used.values(), Used())
        # Each of them is counted in whole ticks, so that their difference may seem to go back by some.
        self._shared = max(self._shared, times.own - inside.threads)
        guests: defaultdict[str, dict[Part, Cost]] = defaultdict(dict)
        for (guest, part), one in used.items():
            guests[guest][part] = Cost(one.threads + one.processes, one.held + one.process_bytes)
        return Account(guests, Cost(self._shared, max(0, resident - inside.held)))

    def _used(self) -> Mapping[tuple[str, Part], Used]:
        """Of each guest and part, those that have ended included."""
        with self._lock:
            found = self._ended.copy()
            entries = list(self._open.items())
        now = self._now()
        for entry, place in entries:
            found[place] += entry.used(now)
        return found


def _all(times: Times | None) -> float:
    return 0.0 if times is None else times.own + times.children


def _nothing() -> int:
    return 0


def _no_time() -> float:
    return 0.0
