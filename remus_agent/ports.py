"""What the services need of the world, as interfaces. `adapters` implements them; `adapters.sim` fakes them.

    Hypervisor ── Source   (primary: takes checkpoints of one running domain; `source_ports`)
               └─ Target   (backup: holds one paused copy that is fed committed epochs)
    OutputBuffer            (primary: the plugs of one domain's interfaces)
    Announcer               (backup, after failover: tells the network where the guest is now)
    Connector / Connection  (frames between two agents)
    EventSink, Clock

What is kept over a restart: `store_ports`; disks: `disk_ports`; a relay: `relay_ports`; the witness and fencing:
`witness_ports`, `fence_ports`.

Blocking work of an adapter runs in the adapter's own threads; what is `async` here never blocks the event loop.
What is not `async` is called inside the suspended window and must return within microseconds to few milliseconds.
Adapters raise only errors of `remus_agent.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from remus_agent.protocol.replication.frames import Buffer as Buffer  # noqa: PLC0414 - for implementers of ports
from remus_agent.protocol.replication.frames import Frame
from remus_agent.protocol.stream.constants import GuestType as GuestType  # noqa: PLC0414 - for implementers of ports
from remus_agent.source_ports import Source


@dataclass(frozen=True, slots=True)
class Vif:
    """One network interface of a domain. device: its name in dom0 (`vif3.0`). emulated: the same interface as the guest
    sees it before its kernel has its own drivers, on a device of its own (`vif3.0-emu`), which belongs to QEMU. index: what
    the kernel knows the device by, which is another one when it was made anew under the same name; 0 when there is none."""

    devid: int
    device: str
    mac: str
    bridge: str
    emulated: bool = False
    index: int = 0


@dataclass(frozen=True, slots=True)
class Vbd:
    """One disk of a domain. vdev: its name in the guest (`xvda`). path: what it is in dom0, as the guest's configuration names
    it; empty for a drive without a medium. backend: who serves it, `phy` for the kernel of dom0. shareable: attached as `w!`,
    without a check that nobody else writes to it."""

    vdev: str
    path: str
    writable: bool = True
    cdrom: bool = False
    backend: str = "phy"
    shareable: bool = False

    def __str__(self) -> str:
        return f"{self.vdev}: {self.path}" if self.path else self.vdev


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as the hypervisor shows it now. memory_kib: populated memory. taps: emulated twins of its vifs. members: of a
    consistency group, which is shown as one domain with the memory and devices of all (`services.group_hypervisor`); its domid
    and guest_type are those of the first."""

    name: str
    domid: int
    uuid: str
    guest_type: GuestType
    memory_kib: int
    vifs: tuple[Vif, ...]
    disks: tuple[Vbd, ...] = ()
    taps: tuple[Vif, ...] = ()
    members: tuple[Domain, ...] = ()

    @property
    def guests(self) -> tuple[Domain, ...]:
        """The domains that Xen has: a group's members, or this one."""
        return self.members or (self,)

    @property
    def outputs(self) -> tuple[Vif, ...]:
        """All devices through which it sends frames."""
        return self.vifs + self.taps


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What must agree between two hosts, and what a backup must have.

    cpu_policy: hex digest of the CPUID and MSR policy that HVM and PVH guests can have at most; pv_cpu_policy: the same
    for PV guests, empty where there can be none. device_model: whether there is one for HVM guests."""

    xen_version: str
    cpu_policy: str
    free_memory_kib: int
    pv_cpu_policy: str = ""
    device_model: bool = True

    def policy_for(self, guest_type: GuestType) -> str:
        """The policy that guests of this type are checked against."""
        return self.pv_cpu_policy if guest_type is GuestType.PV else self.cpu_policy


class Target(Protocol):
    """A paused copy of a domain on the backup, built by a stock toolstack process."""

    @property
    def may_have_run(self) -> bool:
        """Whether the domain was unpaused, or that was tried. Settled once `run` has returned, or then `abort`."""
        ...

    @property
    def built(self) -> bool:
        """Whether `build` has returned: the domain is whole, and holds its devices."""
        ...

    async def feed(self, buffers: Sequence[Buffer]) -> None:
        """Apply PAGE_DATA records (whole records, in order). Returns when the toolstack has taken them from us."""
        ...

    async def build(self, tail: Sequence[Buffer], emulator: Sequence[Buffer]) -> None:
        """End the stream with the records of the last commit that are not memory, and wait for the toolstack: the domain is whole
        then, paused under its working name, also when this process dies. emulator: the records of an HVM guest's device model,
        else none. Once it is built, nothing more is done."""
        ...

    async def rename(self, name: str) -> None:
        """Give the domain that was built its real name. It stays paused."""
        ...

    async def run(self) -> Domain:
        """Unpause the domain that has its name, and nothing else."""
        ...

    async def abort(self) -> None:
        """Destroy the half-built copy and wait until it is gone. Safe to call twice."""
        ...


class Hypervisor(Protocol):
    """One host's Xen and toolstack."""

    async def facts(self) -> HostFacts: ...

    async def domain(self, name: str) -> Domain:
        """Raises DomainNotFound (with the names that exist)."""
        ...

    async def name_of(self, uuid: str) -> str | None:
        """What a domain of this UUID is called, also one that is paused or being built; None when there is none."""
        ...

    async def devices(self, domain: Domain) -> Domain | None:
        """The domain with the disks and interfaces that it has now; None when it is paused, shut down or gone, because one that
        is being destroyed loses its devices first. Cheap enough for every epoch. A device that came or went shows at once, one
        that stays and leads elsewhere within two seconds."""
        ...

    async def open_source(self, domain: Domain) -> Source:
        """Refuses (RefusedError) guest types and configurations that cannot be protected. Does not touch the guest."""
        ...

    async def open_target(self, preamble: bytes, working_name: str) -> Target:
        """Start building a paused copy from the preamble, under a working name."""
        ...

    async def names(self) -> frozenset[str]:
        """Names of all domains, those included that are being built."""
        ...

    async def rename(self, domain: Domain, name: str) -> Domain:
        """Give it another name. Raises HypervisorError when another domain has it, DomainNotFound as `resume` does."""
        ...

    async def destroy(self, name: str) -> bool:
        """Destroy a domain by name; False if there is none."""
        ...

    async def resume(self, domain: Domain) -> bool:
        """Set a guest going that is down for suspension; False when it is not. One that is paused as well stays paused. Raises
        DomainNotFound when it is gone, or another one by now."""
        ...

    async def is_paused(self, domain: Domain) -> bool:
        """Whether it waits for `unpause`. Raises as `resume` does."""
        ...

    async def pause(self, domain: Domain) -> None:
        """It runs no more until `unpause`. Safe to call twice. Raises as `resume` does."""
        ...

    async def unpause(self, domain: Domain) -> None:
        """It runs on, unless it is down for suspension. Safe to call twice. Raises as `resume` does."""
        ...

    async def domids(self) -> frozenset[int]:
        """Ids of all domains, those included that are being built. One that is dying runs no more; Xen keeps it for as long as
        somebody holds its memory, and frames that it sent are such memory."""
        ...


@dataclass(frozen=True, slots=True)
class BufferState:
    """What the plugs of one domain hold now."""

    held_bytes: int
    held_packets: int
    dropped_packets: int


class OutputBuffer(Protocol):
    """The plugs of one domain's interfaces: one IFB with a plug qdisc per vif."""

    def follow(self, domain: Domain) -> None:
        """The domain has other interfaces now: the next `install` is for those. `remove` also clears up after the others."""
        ...

    async def install(self, *, closed: bool) -> None:
        """Put a plug on each interface. closed: hold from the first frame on (a plug that was there stays in force until the
        new one is, and its frames stay held until the next `release`)."""
        ...

    def barrier(self) -> None:
        """End the running epoch: what is held and what comes is kept apart (BUFFER on each plug). Called while the guest is
        down. Only legal when the epoch before was released."""
        ...

    async def release(self) -> None:
        """Let out the frames of the last closed epoch (RELEASE_ONE on each plug), and of plugs that install() replaced."""
        ...

    async def open(self) -> None:
        """Let out everything and hold nothing any more (RELEASE_INDEFINITE)."""
        ...

    async def remove(self) -> None:
        """Open, wait until nothing is held, take the plumbing away."""
        ...

    async def drop(self) -> None:
        """Throw away all that is held, and hold whatever comes from now on. Called while the guest does not run; also for what an
        earlier agent has left."""
        ...

    async def state(self) -> BufferState: ...


class OutputBuffers(Protocol):
    """Makes output buffers. limit: bytes each plug may hold before frames are dropped."""

    def of(self, domain: Domain, limit: int) -> OutputBuffer: ...

    async def sweep(self, domids: frozenset[int]) -> list[str]:
        """Take away what is left of domains that are none of these, with what it holds: that is dropped, never let out.
        Returns names for the log. Raises OutputBufferError; what was not taken away yet stays."""
        ...


class Announcer(Protocol):
    """Tells switches and neighbours where a guest is now (gratuitous ARP / unsolicited NA)."""

    async def announce(self, domain: Domain, told: Callable[[], None]) -> None:
        """Announce it, several times. told: called as soon as all of its interfaces were announced for the first time; never
        when that does not succeed. Raises OutputBufferError with what failed."""
        ...


class Connection(Protocol):
    """Ordered frames to and from one peer."""

    @property
    def peer(self) -> str:
        """Address of the other side, for messages."""
        ...

    @property
    def identity(self) -> str | None:
        """The host that the other side has proven to be; None where the transport proves nothing."""
        ...

    async def send(self, frame: Frame) -> None:
        """Hand the frame to the transport, with backpressure. Returning says nothing about the peer. Raises ConnectionLost."""
        ...

    async def receive(self) -> Frame:
        """The next frame. Raises ConnectionLost at the end, ReplicationError on malformed bytes."""
        ...

    async def close(self) -> None:
        """End it after what was sent is on its way, for which it waits a moment."""
        ...

    def abort(self) -> None:
        """End it at once: the other side is not there, or has given it up."""
        ...


class Connector(Protocol):
    """Opens connections to peers. Raises ConnectionLost or PeerTimeout."""

    async def connect(self, address: str, timeout: float) -> Connection: ...


class EventSink(Protocol):
    """Where services note what happened, for people and tools. Never raises."""

    def note(self, domain: str, event: str, *, epoch: int | None = None, **detail: object) -> None: ...


class Clock(Protocol):
    """Monotonic time that goes on while the host sleeps (CLOCK_BOOTTIME); seconds."""

    def now(self) -> float: ...

    def time_of_day(self) -> float:
        """Seconds since 1970. For what people read: it can be set, so nothing may be decided by it."""
        ...

    async def sleep(self, seconds: float) -> None: ...
