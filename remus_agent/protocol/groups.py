"""Consistency groups: which guests belong together, and what a group, its members and their disks are called (ADR 0010).

On the wire and in what agents remember a group has a name as a guest has. Its members are found by their own names:

    group               shop                                  disk of a member      app1/xvda
    its copy            shop--incoming-0123abcd               the member's copy     app1--of-shop--incoming-0123abcd
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

MIN_MEMBERS: Final = 2
MAX_MEMBERS: Final = 8
"""More guests than that suspend together too rarely; and what they send waits for the slowest."""

_NAMESPACE: Final = uuid.UUID("5b0c8a4e-6f0e-5f6c-9f0b-2f0a4d1c7e10")
_OF: Final = "--of-"
_INCOMING: Final = "--incoming-"
_DISK: Final = "/"


def group_uuid(name: str, members: Sequence[str]) -> str:
    """Identity of the unit: the same on both hosts, another one for other members."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join((name, *sorted(members)))))


def disk_name(member: str, vdev: str) -> str:
    """What a group calls a member's disk."""
    return f"{member}{_DISK}{vdev}"


def disk_place(domain: str, name: str) -> tuple[str, str]:
    """The guest that a disk belongs to and its name there. domain: whose disk it is, a guest or a group."""
    member, slash, vdev = name.rpartition(_DISK)
    return (member, vdev) if slash else (domain, name)


def member_working_name(member: str, working_name: str) -> str:
    """What a member's copy is called. working_name: the group's."""
    return f"{member}{_OF}{working_name}"


class Groups(Mapping[str, tuple[str, ...]]):
    """The groups of a host: names to members, in the same order on every host."""

    def __init__(self, groups: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self._members = {name: tuple(sorted(members)) for name, members in groups.items()}

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def of_guest(self, guest: str) -> str | None:
        """The group that a guest is a member of."""
        return next((name for name, members in self._members.items() if guest in members), None)

    def named(self, name: str) -> str | None:
        """The group that has this name, or whose copy has."""
        if name in self._members:
            return name
        group = name.rpartition(_INCOMING)[0]
        return group if group in self._members else None

    def of_copy(self, name: str) -> str | None:
        """Working name of the group's copy that a domain is a part of; None when it is none of these."""
        member, mark, working_name = name.partition(_OF)
        group = self.named(working_name) if mark else None
        if group is None or working_name == group or member not in self._members[group]:
            return None
        return working_name

    def expanded(self, names: frozenset[str]) -> frozenset[str]:
        """The same with every group's members beside it."""
        return names.union(*(self._members[name] for name in names if name in self._members))
