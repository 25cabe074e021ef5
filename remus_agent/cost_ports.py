"""What the services need to say what the protection of a guest costs this host. `adapters.ledger` implements it,
`adapters.sim.costs` fakes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Part = Literal["checkpoints", "copy", "disks"]
"""What of a protection it is for: taking the guest's checkpoints; holding its copy's memory; its disks, on either side."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of this host. cpu_seconds: processor time since the agent started. memory_bytes: now."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_seconds + other.cpu_seconds, self.memory_bytes + other.memory_bytes)


@dataclass(frozen=True, slots=True)
class Account:
    """What was read at one moment. guests: of each since the agent started, whatever its roles here were, the parts that there
    are, or were. shared: what the agent's own process uses beside that."""

    guests: Mapping[str, Mapping[Part, Cost]]
    shared: Cost

    def of(self, guests: Collection[str]) -> dict[Part, Cost]:
        """Of these together."""
        found: dict[Part, Cost] = {}
        for guest in guests:
            for part, cost in self.guests.get(guest, {}).items():
                found[part] = found.get(part, Cost()) + cost
        return {part: found[part] for part in sorted(found)}


class Costs(Protocol):
    """What threads, processes and memory that are there for one guest alone take of this host. Nothing is measured while they
    work: the kernel, which counts anyway, is asked here."""

    async def read(self) -> Account | None:
        """Of all guests, each thread and process asked once. None where it cannot be read; the log says why."""
        ...
