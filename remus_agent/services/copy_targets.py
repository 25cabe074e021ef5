"""The paused domains of one copy: one of a guest, one for each member of a consistency group.

They are built, named and let run step by step, each step for all before the next one begins. So none has its name before all are
whole, and none runs before all have their names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from remus_agent.errors import DomainNotFound, HypervisorError
from remus_agent.ports import Buffer, Domain, Hypervisor, Target
from remus_agent.protocol.groups import member_working_name
from remus_agent.protocol.replication.messages import Hello
from remus_agent.services.group_hypervisor import group_domain
from remus_agent.services.together import all_done


@dataclass(frozen=True, slots=True)
class GuestState:
    """Of a committed epoch what is not memory. tail: processors and the like; emulator: an HVM guest's device model."""

    tail: Sequence[Buffer] = ()
    emulator: Sequence[Buffer] = ()


class CopyTargets:
    """Of one copy. working_name: what its domain is called until it runs."""

    def __init__(self, hello: Hello, hypervisor: Hypervisor, working_name: str) -> None:
        self._name = hello.domain
        self._names = [guest.name for guest in hello.guests]
        self._grouped = hello.grouped
        self._hypervisor = hypervisor
        self._working_name = working_name
        self._targets: dict[int, Target] = {}
        self._running: dict[int, Domain] = {}
        self._all_run = False

    @property
    def complete(self) -> bool:
        """Whether each guest has a domain, which is being built."""
        return len(self._targets) == len(self._names)

    def __contains__(self, member: int) -> bool:
        return member in self._targets

    @property
    def may_have_run(self) -> bool:
        """Whether one of them was unpaused, or that was tried. Settled when an activation has ended."""
        return any(target.may_have_run for target in self._targets.values())

    @property
    def built(self) -> bool:
        """Whether all are whole, and hold their devices."""
        return self.complete and all(target.built for target in self._targets.values())

    async def open(self, member: int, preamble: bytes) -> None:
        """Begin to build one. Raises HypervisorError."""
        working = member_working_name(self._names[member], self._working_name) if self._grouped else self._working_name
        self._targets[member] = await self._hypervisor.open_target(preamble, working)

    async def feed_one(self, member: int, buffers: Sequence[Buffer]) -> None:
        """Apply PAGE_DATA records of one guest."""
        await self._targets[member].feed(buffers)

    async def feed(self, memory: Sequence[Sequence[Buffer]]) -> None:
        """Apply PAGE_DATA records of each guest."""
        await all_done([self._targets[member].feed(buffers) for member, buffers in enumerate(memory)])

    async def build(self, states: Sequence[GuestState]) -> None:
        """Make all of them whole, at the same time, whatever becomes of one; none of them has its name then."""
        await all_done([self._targets[member].build(one.tail, one.emulator) for member, one in enumerate(states)])

    async def activate(self) -> Domain:
        """Give them their real names, then let them run. Raises HypervisorError; then `abort` destroys all of them."""
        if not self.built:
            raise HypervisorError("the copy was not built", operation="activate", domain=self._name)
        await all_done([self._targets[member].rename(name) for member, name in enumerate(self._names)])
        await all_done([self._run(member) for member in range(len(self._names))])
        self._all_run = True
        members = [self._running[member] for member in range(len(self._names))]
        return group_domain(self._name, self._names, members) if self._grouped else members[0]

    async def _run(self, member: int) -> None:
        self._running[member] = await self._targets[member].run()

    async def abort(self) -> None:
        """Destroy all of them and wait until they are gone, also those that ran while another one could not. Nothing once all
        run. Safe to call twice."""
        if self._all_run:
            return
        await all_done([target.abort() for target in self._targets.values()])
        running, self._running = self._running, {}
        await all_done([self._destroy(domain) for domain in running.values()])

    async def _destroy(self, domain: Domain) -> None:
        """One that this copy has made run."""
        with contextlib.suppress(DomainNotFound):
            if (await self._hypervisor.domain(domain.name)).uuid == domain.uuid:
                await self._hypervisor.destroy(domain.name)
