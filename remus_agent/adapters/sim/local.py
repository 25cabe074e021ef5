"""The rest of a host in memory: output buffers that remember frames, journal, store, events, announcements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from remus_agent.errors import JournalError, OutputBufferError
from remus_agent.ports import BufferState, Domain
from remus_agent.store_ports import CommitRecord, GuestRecord, LoadedGuests, PauseNote


@dataclass
class SimOutput:
    """ports.OutputBuffer with sch_plug's rules: one closed epoch at most. out: what left the host, in order. stuck: it
    cannot be removed."""

    out: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    holding: bool = False
    installed: bool = False
    closed_epoch: bool = False
    stuck: bool = False
    known: frozenset[str] = frozenset()
    plugged: frozenset[str] = frozenset()

    def emit(self, frame: str, device: str | None = None) -> None:
        """The guest sends a frame, by this device (one that has a plug, if none is named)."""
        held = self.installed and self.holding and (device is None or device in self.plugged)
        (self.current if held else self.out).append(frame)

    def follow(self, domain: Domain) -> None:
        self.known = frozenset(vif.device for vif in domain.outputs)

    async def install(self, *, closed: bool) -> None:
        if self.installed:
            self.retired += self.last + self.current
            self.last, self.current = [], []
        self.installed, self.closed_epoch, self.plugged = True, False, self.known
        self.holding = closed

    def barrier(self) -> None:
        if self.closed_epoch:
            raise OutputBufferError("an epoch is held already", operation="barrier")
        self.holding = self.closed_epoch = True
        self.last, self.current = self.current, []

    async def release(self) -> None:
        if not self.closed_epoch:
            raise OutputBufferError("no epoch is closed", operation="release")
        self.out += self.retired + self.last
        self.retired, self.last, self.closed_epoch = [], [], False

    async def open(self) -> None:
        self.out += self.retired + self.last + self.current
        self.retired, self.last, self.current = [], [], []
        self.holding = self.closed_epoch = False

    async def remove(self) -> None:
        if self.stuck:
            raise OutputBufferError("the plug is stuck", operation="remove")
        await self.open()
        self.installed = False

    async def drop(self) -> None:
        await self.install(closed=True)
        self.retired = []

    async def state(self) -> BufferState:
        held = len(self.retired) + len(self.last) + len(self.current)
        return BufferState(held_bytes=held * 64, held_packets=held, dropped_packets=0)


class SimOutputs:
    """ports.OutputBuffers: they outlive an agent, as qdiscs do. broken: reading the plugs fails."""

    def __init__(self) -> None:
        self.by_name: dict[str, SimOutput] = {}
        self.broken = False
        self._domids: dict[str, int] = {}

    def of(self, domain: Domain, limit: int) -> SimOutput:  # noqa: ARG002 - the port's signature
        self._domids[domain.name] = domain.domid
        output = self.by_name.setdefault(domain.name, SimOutput())
        output.follow(domain)
        return output

    async def sweep(self, domids: frozenset[int]) -> list[str]:
        if self.broken:
            raise OutputBufferError("the plugs cannot be listed", operation="sweep")
        gone = [name for name, domid in self._domids.items() if domid not in domids and self.by_name[name].installed]
        for name in gone:
            del self.by_name[name], self._domids[name]
        return gone


class SimJournal:
    """store_ports.Journal"""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self.records: list[CommitRecord] = []
        self.is_open = False

    async def commit(self, record: CommitRecord) -> None:
        if not self.is_open:
            raise AssertionError("a commit to a journal that is closed")
        self._disk.check("journal")
        await asyncio.sleep(self._disk.delay())
        self.records.append(record)

    async def last(self) -> CommitRecord | None:
        return self.records[-1] if self.records else None

    async def close(self) -> None:
        self.is_open = False


class SimDisk:
    """store_ports: Journals and GuestStore on one disk that can be full. It outlives an agent. delay: seconds a commit takes."""

    def __init__(self) -> None:
        self.full = False
        self.delay: Callable[[], float] = lambda: 0.0
        self.journals: dict[str, SimJournal] = {}
        self.guests: dict[str, GuestRecord] = {}

    def check(self, what: str) -> None:
        """Raise when the disk is full."""
        if self.full:
            raise JournalError(f"no space left on the disk of the {what}", hint="free space under /var/lib/remus")

    async def open(self, domain: str) -> SimJournal:
        self.check("journal")
        journal = self.journals.setdefault(domain, SimJournal(self))
        if journal.is_open:
            raise JournalError(f"the journal of {domain} is in use", domain=domain)
        journal.is_open = True
        return journal

    async def load_all(self) -> LoadedGuests:
        return LoadedGuests(tuple(self.guests.values()))

    async def save(self, record: GuestRecord) -> None:
        self.check("guest records")
        self.guests[record.name] = record

    async def remove(self, name: str) -> bool:
        return self.guests.pop(name, None) is not None


class SimPauses:
    """store_ports.PauseStore; it outlives an agent."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self.notes: dict[str, PauseNote] = {}

    async def load_all(self) -> tuple[list[PauseNote], list[JournalError]]:
        return list(self.notes.values()), []

    async def save(self, note: PauseNote) -> None:
        self._disk.check("pauses")
        self.notes[note.name] = note

    async def remove(self, name: str) -> bool:
        return self.notes.pop(name, None) is not None


class SimEvents:
    """ports.EventSink"""

    def __init__(self) -> None:
        self._noted: list[tuple[str, str, dict[str, object]]] = []

    def note(self, domain: str, event: str, *, epoch: int | None = None, **detail: object) -> None:  # noqa: ARG002
        self._noted.append((domain, event, detail))

    @property
    def noted(self) -> list[tuple[str, str]]:
        """Domains and events."""
        return [(domain, event) for domain, event, _ in self._noted]

    def details(self, domain: str) -> list[tuple[str, dict[str, object]]]:
        """What was noted of a domain, with all that was said."""
        return [(event, detail) for name, event, detail in self._noted if name == domain]


class SimAnnouncer:
    """ports.Announcer"""

    def __init__(self) -> None:
        self.announced: list[str] = []

    async def announce(self, domain: Domain, told: Callable[[], None]) -> None:
        self.announced.append(domain.name)
        told()


class LoopClock:
    """ports.Clock on the event loop's own time, so that a loop with virtual time makes all waits virtual."""

    def now(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    def time_of_day(self) -> float:
        return self.now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
