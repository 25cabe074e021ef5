"""Fencing, as services need it: a host is switched off, and seen to be off.

`adapters.fence` implements it with fence agents, `adapters.sim.fencing` fakes it. Fencing is not permission: who may run
a guest is decided by the record in the witness (`witness_ports`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class Power(Enum):
    """What a host's fence agent says of it. The value is the word users see."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Fenced:
    """A host that was switched off. agent: what switched it off. at: when it was seen to be off, in seconds since 1970.
    confirmed: whether the state was seen, which a return code is not."""

    host: str
    agent: str
    at: float
    confirmed: bool

    def as_dict(self) -> dict[str, Any]:
        """For events."""
        return {"host": self.host, "agent": self.agent, "at": round(self.at, 3), "confirmed": self.confirmed}


@dataclass(frozen=True, slots=True)
class FenceCheck:
    """What a look at a fence agent showed. unknown_options: configured ones that the agent does not list; it would ignore
    them without a word."""

    host: str
    agent: str
    required: bool
    power: Power
    unknown_options: tuple[str, ...] = ()


class Fencing(Protocol):
    """Fence agents by the name of the host that they switch off. Every call ends within a bounded time by itself."""

    def covers(self, host: str) -> bool:
        """Whether there is one for this host."""
        ...

    def required(self, host: str) -> bool:
        """Whether nothing of this host may be activated elsewhere before it was fenced."""
        ...

    async def fence(self, host: str) -> Fenced:
        """Switch the host off and see that it is off. Raises FencingError, FenceTimeout, FenceUnconfirmed: it may be on, off, or
        about to go off."""
        ...

    async def status(self, host: str) -> Power:
        """Whether the host is on. Raises FencingError, FenceTimeout."""
        ...

    async def check(self, host: str) -> FenceCheck:
        """Ask the agent whether it works, without ever changing anything. Raises FencingError, FenceTimeout."""
        ...
