"""The output of a consistency group: `ports.OutputBuffers` over those of its members' interfaces.

A barrier ends the epoch on all plugs of all members, while all of them are down. Where one member's plugs fail, what the others'
hold stays held: the session ends by the error, and the next one installs all of them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from remus_agent.ports import BufferState, Domain, OutputBuffer, OutputBuffers
from remus_agent.services.together import all_done


class GroupOutput:
    """`ports.OutputBuffer` of all members. make: of one."""

    def __init__(self, domain: Domain, make: Callable[[Domain], OutputBuffer]) -> None:
        self._make = make
        self._by_name = {member.name: make(member) for member in domain.members}

    @property
    def _all(self) -> Sequence[OutputBuffer]:
        return list(self._by_name.values())

    def follow(self, domain: Domain) -> None:
        for member in domain.members:
            if member.name in self._by_name:
                self._by_name[member.name].follow(member)
            else:  # it was not there when the group was looked at first
                self._by_name[member.name] = self._make(member)

    async def install(self, *, closed: bool) -> None:
        for output in self._all:
            await output.install(closed=closed)

    def barrier(self) -> None:
        for output in self._all:
            output.barrier()

    async def release(self) -> None:
        for output in self._all:
            await output.release()

    async def open(self) -> None:
        await all_done([output.open() for output in self._all])

    async def remove(self) -> None:
        await all_done([output.remove() for output in self._all])

    async def drop(self) -> None:
        await all_done([output.drop() for output in self._all])

    async def state(self) -> BufferState:
        states = [await output.state() for output in self._all]
        return BufferState(
            held_bytes=sum(one.held_bytes for one in states),
            held_packets=sum(one.held_packets for one in states),
            dropped_packets=sum(one.dropped_packets for one in states),
        )


class GroupOutputs:
    """`ports.OutputBuffers`. Guests that are in no group are passed on as they are."""

    def __init__(self, inner: OutputBuffers) -> None:
        self._inner = inner

    def of(self, domain: Domain, limit: int) -> OutputBuffer:
        if not domain.members:
            return self._inner.of(domain, limit)
        return GroupOutput(domain, lambda member: self._inner.of(member, limit))

    async def sweep(self, domids: frozenset[int]) -> list[str]:
        return await self._inner.sweep(domids)
