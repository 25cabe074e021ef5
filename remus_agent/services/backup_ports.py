"""What a backup works with."""

from __future__ import annotations

from dataclasses import dataclass

from remus_agent.disk_ports import Replicas
from remus_agent.ports import Announcer, Clock, EventSink, Hypervisor
from remus_agent.store_ports import Journals


@dataclass(frozen=True, slots=True)
class BackupPorts:
    """What a backup works with."""

    hypervisor: Hypervisor
    journals: Journals
    announcer: Announcer
    events: EventSink
    clock: Clock
    replicas: Replicas
