"""Turns what services know into the one status vocabulary that users see everywhere."""

from __future__ import annotations

from remus_agent.errors import OutputBufferError, RemusError
from remus_agent.machines import backup, primary
from remus_agent.observe.status import MemberStatus, Role, State, Status
from remus_agent.ports import BufferState, Domain
from remus_agent.services.copy import Copy
from remus_agent.services.epochs import EpochRecord
from remus_agent.services.primary import PrimaryService, beginning, is_over
from remus_agent.services.put_off import Waiting

_PRIMARY: dict[primary.State, State] = {
    primary.State.CONNECTING: "connecting",
    primary.State.SEEDING: "seeding",
    primary.State.PROTECTED: "protected",
    primary.State.SILENT: "silent",
    primary.State.RECONNECTING: "silent",
    primary.State.RESEEDING: "seeding",
    primary.State.STOPPING: "stopping",
    primary.State.FREEING: "stopping",
    primary.State.FAILING: "stopping",
    primary.State.GOING_SOLO: "silent",
    primary.State.SOLO: "solo",
    primary.State.SEEKING: "solo",
    primary.State.REPROTECTING: "seeding",
    primary.State.RETIRING: "stopping",
    primary.State.STANDING_DOWN: "standing-down",
    primary.State.SWITCHING: "switching",
    primary.State.HANDED: "handed-over",
    primary.State.IN_DOUBT: "in-doubt",
    primary.State.DEPARTING: "handed-over",
    primary.State.DEPARTED: "handed-over",
    primary.State.STOPPED: "unprotected",
    primary.State.STOOD_DOWN: "stood-down",
    primary.State.RETURNING: "stood-down",
    primary.State.GIVING_UP: "standing-down",
    primary.State.STARTING: "starting",
    primary.State.GIVEN_UP: "discarded",
    primary.State.FAILED: "failed",
}
"""The words for users, who need not tell apart all states of the machine."""

_REPLICATING: frozenset[State] = frozenset({"connecting", "seeding", "protected"})
"""What a protection is not any more after a defect: its output is held as if the backup were silent."""

_BACKUP: dict[backup.State, State] = {
    backup.State.RECEIVING: "receiving",
    backup.State.READY: "ready",
    backup.State.ORPHANED: "orphaned",
    backup.State.TAKING: "orphaned",
    backup.State.STALE: "stale",
    backup.State.ACTIVATING: "activating",
    backup.State.ACTIVE: "active",
    backup.State.DISCARDED: "discarded",
}


async def primary_status(service: PrimaryService, now: float, watchdog: RemusError | None = None) -> Status:
    """Status of a domain that is protected here. watchdog: what is wrong with this host's."""
    held = BufferState(0, 0, 0)
    reason = str(service.held_because) if service.held_because else service.ownership.reason or service.reason
    if not is_over(service):
        try:
            held = await service.buffer_state()
        except OutputBufferError as error:
            reason = reason or str(error)
        if watchdog is not None:
            reason = "; ".join(filter(None, (reason, f"no watchdog looks after this host: {watchdog}")))
    state = _PRIMARY[service.state]
    if service.defect is not None:
        reason = f"its protection ended by a defect of the agent, and is tried again: {service.defect}"
        state = "silent" if state in _REPLICATING else state
    last = service.epochs[-1] if service.epochs else None
    return Status(
        domain=service.domain.name,
        role="none" if is_over(service) else "primary",
        state=state,
        peer=service.record.peer,
        session=service.session_id,
        generation=service.record.generation,
        epoch=service.commit.running,
        acked_epoch=service.acked_epoch,
        committed_epoch=service.acked_epoch,
        seeding=service.seeding,
        held_bytes=held.held_bytes,
        held_packets=held.held_packets,
        dropped_packets=held.dropped_packets,
        last_ack_age=round(now - service.last_ack, 3) if service.last_ack is not None else None,
        interval_ms=service.record.interval_ms,
        output_limit_bytes=service.record.output_limit_bytes,
        pages_last=last.pages if last else 0,
        bytes_last=last.bytes if last else 0,
        down_ms_last=round(last.down_ns / 1e6, 3) if last else 0.0,
        since=round(now - service.since, 3),
        reason=reason,
        disks=service.disks,
        members=_members(service.domain, last),
    )


def put_off_status(waiting: Waiting, now: float, *, witnessed: bool) -> Status:
    """Status of a domain whose protection is on record and cannot go on yet. witnessed: by a host with a witness."""
    record = waiting.record
    state = _PRIMARY[beginning(record, solo=witnessed)[0]]
    return Status(
        domain=record.name,
        role="primary",
        state="silent" if state in _REPLICATING else state,
        peer=record.peer,
        generation=record.generation,
        interval_ms=record.interval_ms,
        output_limit_bytes=record.output_limit_bytes,
        since=round(now - waiting.since, 3),
        reason=waiting.reason,
    )


def copy_status(copy: Copy, now: float, override: str | None = None) -> Status:
    """Status of a domain of which this host holds a copy, or which it took over. override: see `Roles.overrides`."""
    role: Role = "none" if copy.state is backup.State.DISCARDED else "backup"
    return Status(
        domain=copy.hello.domain,
        role="primary" if copy.running is not None else role,
        state=_BACKUP[copy.state],
        peer=copy.hello.host,
        session=copy.hello.session,
        generation=copy.generation,
        epoch=copy.committed_epoch + 1,
        acked_epoch=copy.committed_epoch,
        committed_epoch=copy.committed_epoch,
        last_ack_age=round(now - copy.last_heard, 3),
        since=round(now - copy.since, 3),
        reason=override or copy.hangs or copy.reason,
        members=tuple(
            MemberStatus(domain=guest.name, memory_kib=guest.memory_kib)
            for guest in (copy.hello.guests if copy.hello.grouped else ())
        ),
    )


def _members(group: Domain, last: EpochRecord | None) -> tuple[MemberStatus, ...]:
    """Of a group. A member that was started since the group was looked at has no figures."""
    figures = last.members if last is not None and len(last.members) == len(group.members) else None
    return tuple(
        MemberStatus(
            domain=member.name,
            memory_kib=member.memory_kib,
            pages_last=figures[number].pages if figures else 0,
            down_ms_last=round(figures[number].down_ns / 1e6, 3) if figures else 0.0,
        )
        for number, member in enumerate(group.members)
    )


def none_status(domain: str, reason: str | None = None) -> Status:
    """Status of a running domain that this agent does not protect."""
    return Status(domain=domain, role="none", state="unprotected", reason=reason)
