"""Messages as frames: `encode` makes a frame of a message, `decode` reads one.

Everything is checked here, because the other side is another host: names that end up in file names, and
sizes.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeVar

import msgspec

from remus_agent.errors import ReplicationError
from remus_agent.protocol.groups import MIN_MEMBERS, disk_place, group_uuid
from remus_agent.protocol.replication.digest import DIGEST_BYTES
from remus_agent.protocol.replication.frames import FLAG_LAST, Frame, FrameType
from remus_agent.protocol.replication.messages import (
    MAX_ASKED_BYTES,
    MAX_DISKS,
    PROTOCOL,
    AskOutcome,
    Beat,
    DiskAck,
    DiskAsk,
    DiskDigests,
    DiskEpochEnd,
    DiskHello,
    DiskWelcome,
    EpochEnd,
    Hello,
    JsonMessage,
    MemoryAck,
    Message,
    Outcome,
    Plain,
    Refuse,
    Welcome,
)

EPOCH_END: Final = struct.Struct("<QI16s")
DISK_END: Final = struct.Struct("<QQ16s")
DISK_ASK: Final = struct.Struct("<QQ")

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

_JSON_TYPES: Final[dict[type[JsonMessage], FrameType]] = {
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


def _decode_json(kind: FrameType, payload: bytes) -> JsonMessage:
    try:
        version = _VERSION.decode(payload).protocol
        if version != PROTOCOL:
            raise ReplicationError(
                f"the other agent speaks protocol {version}, this one speaks {PROTOCOL}",
                operation="receive message",
                hint="install the same version of the agent on both hosts",
            )
        message = _DECODERS[kind].decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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
