"""What a failover would do, without doing it: the checks of `BackupService.failover` and `Roles.failover`, and the record.

Between a trial and the failover everything may change; the failover makes all of them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from remus_agent.errors import AuthorityError, WitnessError
from remus_agent.machines.authority import Ownership, Stake, Verdict, Want
from remus_agent.machines.backup import State
from remus_agent.services.backup import BackupService, refuse_another
from remus_agent.services.copy import Copy
from remus_agent.services.fencing import check_proof
from remus_agent.services.override import refused
from remus_agent.services.settings import Settings
from remus_agent.witness_ports import Witness

_COMMITTED: Final = frozenset({State.READY, State.ORPHANED, State.STALE, State.TAKING})
_OFFERED: Final = frozenset({Verdict.GO, Verdict.BECOME_OWNER})


async def failover_trial(
    name: str,
    backup: BackupService,
    witness: Witness | None,
    settings: Settings,
    *,
    generation: int | None,
    session: str | None,
    fenced: Mapping[str, str],
    accept_loss: bool,
) -> dict[str, Any]:
    """By what right the copy would be activated, and what it holds. Raises AuthorityError, DomainNotFound as a failover does."""
    copy = backup.require_copy(name)
    if copy.state is State.ACTIVE:
        return _answer(copy, "nothing is to be done: it runs here already")
    refuse_another(copy, generation, session)
    if copy.state not in _COMMITTED:
        raise AuthorityError(
            f"this copy is {copy.state.value} and holds no committed epoch that may be activated",
            operation="failover",
            domain=name,
            left="nothing was changed",
        )
    if fenced or witness is None:
        check_proof(name, copy.hello.host, fenced)
    await backup.expect_silence(name, settings.quiet, off=fenced.get("host"), end=False)
    if witness is None:
        return _answer(copy, f"an operator's proof that {copy.hello.host} is off")
    try:
        record = await _offered(copy, witness, settings.host)
    except (WitnessError, AuthorityError) as error:
        if not fenced or not accept_loss:
            raise refused(error, name) from error
        return _answer(copy, f"an operator's override, recorded as a possible loss, because: {error.message}")
    return _answer(copy, f"the witness's record of generation {record.generation}")


async def _offered(copy: Copy, witness: Witness, host: str) -> Ownership:
    """The record that lets this host take over. Raises WitnessError, AuthorityError."""
    hello = copy.hello
    if copy.state is State.STALE:
        raise AuthorityError("the guest ran on without this copy", operation="failover", domain=hello.domain)
    found = await witness.read(hello.uuid)
    record = None if found is None else found.ownership
    stake = Stake(Want.TAKE, host, hello.domain, hello.generation, hello.host, "a trial")
    if record is None or stake.decide(record).verdict not in _OFFERED:
        says = "there is no record" if record is None else f"{record.owner} owns it, generation {record.generation}"
        raise AuthorityError(
            f"the witness does not offer this copy of generation {hello.generation}: {says}",
            operation="failover",
            domain=hello.domain,
        )
    return record


def _answer(copy: Copy, by: str) -> dict[str, Any]:
    return {
        "domain": copy.hello.domain,
        "from": copy.hello.host,
        "session": copy.hello.session,
        "generation": copy.generation,
        "committed_epoch": copy.committed_epoch,
        "state": copy.state.value,
        "by": by,
        "changed": False,
    }
