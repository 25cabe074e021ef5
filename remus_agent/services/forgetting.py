"""Removes the witness's record of a guest that is gone for good. Its UUID begins anew then, with generation 1.

The record is read first, and this host is looked at afterwards: who becomes the guest's owner or names a backup later changes
the record before, and the removal, which compares, changes nothing. Only who begins to protect a guest that the record gives to
him already changes nothing there: the caller keeps that from happening meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from remus_agent.errors import AuthorityError, ConfigError, WitnessConflict, WitnessError, WitnessUnknown
from remus_agent.machines.backup import State
from remus_agent.machines.primary import NOT_OURS
from remus_agent.services.backup import BackupService
from remus_agent.services.copy import Copy
from remus_agent.services.primary import PrimaryService
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.witness_ports import Recorded, Witness

log = logging.getLogger(__name__)

_NO_COPY: Final = frozenset({State.DISCARDED, State.ACTIVE})
"""One that is active is no copy any more: it is a domain, and Xen is asked for those."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """On one host. protector: what looks after a guest (UUID) here as its primary, also one that stands down."""

    host: str
    ports: PrimaryPorts
    backup: BackupService
    protector: Callable[[str], PrimaryService | None]

    async def forget(self, guest: str, *, force: bool, generation: int | None, dry_run: bool) -> dict[str, Any]:
        """Remove the record of a guest (UUID); what was removed, or `changed` false where there was none. force: also where
        another host is the owner. generation: that the record must have; None: any. dry_run: only say what would be removed.

        Raises ConfigError without a witness, AuthorityError where it may not be removed from here, WitnessUnknown when it may
        be removed by now, WitnessError else; nothing was changed then."""
        witness = self.ports.witness
        if witness is None:
            raise ConfigError(
                "no witness is configured, so there is no record to forget",
                operation="forget",
                left="nothing was changed",
                hint="add [witness] to the agent's configuration, or run it on a host whose agent has one",
            )
        found = await witness.read(guest)
        await self._refuse_what_is_here(guest)
        if found is None:
            return {"uuid": guest, "changed": False, "record": None}
        record = found.ownership
        if record.owner != self.host and not force:
            raise _refused(
                record.name,
                f"{record.owner} owns it (generation {record.generation})",
                f"run it on {record.owner}; if that host is gone for good and you made sure that the guest runs nowhere: --force",
            )
        if generation not in (None, record.generation):
            raise _refused(
                record.name,
                f"the record is of generation {record.generation} by now, not {generation}",
                "look at it again, somebody has changed it",
            )
        if not dry_run:
            await self._remove(witness, guest, found)
        return {"uuid": guest, "changed": not dry_run, "record": asdict(record)}

    async def _remove(self, witness: Witness, guest: str, found: Recorded) -> None:
        record = found.ownership
        try:
            if not await _removed(witness, guest, found):
                raise WitnessConflict(
                    "somebody has changed the record meanwhile, so the guest is not gone for everybody",
                    operation="forget",
                    domain=record.name,
                    left="nothing was changed",
                    hint="see `remusctl events` on the other hosts, then run it again if the guest is gone all the same",
                )
        except WitnessUnknown as error:
            raise WitnessUnknown(
                f"nobody can say whether the record was removed: {error.message}",
                operation="forget",
                domain=record.name,
                left="the record was removed, or may still be",
                hint="check the witness and the network to it, then run it again: that is safe, and says what is the case",
            ) from error
        log.warning("%s: its record is removed (%s, generation %d)", record.name, record.owner, record.generation)
        self.ports.events.note(
            record.name, "forgotten", uuid=guest, name=record.name, owner=record.owner, generation=record.generation
        )

    async def _refuse_what_is_here(self, guest: str) -> None:
        """Raises AuthorityError while this host has anything to do with the guest."""
        service = self.protector(guest)
        if service is not None:
            name = service.domain.name
            if service.state in NOT_OURS:
                raise _refused(
                    name,
                    "it is paused on this host, because another one owns it",
                    f"it may be all that is left of the guest; if it is not wanted any more: remusctl unprotect {name} --force",
                )
            raise _refused(name, "this host protects it", f"end that first: remusctl unprotect {name}")
        for name in self.backup.names():
            for copy in self.backup.copies_of(name):
                if copy.hello.uuid == guest and copy.state not in _NO_COPY:
                    raise _refused(name, f"this host holds a copy of it ({copy.state.value})", _instead(copy))
        domain = await self.ports.hypervisor.name_of(guest)
        if domain is not None:
            raise _refused(
                domain,
                "a domain of this UUID is on this host, so the guest is not gone",
                f"if it is not wanted any more, end it first: xl shutdown {domain}",
            )


async def _removed(witness: Witness, guest: str, found: Recorded) -> bool:
    """Ask for it; False when there is a record still, which somebody else has changed. Where there is none, a conflict only says
    that something on the way has asked for the same twice."""
    try:
        await witness.forget(guest, found)
    except WitnessConflict as conflict:
        try:
            return await witness.read(guest) is None
        except WitnessError as error:
            raise WitnessUnknown(error.message, operation="forget") from conflict
    return True


def _instead(copy: Copy) -> str:
    """What to do about a copy that is here."""
    name = copy.hello.domain
    match copy.state:
        case State.RECEIVING | State.READY:
            return f"end the protection on {copy.hello.host} first: remusctl unprotect {name}"
        case State.TAKING | State.ACTIVATING:
            return f"this host is about to run it: see `remusctl status {name}`"
    return f"it may be all that is left of the guest; if it is not wanted any more: remusctl unprotect {name} --force"


def _refused(name: str, why: str, hint: str) -> AuthorityError:
    return AuthorityError(why, operation="forget", domain=name, left="nothing was changed", hint=hint)
