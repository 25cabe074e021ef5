"""Which primaries a backup lets in: the record's owner, with a session of the record's generation or a later one.

What this host did before its agent started may be lost: that it took the guest over, told clients more than the primary knows,
and went down with the guest. So an agent that has just started reads the record before the first session of a guest
(docs/adr/0006, rule 8). After that it knows: only this host and the primary's ever change the record. A generation alone proves
nothing, because a peer can name any: what is paused here is destroyed for its owner's session, so an owner that is not known yet
is looked up.

A primary has a record made before it opens its first session. So where there is none the witness has lost it. What this agent has
known of it counts then only where it named that primary: from there nobody but this host could have changed it to another owner.
"""

from __future__ import annotations

from remus_agent.errors import AnotherOwner, RefusedError, WitnessError
from remus_agent.faults import FaultName, active
from remus_agent.machines.authority import Ownership
from remus_agent.protocol.replication.messages import Hello
from remus_agent.services.authority import Authority


async def admit(authority: Authority, hello: Hello) -> None:
    """Return when the session may be opened here. Raises AnotherOwner, or RefusedError when nothing is known."""
    if active(FaultName.SESSION_UNASKED):
        return
    known = authority.last_known(hello.uuid)
    if known is not None and _owners(hello, known):
        return
    try:
        # Also what is known may be of the past: a guest that was forgotten begins with the first generation again.
        record = await authority.read(hello.uuid)
    except WitnessError as error:
        if known is None:
            raise RefusedError(
                f"this agent has just started and cannot read yet who owns the guest: {error}",
                operation="open session",
                domain=hello.domain,
                left="no copy was made; the guest's output is held",
                hint=f"check the witness, and the network from {authority.host} to it; it is tried again by itself",
            ) from error
        record = authority.last_known(hello.uuid)
        if record is None or _current(hello, record):
            return  # it may have become the owner since
    if record is None:
        raise RefusedError(
            f"the witness has no record of the guest, and this agent does not know that {hello.host} owned it last",
            operation="open session",
            domain=hello.domain,
            left="no copy was made",
            hint=f"if {hello.host} has the witness configured, that has lost the record: see docs/runbook.md, A record is lost",
        )
    if _owners(hello, record):
        return
    said = f"{record.owner} owns the guest since generation {record.generation}; this session is of {hello.generation}"
    if record.owner != hello.host:
        raise AnotherOwner(
            said,
            operation="open session",
            domain=hello.domain,
            hint="the guest there has to stop; it can be a backup then",
        )
    raise RefusedError(said, operation="open session", domain=hello.domain, hint="its agent has to read the record")


def _current(hello: Hello, record: Ownership) -> bool:
    return hello.generation >= record.generation


def _owners(hello: Hello, record: Ownership) -> bool:
    return hello.host == record.owner and _current(hello, record)
