"""The disks of a consistency group: `disk_ports.Taps` and `Replicas` over those of its members.

Between agents, and in everything that decides, such a disk is called MEMBER/VDEV; devices, maps and journals are the
member's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from remus_agent.disk_ports import (
    CopyProgress,
    Digests,
    DiskData,
    DiskEnd,
    DiskFacts,
    Replica,
    Replicas,
    Taps,
    WriteTap,
)
from remus_agent.ports import Domain
from remus_agent.protocol.disk.operations import Extent
from remus_agent.protocol.groups import Groups, disk_name, disk_place
from remus_agent.store_ports import CommitRecord


class MemberTap:
    """`disk_ports.WriteTap` of a member's disk, by its name in the group."""

    def __init__(self, inner: WriteTap, member: str) -> None:
        self._inner = inner
        self._member = member

    @property
    def facts(self) -> DiskFacts:
        return replace(self._inner.facts, vdev=disk_name(self._member, self._inner.facts.vdev))

    @property
    def map_id(self) -> str:
        return self._inner.map_id

    async def open(self) -> None:
        await self._inner.open()

    async def begin(self, *, same_base: bool) -> None:
        await self._inner.begin(same_base=same_base)

    async def copy(self, digests: Digests | None) -> None:
        await self._inner.copy(digests)

    @property
    def progress(self) -> CopyProgress:
        return self._inner.progress

    def barrier(self, epoch: int) -> None:
        self._inner.barrier(epoch)

    async def next(self) -> DiskData | DiskEnd:
        return await self._inner.next()

    def committed(self, epoch: int) -> None:
        self._inner.committed(epoch)

    async def require_local(self) -> None:
        await self._inner.require_local()

    async def look(self) -> None:
        await self._inner.look()

    async def refuse(self) -> None:
        await self._inner.refuse()

    def end(self) -> None:
        self._inner.end()

    async def close(self, *, given_up: bool = False) -> None:
        await self._inner.close(given_up=given_up)


class GroupTaps:
    """`disk_ports.Taps`. Guests that are in no group are passed on as they are."""

    def __init__(self, inner: Taps, groups: Groups) -> None:
        self._inner = inner
        self._groups = groups

    async def of(self, domain: Domain) -> tuple[WriteTap, ...]:
        if not domain.members:
            return await self._inner.of(domain)
        return tuple([MemberTap(tap, each.name) for each in domain.members for tap in await self._inner.of(each)])

    async def sweep(self, keep: frozenset[str]) -> list[str]:
        return await self._inner.sweep(self._groups.expanded(keep))


class MemberReplica:
    """`disk_ports.Replica` of a member's disk, by its name in the group."""

    def __init__(self, inner: Replica, facts: DiskFacts) -> None:
        self._inner = inner
        self._facts = facts

    @property
    def facts(self) -> DiskFacts:
        return self._facts

    @property
    def map_id(self) -> str | None:
        return self._inner.map_id

    @property
    def capacity(self) -> int:
        return self._inner.capacity

    async def begin(self, map_id: str, session: str) -> None:
        await self._inner.begin(map_id, session)

    async def seed(self, extents: Sequence[Extent]) -> None:
        await self._inner.seed(extents)

    async def stage(self, epoch: int, extents: Sequence[Extent]) -> None:
        await self._inner.stage(epoch, extents)

    async def apply(self, epoch: int) -> None:
        await self._inner.apply(epoch)

    async def drop(self) -> None:
        await self._inner.drop()

    async def digests(self, offset: int, length: int) -> bytes:
        return await self._inner.digests(offset, length)

    @property
    def released(self) -> bool:
        return self._inner.released

    async def hand_over(self) -> None:
        await self._inner.hand_over()

    async def close(self) -> None:
        await self._inner.close()


class GroupReplicas:
    """`disk_ports.Replicas`. Guests that are in no group are passed on as they are."""

    def __init__(self, inner: Replicas, groups: Groups) -> None:
        self._inner = inner
        self._groups = groups

    async def examine(self, domain: str, disks: Sequence[DiskFacts]) -> list[str]:
        if domain not in self._groups:
            return await self._inner.examine(domain, disks)
        reasons = []
        for member in self._groups[domain]:
            own = [
                replace(disk, vdev=vdev)
                for disk in disks
                for of, vdev in [disk_place(domain, disk.vdev)]
                if of == member
            ]
            reasons += [f"{member}: {text}" for text in await self._inner.examine(member, own)] if own else []
        return reasons

    async def open(self, domain: str, disk: DiskFacts, committed: CommitRecord | None) -> Replica:
        if domain not in self._groups:
            return await self._inner.open(domain, disk, committed)
        member, vdev = disk_place(domain, disk.vdev)
        return MemberReplica(await self._inner.open(member, replace(disk, vdev=vdev), committed), disk)
