"""The numbers that services work with; the configuration file fills them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """All durations in seconds.

    connect: to reach a peer. suspend: for a guest to suspend. ack: for a memory acknowledgement. silence: without any
    frame before a connection counts as ended. heartbeat: between heartbeats. activate: for the toolstack to finish a
    domain. look: between two looks at what is below the disks. retry: between attempts to find a lost backup.
    staging_bytes: most that one epoch may take on the backup besides the guest's own memory size.
    disk_staging_bytes: memory that one epoch of one disk may take on the backup.
    """

    host: str
    connect: float = 10.0
    suspend: float = 10.0
    ack: float = 60.0
    silence: float = 30.0
    heartbeat: float = 2.0
    activate: float = 120.0
    look: float = 10.0
    retry: float = 5.0
    staging_bytes: int = 64 * 1024 * 1024
    disk_staging_bytes: int = 256 * 1024 * 1024
