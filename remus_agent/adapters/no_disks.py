"""disk_ports of a host that replicates no disks: guests that have any are refused by name."""

from __future__ import annotations

from collections.abc import Sequence

from remus_agent.disk_ports import DiskFacts, Replica, WriteTap
from remus_agent.errors import DiskError, RefusedError
from remus_agent.ports import CommitRecord, Domain


class NoTaps:
    """disk_ports.Taps without any tap."""

    async def of(self, domain: Domain) -> tuple[WriteTap, ...]:
        """Nothing for a domain without disks; refuses every other."""
        if domain.disks:
            raise RefusedError(
                f"{domain.name} cannot be protected: it has disks ({', '.join(domain.disks)}); disks are not replicated yet",
                operation="protect",
                domain=domain.name,
                left="nothing was changed",
            )
        return ()


class NoReplicas:
    """disk_ports.Replicas of a host that holds copies of domains without disks only."""

    async def examine(self, domain: str, disks: Sequence[DiskFacts]) -> list[str]:
        """A reason for each disk."""
        return [f"this host cannot hold a copy of disk {disk.vdev} of {domain}" for disk in disks]

    async def open(self, domain: str, disk: DiskFacts, committed: CommitRecord | None) -> Replica:  # noqa: ARG002
        """There is none to open."""
        raise DiskError(f"this host cannot hold a copy of disk {disk.vdev}", operation="open a copy", domain=domain)
