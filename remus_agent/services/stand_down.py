"""A host that has lost a guest to another one: the guest here is destroyed, and nothing that it has sent gets out."""

from __future__ import annotations

import asyncio
import logging

from remus_agent.errors import DomainNotFound
from remus_agent.ports import Domain, Hypervisor, OutputBuffers

log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two attempts to drop what the plugs hold."""


async def destroy_stale(domain: Domain, hypervisor: Hypervisor, outputs: OutputBuffers) -> None:
    """Destroy the guest and drop what its plugs hold, never the other way round: a plug that is gone holds nothing back. Dom0
    cannot finish with the guest's devices before the frames are dropped, so both go on side by side. Raises RemusError."""
    try:
        there = await hypervisor.domain(domain.name)
    except DomainNotFound:
        there = None
    if there is not None and there.uuid == domain.uuid:
        destroying = asyncio.ensure_future(hypervisor.destroy(domain.name))
        try:
            while not destroying.done():
                await outputs.sweep(await hypervisor.domids())  # it spares the guest until Xen has it no more
                await asyncio.wait({destroying}, timeout=_LOOK)
            destroying.result()
        finally:
            destroying.cancel()
    await outputs.sweep(await hypervisor.domids())
    log.warning("%s: destroyed here, because another host owns it", domain.name)
