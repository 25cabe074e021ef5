"""At an agent's start: goes on with every protection that an earlier agent has left on record and whose guest still runs here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remus_agent.errors import DomainNotFound, RefusedError, RemusError
from remus_agent.protocol.groups import member_working_name
from remus_agent.services.old_words import OldWords
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.put_off import PutOff
from remus_agent.services.roles import Roles
from remus_agent.services.settings import Settings
from remus_agent.services.unfinished import Unfinished
from remus_agent.store_ports import STOOD_DOWN, GuestRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What was found. records: of all guests that something is to be done about. kept: names of guests whose taps stay. starting:
    working names of those that were about to run here. unread: guests whose record cannot be read."""

    records: tuple[GuestRecord, ...]
    kept: frozenset[str]
    starting: frozenset[str]
    unread: frozenset[str]


class Resumption:
    """Of one host. peers: their addresses. roles: None without a witness."""

    def __init__(
        self,
        peers: Mapping[str, str],
        settings: Settings,
        ports: PrimaryPorts,
        primaries: Primaries,
        roles: Roles | None,
        old_words: OldWords,
        put_off: PutOff,
    ) -> None:
        self._peers = peers
        self._groups = settings.groups
        self._ports = ports
        self._primaries = primaries
        self._roles = roles
        self._put_off = put_off
        self._unfinished = Unfinished(
            ports.hypervisor,
            ports.store,
            ports.events,
            ports.announcer,
            ports.clock,
            settings,
            old_words,
            witnessed=roles is not None,
        )

    async def run(self) -> OnRecord:
        """Where a protection is on record that cannot be resumed (its peer is not configured, its record is damaged), its guest
        keeps its taps: output is held then, and its tap stays as it is too. So it is where what is asked about one guest fails,
        which is looked at again by itself. Raises RemusError."""
        loaded = await self._ports.store.load_all()
        unread = frozenset(error.domain for error in loaded.damaged if error.domain is not None)
        kept = {*unread}
        for error in loaded.damaged:
            log.error("%s", error)
            self._ports.events.note(error.domain or "?", "record-damaged", reason=str(error))
        starting = frozenset(name for record in loaded.records for name in _starting(record))
        records = []
        for each in loaded.records:
            if self._is_another(each):
                kept.update((each.name, *each.members))
            elif (record := await self._unfinished.settle(each)) is not None:
                records.append(record)
        for record in records:
            if await self._resume_or_put_off(record):
                kept.update((record.name, *record.members))
        return OnRecord(tuple(records), frozenset(kept), starting, unread)

    async def again(self, name: str) -> None:
        """Go on with one guest whose protection has ended here, or was put off, although it is on record. Raises RemusError."""
        try:
            await self._again(name)
        except RemusError as error:
            self._put_off.still(name, str(error))
            raise
        self._put_off.forget(name)

    async def _again(self, name: str) -> None:
        loaded = await self._ports.store.load_all()
        for each in loaded.records:
            if (
                each.name == name
                and not self._is_another(each)
                and (record := await self._unfinished.settle(each)) is not None
            ):
                await self._resume(record)

    def _is_another(self, record: GuestRecord) -> bool:
        """Whether the configuration knows another group of this name, or none: then nothing is done for any of its members. What
        they send stays held, and they keep their taps."""
        mine = self._groups.get(record.name, ())
        if sorted(mine) == sorted(record.members):
            return False
        reason = f"it was protected as {_said(record.members)}, and is {_said(mine)} in the configuration"
        log.error("%s: %s", record.name, reason)
        self._ports.events.note(record.name, "group-changed", reason=reason)
        return True

    async def _resume_or_put_off(self, record: GuestRecord) -> bool:
        """As `_resume`; True also where that is not known yet. Other guests must not wait for that."""
        try:
            return await self._resume(record)
        except RemusError as error:
            why = str(error)
            self._ports.events.note(record.name, "resume-put-off", reason=why)
        except Exception as defect:
            why = repr(defect)
            log.critical("%s: not resumed, by a defect", record.name, exc_info=True)
            self._ports.events.note(record.name, "defect", reason=why)
        log.error("%s: %s", record.name, self._put_off.keep(record, why).reason)
        return True

    async def _resume(self, record: GuestRecord) -> bool:
        """Whether its guest is here, and was protected or run by an operator's word."""
        overridden = bool(record.override) and self._roles is not None
        if record.role not in ("primary", STOOD_DOWN) and not overridden:
            return False
        try:
            domain = await self._ports.hypervisor.domain(record.name)
            if domain.uuid != record.uuid:
                raise DomainNotFound("another domain has taken its name", domain=record.name)
        except DomainNotFound as error:
            left = self._left_of(record)
            self._ports.events.note(record.name, "guest-gone", reason=str(error), left=left)
            log.warning("%s: no longer runs here; its protection is forgotten: %s; %s", record.name, error, left)
            await self._forget(record)
            return False
        except RefusedError as error:
            log.error("%s", error)
            self._ports.events.note(record.name, "group-changed", reason=str(error))
            return True
        if overridden and self._roles is not None:
            self._roles.resume_override(record)
        elif record.peer not in self._peers:
            log.error("%s: its peer %s is no longer configured", record.name, record.peer)
            self._ports.events.note(record.name, "peer-unknown", peer=record.peer)
        else:
            self._primaries.start(domain, record, resumed=True)
        return True

    async def _forget(self, record: GuestRecord) -> None:
        """What stays on record is looked at again after a restart; other guests must not wait for that."""
        try:
            await self._ports.store.remove(record.name)
        except RemusError as error:
            log.error("%s: its record stays: %s", record.name, error)

    def _left_of(self, record: GuestRecord) -> str:
        """What there is of a guest that ran here, or was just about to."""
        if self._roles is None:
            return f"a copy may be on {record.peer}"
        if record.starting:
            return (
                f"it was about to run here, and nobody knows whether it did: the guest may be paused on {record.peer} because"
                " this host owns it, and nothing lets that go on by itself"
            )
        return (
            f"a copy may be on {record.peer}, or the guest is paused there because this host owns it: that is older than what"
            " clients know, and nothing lets it go on by itself"
        )


def _starting(record: GuestRecord) -> Sequence[str]:
    """What it is called that was about to run: also its members by themselves, should their group not be known any more."""
    if not record.starting:
        return ()
    return (record.starting, *(member_working_name(member, record.starting) for member in record.members))


def _said(members: Sequence[str]) -> str:
    return f"the group of {', '.join(members)}" if members else "no group"
