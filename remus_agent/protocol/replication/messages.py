"""What the frames between agents say. How they become frames, and are checked: `message_frames`.

HELLO, WELCOME, REFUSE, DISK_HELLO, DISK_WELCOME, BEAT, ASK_OUTCOME and OUTCOME carry JSON with exactly
the fields below; the others are binary.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from remus_agent.protocol.groups import MAX_MEMBERS
from remus_agent.protocol.limits import MAX_INTERVAL_MS, MAX_OUTPUT_BYTES, MIN_OUTPUT_BYTES
from remus_agent.protocol.replication.frames import FrameType

PROTOCOL: Final = 2
MAX_DISKS: Final = 16
"""Of one guest."""
MAX_REASONS: Final = 32
MAX_GUESTS: Final = 1024
MAX_ASKED_BYTES: Final = 1 << 32
"""The longest range of which digests can be asked in one go."""

Uuid = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
"""A UUID in its usual form: lower case, with dashes (`str(uuid.uuid4())`)."""
DomainName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,126}\Z")]
"""A domain's name. No path separators: it becomes part of file names."""
ShortText = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Vdev = Annotated[str, msgspec.Meta(pattern=r"\A([A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,126}/)?[a-z][a-z0-9]{0,31}\Z")]
"""A disk's name in its guest (`xvda`); of a group's member with the guest before it (`db1/xvda`, see `protocol.groups`)."""
IntervalMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTERVAL_MS)]
"""How long a guest runs at least between two checkpoints."""
OutputLimit = Annotated[int, msgspec.Meta(ge=MIN_OUTPUT_BYTES, le=MAX_OUTPUT_BYTES)]
"""The most bytes of a guest's output that are held."""
DiskBytes = Annotated[int, msgspec.Meta(ge=512, le=2**63 - 512, multiple_of=512)]
Sector = Annotated[int, msgspec.Meta(ge=512, le=65536, multiple_of=512)]


class HelloDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protected disk of the domain. size: bytes. block: logical sector size in bytes."""

    vdev: Vdev
    size: DiskBytes
    block: Sector


class HelloMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One guest of a group. The fields are those of `Hello`."""

    name: DomainName
    uuid: Uuid
    guest_type: Literal["pvh", "hvm", "pv"]
    memory_kib: Count
    cpu_policy: ShortText


class Hello(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First frame from a primary: what it wants to protect, or only asks about. memory_kib: populated memory.
    cpu_policy: hex digest of its host's CPUID and MSR policy. generation: token of ownership. disks: those that are
    replicated with it, each on a connection of its own. members: of a group, in the order in which frames count them; not
    there for a guest alone. Of a group memory_kib is that of all members, guest_type and cpu_policy are the first one's.
    interval_ms, output_limit_bytes: where somebody wanted others for this guest than are usual on the primary's host; whoever
    takes it over protects it with them."""

    protocol: int = PROTOCOL
    purpose: Literal["protect", "probe"]
    session: Uuid
    generation: Count
    domain: DomainName
    uuid: Uuid
    guest_type: Literal["pvh", "hvm", "pv"]
    memory_kib: Count
    xen_version: ShortText
    cpu_policy: ShortText
    host: ShortText
    disks: Annotated[tuple[HelloDisk, ...], msgspec.Meta(max_length=MAX_DISKS * MAX_MEMBERS)] = ()
    members: Annotated[tuple[HelloMember, ...], msgspec.Meta(max_length=MAX_MEMBERS)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    interval_ms: IntervalMs | msgspec.UnsetType = msgspec.UNSET
    output_limit_bytes: OutputLimit | msgspec.UnsetType = msgspec.UNSET

    @property
    def guests(self) -> tuple[HelloMember, ...]:
        """Whose streams the session carries: a group's members, or the guest alone."""
        if self.members is not msgspec.UNSET:
            return self.members
        alone = HelloMember(
            name=self.domain,
            uuid=self.uuid,
            guest_type=self.guest_type,
            memory_kib=self.memory_kib,
            cpu_policy=self.cpu_policy,
        )
        return (alone,)

    @property
    def member_names(self) -> tuple[str, ...]:
        """Of a group; none for a guest alone."""
        return tuple(guest.name for guest in self.guests) if self.grouped else ()

    @property
    def grouped(self) -> bool:
        """Whether it is for a group."""
        return self.members is not msgspec.UNSET


class Welcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backup takes part. session: repeats the one of HELLO. free_memory_kib: free on its host."""

    protocol: int = PROTOCOL
    host: ShortText
    session: Uuid
    free_memory_kib: Count


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reason against a protection, with what to do about it. code: stable, for programs."""

    code: Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{0,63}\Z")]
    message: Text
    hint: Text = ""


class Refuse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backup does not take part, for all these reasons."""

    reasons: Annotated[tuple[Reason, ...], msgspec.Meta(min_length=1, max_length=MAX_REASONS)]


class EpochEnd(msgspec.Struct, frozen=True, kw_only=True):
    """All STREAM frames of the epoch were sent. stream_bytes, pages and digest are what the backup must have
    received. last: the last checkpoint of the session, the primary does not resume its guest."""

    epoch: int
    stream_bytes: int
    pages: int
    digest: bytes
    last: bool = False


class MemoryAck(msgspec.Struct, frozen=True, kw_only=True):
    """The backup holds the epoch completely; digest is what it computed itself."""

    epoch: int
    digest: bytes


class DiskHello(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First frame on the connection of a disk. session, domain: of the HELLO that named the disk. map_id: identity of the
    map that names what may differ from a backup's disk that carries the same identity."""

    protocol: int = PROTOCOL
    session: Uuid
    domain: DomainName
    vdev: Vdev
    size: DiskBytes
    block: Sector
    map_id: Uuid


class DiskWelcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backup takes the disk in. same_base: its disk carries the map's identity."""

    protocol: int = PROTOCOL
    session: Uuid
    vdev: Vdev
    same_base: bool


class DiskEpochEnd(msgspec.Struct, frozen=True, kw_only=True):
    """DISK_END: all DISK_DATA frames of the epoch were sent. data_bytes: of their payloads; extents: how many changes stand in
    them; digest: over the payloads."""

    epoch: int
    data_bytes: int
    extents: int
    digest: bytes


class DiskAck(msgspec.Struct, frozen=True, kw_only=True):
    """The disk's writes of the epoch are durable on the backup; digest is what it computed itself."""

    epoch: int
    digest: bytes


class DiskAsk(msgspec.Struct, frozen=True, kw_only=True):
    """The primary wants the digests of all regions from offset on."""

    offset: int
    length: int


class DiskDigests(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: 16 bytes a region, one after the other."""

    digests: bytes


class Beat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Heartbeat over the second path, one way. host: who sends it. guests: UUIDs of those that its agent looks after as their
    primary, so that a host which came back without its guests does not pass for one that runs them."""

    protocol: int = PROTOCOL
    host: ShortText
    guests: Annotated[tuple[Uuid, ...], msgspec.Meta(max_length=MAX_GUESTS)]


class AskOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First frame on a connection of its own: what has become of a hand-over whose answer did not come. session, domain, uuid,
    host: of the HELLO of the session that it was sent in."""

    protocol: int = PROTOCOL
    session: Uuid
    domain: DomainName
    uuid: Uuid
    host: ShortText


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has become of a hand-over. result: `running`: the guest runs on the backup. `declined`: it never ran there, and will
    not by this hand-over: the primary may resume its own. `unknown`: neither can be said (yet). reason: why, for people."""

    protocol: int = PROTOCOL
    session: Uuid
    result: Literal["running", "declined", "unknown"]
    reason: Annotated[str, msgspec.Meta(max_length=4000)] = ""


class Plain(msgspec.Struct, frozen=True):
    """A frame that says all by its type: HEARTBEAT, STOP, STOPPED, HAND_OVER. epoch: the sender's newest, for
    information."""

    type: FrameType
    epoch: int = 0


JsonMessage = Hello | Welcome | Refuse | DiskHello | DiskWelcome | Beat | AskOutcome | Outcome
"""Those that are sent as JSON."""
Message = JsonMessage | EpochEnd | MemoryAck | Plain | DiskEpochEnd | DiskAck | DiskAsk | DiskDigests
