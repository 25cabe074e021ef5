"""What the frames between agents say: `encode` makes a frame of a message, `decode` reads one.

HELLO, WELCOME and REFUSE carry JSON with exactly the fields below; EPOCH_END and MEMORY_ACK are binary.
Everything is checked here, because the other side is another host: names that end up in file names, and
sizes.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from remus_agent.errors import ReplicationError
from remus_agent.protocol.replication.digest import DIGEST_BYTES
from remus_agent.protocol.replication.frames import FLAG_LAST, Frame, FrameType

PROTOCOL: Final = 1
EPOCH_END: Final = struct.Struct("<QI16s")

Uuid = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
"""A UUID in its usual form: lower case, with dashes (`str(uuid.uuid4())`)."""
DomainName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,126}\Z")]
"""A domain's name. No path separators: it becomes part of file names."""
ShortText = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Hello(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First frame from a primary: what it wants to protect, or only asks about. memory_kib: populated memory.
    cpu_policy: hex digest of its host's CPUID and MSR policy. generation: token of ownership."""

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

    reasons: Annotated[tuple[Reason, ...], msgspec.Meta(min_length=1, max_length=32)]


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


class Plain(msgspec.Struct, frozen=True):
    """A frame that says all by its type: HEARTBEAT, STOP, STOPPED. epoch: the sender's newest, for
    information."""

    type: FrameType
    epoch: int = 0


Message = Hello | Welcome | Refuse | EpochEnd | MemoryAck | Plain
M = TypeVar("M", Hello, Welcome, Refuse, EpochEnd, MemoryAck, Plain)

_JSON_TYPES: Final[dict[type[Hello | Welcome | Refuse], FrameType]] = {
    Hello: FrameType.HELLO,
    Welcome: FrameType.WELCOME,
    Refuse: FrameType.REFUSE,
}
_DECODERS: Final = {kind: msgspec.json.Decoder(struct_) for struct_, kind in _JSON_TYPES.items()}
_PLAIN: Final = frozenset({FrameType.HEARTBEAT, FrameType.STOP, FrameType.STOPPED})


class _Version(msgspec.Struct):
    protocol: int = PROTOCOL


_VERSION: Final = msgspec.json.Decoder(_Version)


def encode(message: Message) -> Frame:
    """The frame of a message. Raises ReplicationError when the other side would not accept it."""
    if isinstance(message, EpochEnd):
        if message.epoch < 1 or len(message.digest) != DIGEST_BYTES:
            raise _bad("EPOCH_END needs an epoch from 1 on and a 16-byte digest", message.epoch)
        try:
            payload = EPOCH_END.pack(message.stream_bytes, message.pages, message.digest)
        except struct.error as error:
            raise _bad(f"EPOCH_END: {error}", message.epoch) from error
        return Frame(FrameType.EPOCH_END, message.epoch, FLAG_LAST if message.last else 0, (payload,))
    if isinstance(message, MemoryAck):
        if message.epoch < 1 or len(message.digest) != DIGEST_BYTES:
            raise _bad("MEMORY_ACK needs an epoch from 1 on and a 16-byte digest", message.epoch)
        return Frame(FrameType.MEMORY_ACK, message.epoch, 0, (message.digest,))
    if isinstance(message, Plain):
        if message.type not in _PLAIN:
            raise _bad(f"{message.type.name} is not a plain frame", message.epoch)
        return Frame(message.type, message.epoch)
    kind = _JSON_TYPES[type(message)]
    payload = msgspec.json.encode(message)
    try:
        _DECODERS[kind].decode(payload)  # the constraints of the fields, which msgspec checks only when decoding
    except msgspec.MsgspecError as error:
        raise _bad(f"{kind.name}: {error}") from error
    return Frame(kind, 0, 0, (payload,))


def decode(frame: Frame) -> Message:
    """The message of a received frame (any type but PREAMBLE, STREAM and DISK_ACK). Raises
    ReplicationError."""
    payload = frame.joined()
    if frame.type in _DECODERS:
        return _decode_json(frame.type, payload)
    if frame.type is FrameType.EPOCH_END:
        if len(payload) != EPOCH_END.size or frame.epoch < 1:
            raise _bad(f"EPOCH_END has {len(payload)} bytes instead of {EPOCH_END.size}, or no epoch", frame.epoch)
        stream_bytes, pages, digest = EPOCH_END.unpack(payload)
        return EpochEnd(epoch=frame.epoch, stream_bytes=stream_bytes, pages=pages, digest=digest, last=frame.last)
    if frame.type is FrameType.MEMORY_ACK:
        if len(payload) != DIGEST_BYTES or frame.epoch < 1:
            raise _bad(f"MEMORY_ACK has {len(payload)} bytes instead of {DIGEST_BYTES}, or no epoch", frame.epoch)
        return MemoryAck(epoch=frame.epoch, digest=payload)
    if frame.type in _PLAIN:
        if payload:
            raise _bad(f"{frame.type.name} has a payload of {len(payload)} bytes", frame.epoch)
        return Plain(frame.type, frame.epoch)
    raise _bad(f"{frame.type.name} carries no message", frame.epoch)


def expect(frame: Frame, kind: type[M]) -> M:
    """The message of a received frame, which must be of this kind. Raises ReplicationError."""
    message = decode(frame)
    if not isinstance(message, kind):
        raise _bad(f"expected {kind.__name__}, received {frame.type.name}", frame.epoch)
    return message


def _decode_json(kind: FrameType, payload: bytes) -> Hello | Welcome | Refuse:
    try:
        version = _VERSION.decode(payload).protocol
        if version != PROTOCOL:
            raise ReplicationError(
                f"the other agent speaks protocol {version}, this one speaks {PROTOCOL}",
                operation="receive message",
                hint="install the same version of the agent on both hosts",
            )
        return _DECODERS[kind].decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(f"{kind.name}: {error}") from error


def _bad(message: str, epoch: int | None = None) -> ReplicationError:
    return ReplicationError(message, operation="replication message", epoch=epoch)
