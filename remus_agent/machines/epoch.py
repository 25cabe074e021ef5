"""Output commit: which epoch's output may leave the host (guarantee G1).

`sch_plug` can hold one unacknowledged epoch besides the running one, so the machine has two phases: OPEN (every closed
epoch is released) and CLOSED (one epoch waits for its acknowledgements). Time plays no part here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from remus_agent.errors import ReplicationError


@dataclass(frozen=True, slots=True)
class OutputCommit:
    """State of one session's output. disks: names whose acknowledgement each epoch needs besides memory's.

    running: number of the epoch that executes now. waiting: the closed epoch that is not yet released, if any.
    """

    disks: frozenset[str] = frozenset()
    running: int = 1
    waiting: int | None = None
    memory: bool = False
    disks_acked: frozenset[str] = field(default_factory=frozenset)

    def barrier(self, epoch: int) -> OutputCommit:
        """The running epoch ends. Legal only when the one before was released; the caller holds the guest down."""
        if self.waiting is not None:
            raise ReplicationError(
                f"barrier while epoch {self.waiting} is not released", operation="output commit", epoch=epoch
            )
        if epoch != self.running:
            raise ReplicationError(
                f"barrier for an epoch that is not the running one ({self.running})",
                operation="output commit",
                epoch=epoch,
            )
        return replace(self, running=epoch + 1, waiting=epoch, memory=False, disks_acked=frozenset())

    def memory_ack(self, epoch: int) -> OutputCommit:
        """The backup holds the memory of this epoch completely and has verified it."""
        self._expect(epoch, "memory")
        if self.memory:
            raise ReplicationError("memory acknowledged twice", operation="output commit", epoch=epoch)
        return replace(self, memory=True)

    def disk_ack(self, epoch: int, disk: str) -> OutputCommit:
        """The backup holds this disk's writes of this epoch."""
        self._expect(epoch, f"disk {disk}")
        if disk not in self.disks or disk in self.disks_acked:
            raise ReplicationError(f"unexpected acknowledgement of disk {disk}", operation="output commit", epoch=epoch)
        return replace(self, disks_acked=self.disks_acked | {disk})

    @property
    def releasable(self) -> int | None:
        """The epoch whose output may leave now: both acknowledgements, memory's and every disk's, are in."""
        if self.waiting is not None and self.memory and self.disks_acked == self.disks:
            return self.waiting
        return None

    def released(self, epoch: int) -> OutputCommit:
        """The plugs let this epoch out."""
        if self.releasable != epoch:
            raise ReplicationError(
                "release of an epoch that is not acknowledged", operation="output commit", epoch=epoch
            )
        return replace(self, waiting=None, memory=False, disks_acked=frozenset())

    def _expect(self, epoch: int, what: str) -> None:
        if self.waiting != epoch:
            waits = "none waits" if self.waiting is None else f"epoch {self.waiting} waits"
            raise ReplicationError(
                f"acknowledgement of {what} out of turn ({waits})", operation="output commit", epoch=epoch
            )
