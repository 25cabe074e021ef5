"""What protections cost a simulated host."""

from __future__ import annotations

from dataclasses import dataclass, field

from remus_agent.cost_ports import Account, Cost, Part


@dataclass
class SimCosts:
    """cost_ports.Costs. by_guest: of each. rest: of the agent beside them. readable: the kernel says what it is asked.
    read_times: how often it was."""

    by_guest: dict[str, dict[Part, Cost]] = field(default_factory=dict)
    rest: Cost = field(default_factory=Cost)
    readable: bool = True
    read_times: int = 0

    async def read(self) -> Account | None:
        self.read_times += 1
        return Account(self.by_guest, self.rest) if self.readable else None
