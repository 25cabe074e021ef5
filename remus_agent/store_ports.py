"""What outlives an agent, as interfaces: commits, records of guests, notes of pauses. `adapters.journal` keeps them,
`adapters.sim` fakes them. Adapters raise only errors of `remus_agent.errors`, mostly JournalError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from remus_agent.errors import JournalError


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One durable commit: epoch of a session with the digest over its stream bytes."""

    session: str
    generation: int
    epoch: int
    digest: bytes


class Journal(Protocol):
    """Durable record of the commits of one domain on the backup."""

    async def commit(self, record: CommitRecord) -> None:
        """Durable when it returns. Raises JournalError (a full disk, for one); then nothing counts as committed."""
        ...

    async def last(self) -> CommitRecord | None: ...

    async def close(self) -> None: ...


class Journals(Protocol):
    """Opens the journal of a domain, with its space reserved. Raises JournalError when there is none."""

    async def open(self, domain: str) -> Journal: ...


STOOD_DOWN: Final = "stood-down"
TAKING: Final = "taking"


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """What an agent must know of a domain after a restart. role: `primary` (this host protects it), `active` (this host
    took it over without a witness's word, or was about to), `stood-down` (another host owns it, it is paused here) or `taking`
    (this host has asked to take it over, and has never made it run since). committed: a backup may hold a committed copy, so
    output stays held until a new commit. override: an operator's proof by which it runs here, as long as the record in the
    witness does not say so. handed: session in which a primary has handed it over, or was about to: the guest is not resumed
    before somebody knows. starting: the working name under which it was built here, whole and paused, when it was about to run
    from a copy; empty once it runs (`services.unfinished`). until: when the operator's word by which it was about to run is too
    old to be acted on, by `Clock` of this boot; 0: none is. members: of a consistency group, so that another configuration is
    noticed.

    A field with a default came later than the others. While it has its default it is not written down, so a record is read by
    every release that knows what it says."""

    name: str
    uuid: str
    role: str
    peer: str
    generation: int
    committed: bool
    interval_ms: int
    output_limit_bytes: int
    override: str = ""
    handed: str | None = None
    starting: str = ""
    until: float = 0.0
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedGuests:
    """All records, and one error for each that could not be read: what is known of that domain is lost."""

    records: tuple[GuestRecord, ...]
    damaged: tuple[JournalError, ...] = ()


class GuestStore(Protocol):
    """Durable guest records. Raises JournalError when the disk fails or is full; then the old record stands."""

    async def load_all(self) -> LoadedGuests: ...

    async def save(self, record: GuestRecord) -> None: ...

    async def remove(self, name: str) -> bool:
        """False if there was none."""
        ...


@dataclass(frozen=True, slots=True)
class PauseNote:
    """A protection that is suspended. until: when it is to begin again, on `Clock`; 0: now. The rest as in `GuestRecord`."""

    name: str
    uuid: str
    peer: str
    interval_ms: int
    output_limit_bytes: int
    until: float
    reason: str = ""


class PauseStore(Protocol):
    """Durable notes of pauses. Raises JournalError when the disk fails or is full; then the old note stands."""

    async def load_all(self) -> tuple[list[PauseNote], list[JournalError]]:
        """All notes, and one error for each that cannot be read."""
        ...

    async def save(self, note: PauseNote) -> None: ...

    async def remove(self, name: str) -> bool:
        """False if there was none."""
        ...
