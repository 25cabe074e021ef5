"""Shows each consistency group as one domain: `ports.Hypervisor` over that of a host (ADR 0010).

A group is there as long as one of its members is: then it can be paused, resumed, renamed and destroyed, and what is asked
is done to all members that are there. It can be replicated only when all of them are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from remus_agent.errors import DomainNotFound, RefusedError, RemusError
from remus_agent.ports import Domain, HostFacts, Hypervisor, Target
from remus_agent.protocol.groups import Groups, disk_name, group_uuid, member_working_name
from remus_agent.services.group_source import GroupSource
from remus_agent.services.together import all_done
from remus_agent.source_ports import Source

T = TypeVar("T")


def group_domain(group: str, configured: Sequence[str], members: Sequence[Domain], name: str | None = None) -> Domain:
    """A group as one domain. configured: names of all its members. members: those that are there, at least one. name: of its
    copy."""
    return Domain(
        name=name or group,
        domid=members[0].domid,
        uuid=group_uuid(group, configured),
        guest_type=members[0].guest_type,
        memory_kib=sum(member.memory_kib for member in members),
        vifs=tuple(vif for member in members for vif in member.vifs),
        disks=tuple(replace(vbd, vdev=disk_name(member.name, vbd.vdev)) for member in members for vbd in member.disks),
        taps=tuple(tap for member in members for tap in member.taps),
        members=tuple(members),
    )


class GroupHypervisor:
    """`ports.Hypervisor`. Guests that are in no group are passed on as they are."""

    def __init__(self, inner: Hypervisor, groups: Groups) -> None:
        self._inner = inner
        self._groups = groups

    async def facts(self) -> HostFacts:
        return await self._inner.facts()

    async def domain(self, name: str) -> Domain:
        """As the port says. Raises RefusedError where a guest is called as a group is."""
        group = self._groups.named(name)
        if group is None:
            return await self._inner.domain(name)
        if group in await self._inner.names():
            raise RefusedError(
                f"{group} is the name of a group and of a guest as well",
                operation="look at the group",
                domain=group,
                left="nothing was changed",
                hint="give the group another name in the configuration of both hosts, or rename the guest",
            )
        configured = self._groups[group]
        found = [member for each in configured if (member := await self._member(each, name, group)) is not None]
        if not found:
            raise DomainNotFound(f"no member of the group is here ({', '.join(configured)})", domain=name)
        return group_domain(group, configured, found, name)

    async def _member(self, member: str, name: str, group: str) -> Domain | None:
        """One that is there. name: of the group; of its copy: also a member that is still called as a copy is."""
        names = [member] if name == group else [member_working_name(member, name), member]
        for each in names:
            try:
                return await self._inner.domain(each)
            except DomainNotFound:
                continue
        return None

    async def name_of(self, uuid: str) -> str | None:
        """A group that is there in part is there."""
        for name, members in self._groups.items():
            if group_uuid(name, members) == uuid:
                return name if {*members} & await self._inner.names() else None
        return await self._inner.name_of(uuid)

    async def devices(self, domain: Domain) -> Domain | None:
        """As the port says. A member that is on its way out says nothing about its devices, so those that are known count."""
        if not domain.members:
            return await self._inner.devices(domain)
        now = await asyncio.gather(*(self._inner.devices(member) for member in domain.members))
        if all(member is None for member in now):
            return None
        members = [new or old for new, old in zip(now, domain.members, strict=True)]
        return group_domain(domain.name, self._groups[domain.name], members)

    async def open_source(self, domain: Domain) -> Source:
        """As the port says. Refuses a group that is not whole."""
        if not domain.members:
            return await self._inner.open_source(domain)
        missing = set(self._groups[domain.name]) - {member.name for member in domain.members}
        if missing:
            raise RefusedError(
                f"{', '.join(sorted(missing))} of the group is not here",
                operation="protect",
                domain=domain.name,
                left="the others run; what they send is held if a copy of the group may be activated",
                hint="start it, and protection goes on by itself; or end the protection of the group",
            )
        sources: list[tuple[Domain, Source]] = []
        try:
            for member in domain.members:
                sources.append((member, await self._inner.open_source(member)))
        except RemusError:
            await all_done([source.close() for _, source in sources])
            raise
        return GroupSource(sources)

    async def open_target(self, preamble: bytes, working_name: str) -> Target:
        """Of one guest: a copy opens one for each member (`services.copy_targets`)."""
        return await self._inner.open_target(preamble, working_name)

    async def names(self) -> frozenset[str]:
        """As the port says; the copies of a group's members have one name together."""
        return frozenset(self._groups.of_copy(name) or name for name in await self._inner.names())

    async def rename(self, domain: Domain, name: str) -> Domain:
        """As the port says. Members that are called right already stay."""
        if not domain.members:
            return await self._inner.rename(domain, name)
        group = self._groups.named(name)
        if group is None:
            raise RefusedError(f"{name} is the name of no group", operation="rename", domain=domain.name)
        renamed = []
        for member in domain.members:
            own = next(
                each for each in self._groups[group] if member.name in (each, member_working_name(each, domain.name))
            )
            wanted = own if name == group else member_working_name(own, name)
            renamed.append(member if member.name == wanted else await self._inner.rename(member, wanted))
        return group_domain(group, self._groups[group], renamed, name)

    async def destroy(self, name: str) -> bool:
        group = self._groups.named(name)
        if group is None:
            return await self._inner.destroy(name)
        members = self._groups[group]
        names = members if name == group else [member_working_name(member, name) for member in members]
        gone: list[bool] = []

        async def one(each: str) -> None:
            gone.append(await self._inner.destroy(each))

        await all_done([one(each) for each in names])
        return any(gone)

    async def resume(self, domain: Domain) -> bool:
        if not domain.members:
            return await self._inner.resume(domain)
        return any(await self._of_each(domain, self._inner.resume))

    async def is_paused(self, domain: Domain) -> bool:
        """As the port says. Of a group, whether all members wait: where one runs, the group has begun to run."""
        if not domain.members:
            return await self._inner.is_paused(domain)
        return all(await self._of_each(domain, self._inner.is_paused))

    async def pause(self, domain: Domain) -> None:
        if not domain.members:
            await self._inner.pause(domain)
            return
        await self._of_each(domain, self._inner.pause)

    async def unpause(self, domain: Domain) -> None:
        if not domain.members:
            await self._inner.unpause(domain)
            return
        await self._of_each(domain, self._inner.unpause)

    async def domids(self) -> frozenset[int]:
        return await self._inner.domids()

    async def _of_each(self, group: Domain, act: Callable[[Domain], Awaitable[T]]) -> list[T]:
        """What is said of each member that is there now, also of one that was started anew since somebody looked; all are asked
        whatever one says. Raises DomainNotFound when none is there."""
        said: list[T] = []
        missing: list[DomainNotFound] = []

        async def one(member: Domain) -> None:
            try:
                said.append(await act(member))
            except DomainNotFound as error:
                missing.append(error)

        await all_done([one(member) for member in (await self.domain(group.name)).members])
        if not said:
            raise missing[0]
        return said
