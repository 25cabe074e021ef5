"""What protections cost this host, in the words of a status."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from remus_agent.cost_ports import Account, Cost, Costs, Part
from remus_agent.observe.status import PartCost, ProtectionCost
from remus_agent.services.copy import Copy

NOTHING_HELD: Final[Mapping[Part, int]] = MappingProxyType({})


class Costing:
    """Of one host. costs: None where nobody counts. copies: all that the host holds."""

    def __init__(self, costs: Costs | None, copies: Callable[[], Iterable[Copy]]) -> None:
        self._costs = costs
        self._copies = copies

    async def look(self) -> Account | None:
        """Of this moment, but without what services hold in memory for guests (`Copy.held`). None where it is not known."""
        found = None if self._costs is None else await self._costs.read()
        if found is None:
            return None
        held = sum(sum(copy.held.values()) for copy in self._copies())
        shared = Cost(round(found.shared.cpu_seconds, 2), max(0, found.shared.memory_bytes - held))
        return replace(found, shared=shared)


def protection_cost(
    account: Account | None, guests: Collection[str], held: Mapping[Part, int] = NOTHING_HELD
) -> ProtectionCost | None:
    """Of the protection of these guests. held: bytes of memory that services hold for it."""
    if account is None:
        return None
    parts = account.of(guests)
    for part, count in held.items():
        if count or part in parts:
            parts[part] = parts.get(part, Cost()) + Cost(0.0, count)
    total = sum(parts.values(), Cost())
    return ProtectionCost(
        round(total.cpu_seconds, 2),
        total.memory_bytes,
        tuple(PartCost(part, round(cost.cpu_seconds, 2), cost.memory_bytes) for part, cost in parts.items()),
    )
