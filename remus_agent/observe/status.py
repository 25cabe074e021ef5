"""The state of one domain's protection, as the control socket shows it."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["primary", "backup", "none"]
PrimaryState = Literal[
    "connecting",
    "seeding",
    "protected",
    "silent",
    "solo",
    "switching",
    "handed-over",
    "in-doubt",
    "stopping",
    "standing-down",
    "stood-down",
    "starting",
    "failed",
]
BackupState = Literal["receiving", "ready", "orphaned", "stale", "activating", "active", "discarded"]
State = Literal[
    "connecting",
    "seeding",
    "protected",
    "silent",
    "solo",
    "switching",
    "handed-over",
    "in-doubt",
    "stopping",
    "standing-down",
    "stood-down",
    "starting",
    "failed",
    "receiving",
    "ready",
    "orphaned",
    "stale",
    "activating",
    "active",
    "discarded",
    "unprotected",
    "paused",
]
"""What a role is doing; `unprotected` and `paused` only with role `none`; `paused`: its protection
is suspended, and begins again by itself. `silent`: no acknowledgement comes, the guest
runs and its output is held. `stopping`: protection ends, and may still hold output. `solo`: it runs
on unprotected, output open, and a backup is looked for. `standing-down`: another host owns it, it is being paused or
destroyed here. `stood-down`: it is paused here, until the owner has shown that it runs it; `reason` says what is waited for.
`starting`: it was taken over and built here, and is paused until the witness has said again that this host may run it; where it
was to run by an operator's word, until he has.
`switching`: its last epoch is on its way to the backup, which then runs it; `handed-over`: the backup was told;
`in-doubt`: the backup has not said whether it runs it. In these three the guest is down here.
`stale`: a copy without which the guest ran on; only an operator who accepts the loss may activate it.
`discarded`: what was here is destroyed, a copy or, with role `none`, also a guest that another host owns."""


class Seeding(msgspec.Struct, frozen=True):
    """Progress of the first full copy: of the disks in bytes, then of memory in pages. rate: of it a second. left: seconds that
    the rest takes at this rate, null where nothing is known."""

    done: int
    total: int
    unit: str = "pages"
    rate: float = 0.0
    left: float | None = None


DiskMode = Literal["copying", "replicating", "tracking"]
"""What is done with a disk's writes: sent while the disk is still being copied; sent; only noted, without a session."""


class DiskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One protected disk. size: bytes. done, total: bytes of the copy at the start of the session. sent: bytes that travelled
    in the session. bytes_last: of the last epoch. problem: what is wrong with it although the guest's disk goes on."""

    vdev: str
    mode: DiskMode
    size: int
    done: int = 0
    total: int = 0
    sent: int = 0
    bytes_last: int = 0
    problem: str | None = None


class PartCost(msgspec.Struct, frozen=True):
    """part: `checkpoints`, on its primary: the thread that takes them, its staging and bitmap, Xen's save helper for a PV guest.
    `copy`, on its backup: the thread that feeds it, `xl restore` and what that starts, the memory of an epoch before it is
    applied. `disks`: on its primary the processes of the write taps, on its backup the threads that write the disks, and the
    memory of an epoch before it is applied. cpu_seconds, memory_bytes: see ProtectionCost."""

    part: str
    cpu_seconds: float
    memory_bytes: int


class ProtectionCost(msgspec.Struct, frozen=True):
    """What this host spends on one protection, as far as it is spent for that guest alone. cpu_seconds: processor time of dom0
    since the agent started, in all roles that the host had since then. memory_bytes: of dom0, now; of processes their PSS, at
    most ten seconds old. parts: the same, by what it is for.

    Not in it: what guests share, above all the event loop, which encodes, encrypts, sends and receives for all of them
    (`shared_cost` of the agent); what the kernel holds for it, such as sockets, pipes, page tables and the output that waits; the
    memory of the guest and of its copy; what Xen does. Of a process that ended by itself, what it used after the last look."""

    cpu_seconds: float
    memory_bytes: int
    parts: tuple[PartCost, ...] = ()


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One guest of a group. memory_kib: its memory. pages_last, down_ms_last: of the group's last checkpoint, on its primary.
    cost: what of the group's is there for this guest alone; the rest of that is of the epochs that all of them share."""

    domain: str
    memory_kib: int
    pages_last: int = 0
    down_ms_last: float = 0.0
    cost: ProtectionCost | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One domain on one host.

    epoch: the running one. acked_epoch: newest whose memory the backup acknowledged. committed_epoch: newest committed.
    held_*: guest output that waits for an acknowledgement; dropped_packets: lost because the buffer was full. last_ack_age:
    seconds since the last acknowledgement. interval_ms: wanted time between checkpoints. output_limit_bytes: most that may be
    held for one interface. pages_last, bytes_last (of memory), down_ms_last: of the last checkpoint. since: seconds in this
    state. reason: why it failed or is silent. disks: those that are protected with it, on its primary. members: of a
    consistency group. cost: of its protection on this host; null where there is none, or nothing is known.
    """

    domain: str
    role: Role
    state: State
    peer: str | None = None
    session: str | None = None
    generation: int = 0
    epoch: int = 0
    acked_epoch: int = 0
    committed_epoch: int = 0
    seeding: Seeding | None = None
    held_bytes: int = 0
    held_packets: int = 0
    dropped_packets: int = 0
    last_ack_age: float | None = None
    interval_ms: int = 0
    output_limit_bytes: int = 0
    pages_last: int = 0
    bytes_last: int = 0
    down_ms_last: float = 0.0
    since: float = 0.0
    reason: str | None = None
    disks: tuple[DiskStatus, ...] = ()
    members: tuple[MemberStatus, ...] = ()
    cost: ProtectionCost | None = None

    def as_dict(self) -> dict[str, object]:
        """As the control socket sends it; every field is there, null where nothing is known."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        return plain
