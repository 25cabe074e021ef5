"""What protections cost a simulated host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from remus_agent.cost_ports import Cost, Part


@dataclass
class SimCosts:
    """cost_ports.Costs. by_guest: of each. rest: of the agent beside them. readable: the kernel says what it is asked."""

    by_guest: dict[str, dict[Part, Cost]] = field(default_factory=dict)
    rest: Cost = field(default_factory=Cost)
    readable: bool = True

    async def of(self, guests: Collection[str]) -> Mapping[Part, Cost] | None:
        if not self.readable:
            return None
        found: dict[Part, Cost] = {}
        for guest in guests:
            for part, cost in self.by_guest.get(guest, {}).items():
                found[part] = found.get(part, Cost()) + cost
        return found

    async def shared(self) -> Cost | None:
        return self.rest if self.readable else None
