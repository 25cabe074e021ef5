"""What the frames between agents say: `encode` makes a frame of a message, `decode` reads one.

HELLO, WELCOME, REFUSE, DISK_HELLO, DISK_WELCOME, BEAT, ASK_OUTCOME and OUTCOME carry JSON with exactly
the fields below; the others are binary.
Everything is checked here, because the other side is another host: names that end up in file names, and
sizes.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from remus_agent.errors import ReplicationError
from remus_agent.protocol.groups import MAX_MEMBERS, MIN_MEMBERS, disk_place, group_uuid
from remus_agent.protocol.replication.digest import DIGEST_BYTES
from remus_agent.protocol.replication.frames import FLAG_LAST, Frame, FrameType

PROTOCOL: Final = 2
EPOCH_END: Final = struct.Struct("<QI16s")
DISK_END: Final = struct.Struct("<QQ16s")
DISK_ASK: Final = struct.Struct("<QQ")
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
    there for a guest alone. Of a group memory_kib is that of all members, guest_type and cpu_policy are the first one's."""

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


_Json = Hello | Welcome | Refuse | DiskHello | DiskWelcome | Beat | AskOutcome | Outcome
Message = _Json | EpochEnd | MemoryAck | Plain | DiskEpochEnd | DiskAck | DiskAsk | DiskDigests
M = TypeVar(
    "M",
    Hello,
    Welcome,
    Refuse,
    EpochEnd,
    MemoryAck,
    Plain,
    DiskHello,
    DiskWelcome,
    DiskEpochEnd,
    DiskAck,
    DiskAsk,
    DiskDigests,
    Beat,
    AskOutcome,
    Outcome,
)

_JSON_TYPES: Final[dict[type[_Json], FrameType]] = {
    Hello: FrameType.HELLO,
    Welcome: FrameType.WELCOME,
    Refuse: FrameType.REFUSE,
    DiskHello: FrameType.DISK_HELLO,
    DiskWelcome: FrameType.DISK_WELCOME,
    Beat: FrameType.BEAT,
    AskOutcome: FrameType.ASK_OUTCOME,
    Outcome: FrameType.OUTCOME,
}
_DECODERS: Final = {kind: msgspec.json.Decoder(struct_) for struct_, kind in _JSON_TYPES.items()}
_PLAIN: Final = frozenset({FrameType.HEARTBEAT, FrameType.STOP, FrameType.STOPPED, FrameType.HAND_OVER})


class _Version(msgspec.Struct):
    protocol: int = PROTOCOL


_VERSION: Final = msgspec.json.Decoder(_Version)


def encode(message: Message) -> Frame:
    """The frame of a message. Raises ReplicationError when the other side would not accept it."""
    match message:
        case EpochEnd():
            fields = (message.stream_bytes, message.pages, message.digest)
            flags = FLAG_LAST if message.last else 0
            return Frame(FrameType.EPOCH_END, _epoch(message), flags, (_packed(EPOCH_END, fields, message.epoch),))
        case MemoryAck():
            return Frame(FrameType.MEMORY_ACK, _epoch(message), 0, (message.digest,))
        case DiskEpochEnd() | DiskAck() | DiskAsk() | DiskDigests():
            return _encode_disk(message)
        case Plain():
            if message.type not in _PLAIN:
                raise _bad(f"{message.type.name} is not a plain frame", message.epoch)
            return Frame(message.type, message.epoch)
        case _:
            kind = _JSON_TYPES[type(message)]
            frame = Frame(kind, 0, 0, (msgspec.json.encode(message),))
            _decode_json(kind, frame.joined())  # the constraints of the fields are checked only when decoding
            return frame


def decode(frame: Frame) -> Message:
    """The message of a received frame (any type but PREAMBLE, STREAM and DISK_DATA). Raises ReplicationError."""
    payload = frame.joined()
    match frame.type:
        case kind if kind in _DECODERS:
            return _decode_json(kind, payload)
        case FrameType.EPOCH_END:
            stream_bytes, pages, digest = _unpacked(EPOCH_END, frame, payload)
            return EpochEnd(epoch=frame.epoch, stream_bytes=stream_bytes, pages=pages, digest=digest, last=frame.last)
        case FrameType.MEMORY_ACK | FrameType.DISK_ACK as kind:
            if len(payload) != DIGEST_BYTES or frame.epoch < 1:
                raise _bad(f"{kind.name} has {len(payload)} bytes instead of {DIGEST_BYTES}, or no epoch", frame.epoch)
            ack = MemoryAck if kind is FrameType.MEMORY_ACK else DiskAck
            return ack(epoch=frame.epoch, digest=payload)
        case FrameType.DISK_END | FrameType.DISK_ASK | FrameType.DISK_DIGESTS:
            return _decode_disk(frame, payload)
        case kind if kind in _PLAIN:
            if payload:
                raise _bad(f"{kind.name} has a payload of {len(payload)} bytes", frame.epoch)
            return Plain(kind, frame.epoch)
    raise _bad(f"{frame.type.name} carries no message", frame.epoch)


def _encode_disk(message: DiskEpochEnd | DiskAck | DiskAsk | DiskDigests) -> Frame:
    match message:
        case DiskEpochEnd():
            fields = (message.data_bytes, message.extents, message.digest)
            return Frame(FrameType.DISK_END, _epoch(message), 0, (_packed(DISK_END, fields, message.epoch),))
        case DiskAck():
            return Frame(FrameType.DISK_ACK, _epoch(message), 0, (message.digest,))
        case DiskAsk():
            frame = Frame(FrameType.DISK_ASK, 0, 0, (_packed(DISK_ASK, (message.offset, message.length), None),))
        case DiskDigests():
            frame = Frame(FrameType.DISK_DIGESTS, 0, 0, (message.digests,))
    decode(frame)
    return frame


def _decode_disk(frame: Frame, payload: bytes) -> DiskEpochEnd | DiskAsk | DiskDigests:
    if frame.type is FrameType.DISK_END:
        data_bytes, extents, digest = _unpacked(DISK_END, frame, payload)
        return DiskEpochEnd(epoch=frame.epoch, data_bytes=data_bytes, extents=extents, digest=digest)
    if frame.type is FrameType.DISK_DIGESTS:
        if not payload or len(payload) % DIGEST_BYTES:
            raise _bad(f"DISK_DIGESTS of {len(payload)} bytes")
        return DiskDigests(digests=payload)
    if len(payload) != DISK_ASK.size:
        raise _bad(f"DISK_ASK has {len(payload)} bytes instead of {DISK_ASK.size}")
    offset, length = DISK_ASK.unpack(payload)
    if not 0 < length <= MAX_ASKED_BYTES:
        raise _bad(f"DISK_ASK for {length} bytes, at most {MAX_ASKED_BYTES} are answered")
    return DiskAsk(offset=offset, length=length)


def _epoch(message: EpochEnd | MemoryAck | DiskEpochEnd | DiskAck) -> int:
    if message.epoch < 1 or len(message.digest) != DIGEST_BYTES:
        raise _bad(f"{type(message).__name__} needs an epoch from 1 on and a 16-byte digest", message.epoch)
    return message.epoch


def _packed(layout: struct.Struct, fields: tuple[int | bytes, ...], epoch: int | None) -> bytes:
    try:
        return layout.pack(*fields)
    except struct.error as error:
        raise _bad(str(error), epoch) from error


def _unpacked(layout: struct.Struct, frame: Frame, payload: bytes) -> tuple[Any, ...]:
    if len(payload) != layout.size or frame.epoch < 1:
        raise _bad(f"{frame.type.name} has {len(payload)} bytes instead of {layout.size}, or no epoch", frame.epoch)
    return layout.unpack(payload)


def expect(frame: Frame, kind: type[M]) -> M:
    """The message of a received frame, which must be of this kind. Raises ReplicationError."""
    message = decode(frame)
    if not isinstance(message, kind):
        raise _bad(f"expected {kind.__name__}, received {frame.type.name}", frame.epoch)
    return message


def _decode_json(kind: FrameType, payload: bytes) -> _Json:
    try:
        version = _VERSION.decode(payload).protocol
        if version != PROTOCOL:
            raise ReplicationError(
                f"the other agent speaks protocol {version}, this one speaks {PROTOCOL}",
                operation="receive message",
                hint="install the same version of the agent on both hosts",
            )
        message = _DECODERS[kind].decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(f"{kind.name}: {error}") from error
    if isinstance(message, Hello):
        _check_hello(message)
    return message


def _check_hello(hello: Hello) -> None:
    if len({disk.vdev for disk in hello.disks}) != len(hello.disks):
        raise _bad("HELLO: it names a disk twice")
    names = [guest.name for guest in hello.guests]
    if hello.grouped:
        if len(names) < MIN_MEMBERS or len(set(names)) != len(names) or hello.domain in names:
            raise _bad("HELLO: a group has at least two members, each once, and a name of its own")
        if hello.uuid != group_uuid(hello.domain, names):
            raise _bad("HELLO: the UUID is not that of a group of this name with these members")
    for disk in hello.disks:
        guest, vdev = disk_place(hello.domain, disk.vdev)
        if guest not in names or hello.grouped != (vdev != disk.vdev):
            raise _bad(f"HELLO: disk {disk.vdev} is of no guest that it names")
    owners = [disk_place(hello.domain, disk.vdev)[0] for disk in hello.disks]
    if any(owners.count(name) > MAX_DISKS for name in names):
        raise _bad(f"HELLO: a guest has more than {MAX_DISKS} disks")


def _bad(message: str, epoch: int | None = None) -> ReplicationError:
    return ReplicationError(message, operation="replication message", epoch=epoch)
