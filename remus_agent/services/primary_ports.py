"""What a primary works with, and how it introduces itself."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from remus_agent.cost_ports import Costs
from remus_agent.disk_ports import Taps
from remus_agent.fence_ports import Fencing, Watchdog
from remus_agent.ports import Announcer, Clock, Connector, Domain, EventSink, HostFacts, Hypervisor
from remus_agent.protocol.replication.messages import Hello, HelloDisk, HelloMember
from remus_agent.store_ports import GuestStore, PauseStore
from remus_agent.witness_ports import Witness


@dataclass(frozen=True, slots=True)
class PrimaryPorts:
    """What a primary works with."""

    hypervisor: Hypervisor
    connector: Connector
    store: GuestStore
    events: EventSink
    clock: Clock
    taps: Taps
    announcer: Announcer
    witness: Witness | None = None
    """None: authority is an operator's proof of fencing only."""
    second: Connector | None = None
    """From this host's second address, for heartbeats; None: as `connector`."""
    fencing: Fencing | None = None
    """None: no fence agent is configured."""
    watchdog: Watchdog | None = None
    """None: this host has none."""
    pauses: PauseStore | None = None
    """None: no protection can be paused."""
    costs: Costs | None = None
    """None: what protections cost is not known."""


def hello_for(
    domain: Domain,
    facts: HostFacts,
    host: str,
    *,
    generation: int,
    purpose: str,
    disks: Sequence[HelloDisk] = (),
    interval_ms: int | UnsetType = UNSET,
    output_limit_bytes: int | UnsetType = UNSET,
) -> Hello:
    """The HELLO of a new session for this domain, which may be a consistency group."""
    members = tuple(
        HelloMember(
            name=member.name,
            uuid=member.uuid,
            guest_type=member.guest_type.value,
            memory_kib=member.memory_kib,
            cpu_policy=facts.policy_for(member.guest_type),
        )
        for member in domain.members
    )
    return Hello(
        purpose="probe" if purpose == "probe" else "protect",
        session=str(uuid.uuid4()),
        generation=generation,
        domain=domain.name,
        uuid=domain.uuid,
        guest_type=domain.guest_type.value,
        memory_kib=domain.memory_kib,
        xen_version=facts.xen_version,
        cpu_policy=facts.policy_for(domain.guest_type),
        host=host,
        disks=tuple(disks),
        members=members or UNSET,
        interval_ms=interval_ms,
        output_limit_bytes=output_limit_bytes,
    )
