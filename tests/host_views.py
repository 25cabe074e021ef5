"""Moments of a host, for tests of what monitoring makes of them."""

from __future__ import annotations

from typing import Any

from remus_agent.observe.figures import EpochFigures
from remus_agent.observe.status import (
    DiskStatus,
    MemberStatus,
    PartCost,
    ProtectionCost,
    Role,
    Seeding,
    State,
    Status,
)
from remus_agent.observe.view import CertificateView, GuestView, HostView, WatchdogView, WitnessView

UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"


def figures() -> EpochFigures:
    """Of two epochs."""
    found = EpochFigures()
    for period in (None, 0.2):
        found.add(
            dict.fromkeys(found.phases, 0.002),
            down=0.01,
            period=period,
            disk_ack=0.003,
            pages=100,
            page_bytes=4096,
            sent_bytes=300_000,
            disk_bytes=8192,
        )
    return found


def guest(state: State = "protected", role: Role = "primary", name: str = "web1", **facts: Any) -> GuestView:
    """One guest, by its status."""
    status = Status(domain=name, role=role, state=state, peer="beta", **facts)
    mine = role == "primary"
    return GuestView(status, UUID, 64 << 20, figures() if mine else None)


def host(*guests: GuestView, **facts: Any) -> HostView:
    """alpha, with these guests."""
    return HostView(host="alpha", version="0.1.0", guests=guests, supervisor=facts.pop("supervisor", True), **facts)


COST = ProtectionCost(1.0, 1, (PartCost("copy", 1.0, 1),))
FULL = host(
    guest(disks=(DiskStatus(vdev="xvda", mode="replicating", size=1),), last_ack_age=1.0),
    guest("seeding", name="sql1", seeding=Seeding(1, 2, "pages", 1.0, 1.0)),
    guest("ready", "backup", "db1", last_ack_age=1.0, cost=COST),
    guest(name="shop", members=(MemberStatus(domain="app1", memory_kib=1, cost=COST),)),
    free_memory_bytes=1,
    shared_cpu_seconds=1.0,
    shared_memory_bytes=1,
    certificate=CertificateView(1.8e9, usable=True),
    witness=WitnessView(reachable=True, answered=1.7e9),
    watchdog=WatchdogView(armed=True, problem=False),
)
"""One that has all there is, so that every metric has a series."""
