"""Fencing, as services need it: a host is switched off, and seen to be off; and a host that resets itself.

`adapters.fence` implements the first with fence agents, `adapters.xen.watchdog` the second; `adapters.sim.fencing` and
`adapters.sim.watchdog` fake them. Neither is permission: who may run a guest is decided by the record in the witness
(`witness_ports`).
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

    def longest(self, host: str) -> float:
        """Seconds for which the `off` of `fence` runs at most; then it is killed. 0 where there is no agent for this host."""
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


class Watchdog(Protocol):
    """Of this host: while it is armed, the whole machine is reset, with every guest, when nobody pets it in time. It outlives the
    agent. Nothing here is async: it takes microseconds, and is called from the event loop, whose life it watches."""

    @property
    def armed(self) -> bool:
        """Whether it is armed, by this agent or by an earlier one since the host was booted."""
        ...

    def arm(self, seconds: int) -> None:
        """Reset the machine in so many seconds; nothing else may be armed. Raises HypervisorError: then nothing is armed."""
        ...

    def pet(self, seconds: int) -> None:
        """So many seconds from now on. Raises HypervisorError; `armed` says whether it was not armed any more."""
        ...

    def disarm(self) -> None:
        """Never reset it; nothing happens where it is not armed. Raises HypervisorError: then it stays armed."""
        ...
