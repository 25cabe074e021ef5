"""Where each domain of this host stands, whoever looks after it: its primary, a copy, a pause, or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from remus_agent.cost_ports import Account, Cost, Part
from remus_agent.errors import DomainNotFound, RemusError
from remus_agent.observe.status import Status
from remus_agent.ports import Clock, Hypervisor
from remus_agent.services.backup import BackupService
from remus_agent.services.costing import NOTHING_HELD, Costing, protection_cost
from remus_agent.services.old_words import OldWords
from remus_agent.services.pausing import Pauses
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary import is_over
from remus_agent.services.put_off import PutOff
from remus_agent.services.report import copy_status, none_status, primary_status, put_off_status
from remus_agent.services.roles import Roles
from remus_agent.services.taken_domains import TakenDomains
from remus_agent.services.watchdog import WatchdogKeeper


@dataclass(frozen=True, slots=True)
class Overview:
    """All of a host at one moment. domains: those that the agent has to do with. shared: what the agent's process uses for all of
    them together, or for none; None where that is not known."""

    domains: list[Status]
    shared: Cost | None


class Statuses:
    """Of one host. roles: None without a witness."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        clock: Clock,
        primaries: Primaries,
        backup: BackupService,
        taken: TakenDomains,
        pauses: Pauses,
        roles: Roles | None,
        watchdog: WatchdogKeeper,
        old_words: OldWords,
        put_off: PutOff,
        costing: Costing,
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._primaries = primaries
        self._backup = backup
        self._taken = taken
        self._pauses = pauses
        self._roles = roles
        self._watchdog = watchdog
        self._old_words = old_words
        self._put_off = put_off
        self._costing = costing

    async def overview(self) -> Overview:
        """One that the agent only remembers, and that Xen has no more, is left out; one that cannot be looked at hides no
        other."""
        account = await self._costing.look()
        found = []
        known = {
            *self._primaries,
            *self._backup.names(),
            *self._overrides(),
            *self._pauses.names(),
            *self._old_words.names(),
            *self._put_off.names(),
        }
        for name in sorted(known):
            try:
                found.append(await self._of(name, account))
            except DomainNotFound:
                continue
            except RemusError as error:
                found.append(none_status(name, str(error)))
        return Overview(found, None if account is None else account.shared)

    async def of(self, name: str) -> Status:
        """One domain. Raises DomainNotFound for a name that neither the agent nor Xen knows."""
        return await self._of(name, await self._costing.look())

    async def _of(self, name: str, account: Account | None) -> Status:
        put_off = self._put_off.get(name)
        if put_off is not None:
            return put_off_status(put_off, self._clock.now(), witnessed=self._roles is not None)
        primary = self._primaries.get(name)
        paused = None if self._primaries.protects(name) else self._pauses.status(name)
        if paused is not None:
            return paused
        if primary is not None and not (is_over(primary) and self._backup.copy_of(name) is not None):
            status = await primary_status(primary, self._clock.now(), self._watchdog.problem)
            guests = [guest.name for guest in primary.domain.guests]
            return status if is_over(primary) else _with_cost(status, account, guests)
        copy = self._backup.copy_of(name)
        if copy is not None:
            override = self._overrides().get(name)
            guests = [guest.name for guest in copy.hello.guests]
            return _with_cost(copy_status(copy, self._clock.now(), override), account, guests, copy.held)
        waiting = await self._old_words.status(name)
        if waiting is not None:
            return waiting
        domain = await self._hypervisor.domain(name)
        override = self._overrides().get(name)
        relayed = "left to a relay of its checkpoints" if self._taken.is_reserved(name) else None
        return none_status(domain.name, override or relayed or self._as_member(name))

    def _as_member(self, name: str) -> str | None:
        """Who looks after a guest that is not asked for by its own name."""
        group = self._taken.group_of(name)
        if group is None:
            return None
        protected = self._primaries.protects(group)
        return f"a member of the group {group}, which {'is protected' if protected else 'nobody protects'}"

    def _overrides(self) -> Mapping[str, str]:
        """See `Roles.overrides`."""
        return self._roles.overrides if self._roles is not None else {}


def _with_cost(
    status: Status, account: Account | None, guests: Sequence[str], held: Mapping[Part, int] = NOTHING_HELD
) -> Status:
    """See `protection_cost`; who has nothing to do with these guests any more pays nothing for them. held: is nobody's alone in
    a group, whose members have one commit."""
    if status.role == "none":
        return status
    members = tuple(
        msgspec.structs.replace(member, cost=protection_cost(account, [member.domain])) for member in status.members
    )
    return msgspec.structs.replace(status, cost=protection_cost(account, guests, held), members=members)
