"""What is kept of each epoch for status, metrics and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from remus_agent.observe.figures import PHASES, EpochFigures
from remus_agent.protocol.stream.constants import PAGE_SIZE
from remus_agent.source_ports import Checkpoint


@dataclass(frozen=True, slots=True)
class DiskFigures:
    """One epoch of all disks together. ack: seconds that were waited for their acknowledgements."""

    data_bytes: int = 0
    extents: int = 0
    ack: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One guest of a group in one epoch."""

    pages: int
    down_ns: int


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Figures of one epoch on its primary; durations in nanoseconds, see `source_ports.Timing` for the first seven.

    started: clock when the guest was asked to suspend, in seconds. bytes: stream bytes sent after the guest ran again.
    send_ns: encoding and sending. ack_ns: waiting for the acknowledgement. period_ns: since the start of the epoch before.
    disk_bytes, disk_extents: of all its disks. disk_ack_ns: from the end of sending until the last disk was acknowledged.
    members: of a consistency group, in the order of their names; durations are the longest of theirs then.
    """

    epoch: int
    started: float
    pages: int
    bytes: int
    freeze_ns: int
    barrier_ns: int
    clean_ns: int
    copy_ns: int
    context_ns: int
    resume_ns: int
    down_ns: int
    send_ns: int
    ack_ns: int
    period_ns: int
    disk_bytes: int = 0
    disk_extents: int = 0
    disk_ack_ns: int = 0
    members: tuple[MemberRecord, ...] = ()

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        sent_bytes: int,
        started: float,
        send: float,
        ack: float,
        previous: float | None,
        disks: DiskFigures,
    ) -> EpochRecord:
        """Put together what the source measured and what the service measured (seconds)."""
        timing = checkpoint.timing
        return cls(
            epoch=checkpoint.epoch,
            started=started,
            pages=checkpoint.pages,
            bytes=sent_bytes,
            freeze_ns=timing.freeze,
            barrier_ns=timing.barrier,
            clean_ns=timing.clean,
            copy_ns=timing.copy,
            context_ns=timing.context,
            resume_ns=timing.resume,
            down_ns=timing.down,
            send_ns=round(send * 1e9),
            ack_ns=round(ack * 1e9),
            period_ns=round((started - previous) * 1e9) if previous is not None else 0,
            disk_bytes=disks.data_bytes,
            disk_extents=disks.extents,
            disk_ack_ns=round(disks.ack * 1e9),
            members=tuple(MemberRecord(one.pages, one.timing.down) for one in checkpoint.members),
        )

    def add_to(self, figures: EpochFigures) -> None:
        """Count this epoch in."""
        figures.add(
            {name: getattr(self, f"{name}_ns") / 1e9 for name in PHASES},
            down=self.down_ns / 1e9,
            period=self.period_ns / 1e9 if self.period_ns else None,
            disk_ack=self.disk_ack_ns / 1e9,
            pages=self.pages,
            page_bytes=PAGE_SIZE,
            sent_bytes=self.bytes,
            disk_bytes=self.disk_bytes,
        )
