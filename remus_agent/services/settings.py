"""What services work with of the configuration file: its numbers, and the groups of guests."""

from __future__ import annotations

from dataclasses import dataclass, field

from remus_agent.protocol.groups import Groups


@dataclass(frozen=True, slots=True)
class Settings:
    """All durations in seconds.

    connect: to reach a peer. suspend: for a guest to suspend. ack: for a memory acknowledgement. silence: without any
    frame before a connection counts as ended. heartbeat: between heartbeats. activate: for the toolstack to finish a
    domain. look: between two looks at what is below the disks. retry: between attempts to find a lost backup.
    staging_bytes: most that one epoch may take on the backup besides the guest's own memory size.
    disk_staging_bytes: memory that one epoch of one disk may take on the backup.
    interval_ms, output_limit_bytes: of guests for which nobody has said others: how long they run at least between two
    checkpoints, and how much output may be held for one of their interfaces.

    With a witness: detect: silence on both paths after which a backup asks to take over. solo: time without an acknowledgement
    after which a primary asks to run on alone; longer than detect plus what a takeover takes, so that a backup that lives wins.
    drift: by how much of itself the rate of one host's clock may differ from the true one.
    automatic_failover, automatic_solo, automatic_reprotect: whether an agent does these by itself.
    watchdog_seconds: after which a host that holds authority is reset when its agent does not come back; 0: never.

    groups: guests that are protected together.
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
    interval_ms: int = 100
    output_limit_bytes: int = 64 * 1024 * 1024
    detect: float = 10.0
    solo: float = 60.0
    drift: float = 0.1
    automatic_failover: bool = True
    automatic_solo: bool = True
    automatic_reprotect: bool = True
    watchdog_seconds: int = 0
    groups: Groups = field(default_factory=Groups)

    @property
    def sure(self) -> float:
        """Seconds after which a message that the backup has heard can no longer keep it from taking over: as long as it was
        sent a shorter time ago by our clock, the backup's detector has not run out by its own."""
        return self.detect * (1 - self.drift) / (1 + self.drift)

    @property
    def tick(self) -> float:
        """Seconds between two looks of a detector."""
        return self.detect / 10

    @property
    def longest_word(self) -> float:
        """Seconds after which nothing is activated any more on an operator's word or a primary's: what it takes at most when all
        goes well."""
        return 2 * self.quiet + self.connect + self.activate + self.ack

    @property
    def quiet(self) -> float:
        """Seconds without a word after which a host counts as silent when an operator fails over."""
        return max(3 * self.heartbeat, self.detect)
