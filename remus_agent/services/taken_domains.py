"""Who takes the checkpoints of a domain: one at a time, or two take the dirty pages away from each other.

That is this agent, a relay to which an operator has left the domain (`remusctl stream send`), or nobody, where this host holds a
copy of it.
"""

from __future__ import annotations

import asyncio

from remus_agent.errors import AlreadyProtected, RefusedError
from remus_agent.machines.backup import State
from remus_agent.machines.primary import ALONE, NOT_OURS
from remus_agent.ports import Clock, Hypervisor
from remus_agent.relay_ports import Reserved
from remus_agent.services.backup import BackupService
from remus_agent.services.primaries import Primaries
from remus_agent.services.put_off import PutOff
from remus_agent.services.settings import Settings


class TakenDomains:
    """Of one host."""

    def __init__(
        self,
        settings: Settings,
        hypervisor: Hypervisor,
        primaries: Primaries,
        put_off: PutOff,
        backup: BackupService,
        clock: Clock,
    ) -> None:
        self.lock = asyncio.Lock()
        """For whoever begins to protect a domain, or needs that nobody does."""
        self._host = settings.host
        self._groups = settings.groups
        self._hypervisor = hypervisor
        self._primaries = primaries
        self._put_off = put_off
        self._backup = backup
        self._clock = clock
        self._reserved: dict[str, float] = {}
        """Domains that are left to a relay, and until when."""

    async def reserve(self, name: str, seconds: float) -> Reserved:
        """Leave a domain to a relay of checkpoints that somebody else takes, for so many seconds from now on (0: it is over).
        The domain need not run here: a relay can send what was taken earlier."""
        async with self.lock:
            if name in self._groups:
                raise RefusedError("a relay is of one guest, and this is a group", operation="relay", domain=name)
            for unit in self._units(name):
                if self._primaries.protects(unit):
                    raise AlreadyProtected(
                        f"this host's agent protects it{_as(name, unit)}, to {self._primaries[unit].record.peer}",
                        operation="relay",
                        domain=name,
                        left="nothing was changed",
                        hint=f"only one may take its checkpoints; first: remusctl unprotect {unit}",
                    )
                self._put_off.refuse(unit, "relay")
                self.refuse_copies(unit, "relay")
            if seconds > 0:
                self._reserved[name] = self._clock.now() + seconds
            else:
                self._reserved.pop(name, None)
        return Reserved(self._host, self.generation(name), await self._hypervisor.facts())

    def is_reserved(self, name: str) -> bool:
        """Whether it is left to a relay."""
        return self._reserved.get(name, 0.0) > self._clock.now()

    def generation(self, name: str) -> int:
        """The one with which a domain that runs here is replicated, where no witness knows of another."""
        copy = self._backup.copy_of(name)
        return copy.generation if copy is not None else 1

    def _units(self, guest: str) -> tuple[str, ...]:
        """Under which names a guest can be protected: its own, and its group's."""
        group = self._groups.of_guest(guest)
        return (guest,) if group is None else (guest, group)

    def group_of(self, name: str) -> str | None:
        """The group that a guest is a member of."""
        return self._groups.of_guest(name)

    def refuse_member(self, name: str, operation: str) -> None:
        """Raises RefusedError for a guest that is protected with others or not at all."""
        group = self.group_of(name)
        if group is not None:
            raise RefusedError(
                f"it is a member of the group {group}, and is protected with the others or not at all",
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint=f"name the group instead: {group}",
            )

    def refuse_what_is_taken(self, name: str, operation: str) -> None:
        """Raises RefusedError (AlreadyProtected) where the agent or a relay takes its checkpoints, or those of one of its
        members."""
        self._refuse_taken(name, operation)
        for member in self._groups.get(name, ()):
            try:
                self._refuse_taken(member, operation)
            except RefusedError as error:
                error.message = f"its member {member} is taken: {error.message}"
                error.domain = name
                error.hint = error.hint or f"end that first: remusctl unprotect {member}"
                raise

    def refuse_put_off(self, name: str, operation: str) -> None:
        """See `PutOff.refuse`."""
        self._put_off.refuse(name, operation)

    def _refuse_taken(self, name: str, operation: str) -> None:
        self._put_off.refuse(name, operation)
        if self._primaries.protects(name):
            service = self._primaries[name]
            peer = service.record.peer
            why = f"it is protected already, to {peer}"
            if service.state in ALONE:
                why = f"it runs on alone; its backup is {peer}"
            if service.state in NOT_OURS:
                why = f"{peer} owns it, and what is paused here may be the only one there is"
            raise AlreadyProtected(
                why,
                operation=operation,
                domain=name,
                left="nothing was changed",
            )
        if self.is_reserved(name):
            raise RefusedError(
                "a relay sends its checkpoints to another host (remusctl stream send)",
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint="only one may take its checkpoints: end the relay first",
            )

    def refuse_copies(self, name: str, operation: str) -> None:
        """Raises RefusedError where this host is its backup, or was until just now."""
        copy = self._backup.copy_of(name)
        if copy is None:
            return
        if copy.state is State.ACTIVE and self._backup.witnessed:
            raise RefusedError(
                "it was taken over here, and the agent looks after it as soon as that is noted and the witness says so",
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint=f"see `remusctl status {name}`: it is protected by itself",
            )
        if copy.state not in (State.ACTIVE, State.DISCARDED):
            raise RefusedError(
                "this host holds a copy of it as backup",
                operation=operation,
                domain=name,
                left="nothing was changed",
                hint=f"{operation} it on the host where it runs",
            )

    def refuse_copies_of_members(self, group: str, operation: str) -> None:
        """Raises RefusedError where this host is the backup of a member alone."""
        for member in self._groups.get(group, ()):
            try:
                self.refuse_copies(member, operation)
            except RefusedError as error:
                error.message = f"of its member {member}: {error.message}"
                error.domain = group
                raise


def _as(guest: str, unit: str) -> str:
    return "" if unit == guest else f" as a member of {unit}"
