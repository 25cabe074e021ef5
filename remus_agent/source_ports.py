"""What services need of a guest that runs: checkpoints of it, and its memory to begin with. `adapters.xen` implements it,
`adapters.sim.hypervisor` fakes it. What holds for all ports: `ports`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from remus_agent.protocol.replication.frames import Buffer


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of one checkpoint in nanoseconds.

    freeze: from asking the guest until it is down (its own work). down: from down until it runs again, split into
    barrier (plugs), clean (dirty bitmap), copy (pages), context (vcpu state and the like) and resume.
    """

    freeze: int
    barrier: int
    clean: int
    copy: int
    context: int
    resume: int
    down: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State at the end of an epoch, already copied out: the guest runs again. records: a complete sequence of libxc
    records of the epoch (PAGE_DATA... TSC_INFO HVM_CONTEXT HVM_PARAMS CHECKPOINT; a PV guest's have SHARED_INFO and
    X86_PV_VCPU_... instead of the HVM_... ones) and libxl's CHECKPOINT_END, in groups:
    each group is one or more whole records of at most 8 MiB together, ready to be the payload of a STREAM frame. The
    buffers are valid until the next checkpoint of the same source is asked for.

    members: of a consistency group, one of each; pages is their sum then, records has none, timing the longest of each step."""

    epoch: int
    pages: int
    records: Sequence[Sequence[Buffer]]
    timing: Timing
    members: Sequence[Checkpoint] = ()

    @property
    def guests(self) -> Sequence[Checkpoint]:
        """Of each guest: a group's members, or this one."""
        return self.members or (self,)


@dataclass(frozen=True, slots=True)
class SeedRound:
    """A piece of seeding: pages copied while the guest runs, as one group of whole PAGE_DATA records (see Checkpoint).

    pages: with content, in this piece. done/total: pages of memory, for progress. The buffers are valid until the next
    piece is asked for. member: of a consistency group, whose memory it is."""

    records: Sequence[Buffer]
    pages: int
    done: int
    total: int
    member: int = 0


class AtBarrier(Protocol):
    """What ends an epoch while a guest is down. Called in the thread that has it down, once; raises what is to be raised."""

    def __call__(self) -> None: ...


@runtime_checkable
class Meeting(AtBarrier, Protocol):
    """One for several guests, which returns to each when all are down and the epoch has ended for all
    (`services.meeting`). Called, it blocks; a source without a thread of its own waits with `arrive` instead."""

    async def arrive(self) -> None: ...


class Source(Protocol):
    """Takes checkpoints of one running domain. One user at a time."""

    @property
    def preambles(self) -> Sequence[bytes]:
        """Of each guest (one, or those of a group) everything before memory: xl header and configuration, libxl header,
        LIBXC_CONTEXT, libxc headers, CPUID and MSR policy, STATIC_DATA_END. The configuration names the domain by its real name.
        Known from `begin` on."""
        ...

    async def begin(self) -> None:
        """Map the guest and switch on log-dirty. After an error nothing is left switched on."""
        ...

    def seed(self) -> AsyncIterator[SeedRound]:
        """All memory, then what became dirty meanwhile, for a bounded number of rounds; the guest runs all the time."""
        ...

    async def checkpoint(
        self, epoch: int, at_barrier: AtBarrier, timeout: float, *, stay_down: bool = False
    ) -> Checkpoint:
        """Suspend the guest, call at_barrier() once it is down, copy, resume. The guest runs again when this returns *or
        raises* (unless GuestEnded). at_barrier runs in the adapter's thread; if it raises, the guest is resumed and
        the error passed on. timeout: seconds for the guest to suspend. stay_down: the last checkpoint: when this returns the
        guest is still down; `close`, and the supervisor when this process dies, resume it, until `leave_down`."""
        ...

    async def leave_down(self) -> None:
        """After the last checkpoint: from now on neither `close` nor the supervisor resumes the guest. Raises HypervisorError
        when the supervisor cannot be told; then nothing has changed."""
        ...

    async def close(self) -> None:
        """Log-dirty off, mapping gone, the guest running. Safe to call twice and after errors."""
        ...
