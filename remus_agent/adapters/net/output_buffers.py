"""Makes the output buffers of a host, and takes away what is left of guests that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remus_agent import faults
from remus_agent.adapters.net.output_buffer import PlugOutputBuffer
from remus_agent.adapters.net.plumbing import Plumbing
from remus_agent.ports import Domain
from remus_agent.protocol.rtnl import ETH_P_ALL, ETH_P_IP


class PlugOutputBuffers:
    """Makes output buffers (ports.OutputBuffers). protocol: the ethertype that is held, for tests only; None
    holds all, unless the fault `hold-ipv4-only` is seeded."""

    def __init__(self, protocol: int | None = None, *, plumbing: Callable[[], Plumbing] = Plumbing) -> None:
        self._make_plumbing = plumbing
        if protocol is None:
            protocol = ETH_P_IP if faults.active(faults.FaultName.HOLD_IPV4_ONLY) else ETH_P_ALL
        self._protocol = protocol

    def of(self, domain: Domain, limit: int) -> PlugOutputBuffer:
        """The output buffer of a domain; touches nothing yet. limit: bytes each plug may hold."""
        return PlugOutputBuffer(domain, limit, self._protocol)

    async def sweep(self, domids: frozenset[int]) -> list[str]:
        """Delete the IFBs of domains that are none of these, as an agent leaves them that was killed and whose
        guest was destroyed. Deleting an IFB drops what its plug holds. Returns the names of the IFBs."""
        return await asyncio.to_thread(self._sweep, domids)

    def _sweep(self, domids: frozenset[int]) -> list[str]:
        host = self._make_plumbing()
        try:
            found = host.links_without(domids)
            for link in found:
                host.delete_link(link)
        finally:
            host.close()
        return [link.name for link in found]
