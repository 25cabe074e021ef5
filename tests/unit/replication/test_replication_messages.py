from __future__ import annotations

import json
from typing import Any

import pytest

from remus_agent.errors import JournalError, ReplicationError
from remus_agent.protocol.replication import message_frames, messages
from remus_agent.protocol.replication.frames import FLAG_LAST, Frame, FrameType
from remus_agent.protocol.replication.messages import (
    AskOutcome,
    DiskAck,
    DiskAsk,
    DiskDigests,
    DiskEpochEnd,
    DiskHello,
    DiskWelcome,
    EpochEnd,
    Hello,
    HelloDisk,
    MemoryAck,
    Outcome,
    Plain,
    Reason,
    Refuse,
    Welcome,
)
from remus_agent.services.refusing import reason_of

SESSION = "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60"
UUID = "11111111-2222-3333-4444-555555555555"


def hello(**changes: Any) -> Hello:
    facts: dict[str, Any] = {
        "purpose": "protect",
        "session": SESSION,
        "generation": 3,
        "domain": "redis1",
        "uuid": UUID,
        "guest_type": "pvh",
        "memory_kib": 131072,
        "xen_version": "4.20.0",
        "cpu_policy": "ab12",
        "host": "alpha",
    }
    return Hello(**(facts | changes))


XVDA = HelloDisk(vdev="xvda", size=1 << 30, block=512)
DISK: dict[str, Any] = {
    "session": SESSION,
    "domain": "redis1",
    "vdev": "xvda",
    "size": 1 << 30,
    "block": 4096,
    "map_id": UUID,
}

EVERY: list[messages.Message] = [
    hello(),
    hello(disks=(XVDA, HelloDisk(vdev="hdb", size=512, block=4096))),
    DiskHello(**DISK),
    DiskWelcome(session=SESSION, vdev="xvda", same_base=True),
    DiskEpochEnd(epoch=1, data_bytes=2**40, extents=7, digest=bytes(range(16))),
    DiskAck(epoch=3, digest=bytes(16)),
    DiskAsk(offset=0, length=1 << 32),
    DiskDigests(digests=bytes(64 * 1024)),
    hello(purpose="probe"),
    hello(interval_ms=0, output_limit_bytes=2**31 - 1),
    Welcome(host="beta", session=SESSION, free_memory_kib=1000),
    Refuse(reasons=(Reason(code="too-little-memory", message="needs 1 GiB", hint="free some"),)),
    EpochEnd(epoch=1, stream_bytes=2**40, pages=5, digest=bytes(range(16)), last=True),
    EpochEnd(epoch=2, stream_bytes=0, pages=0, digest=bytes(16)),
    MemoryAck(epoch=9, digest=bytes(16)),
    Plain(FrameType.HEARTBEAT, 4),
    Plain(FrameType.STOP),
    Plain(FrameType.STOPPED),
    Plain(FrameType.HAND_OVER),
    AskOutcome(session=SESSION, domain="redis1", uuid=SESSION, host="alpha"),
    Outcome(session=SESSION, result="declined", reason="the journal is full"),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda m: type(m).__name__)
def test_there_and_back(message: messages.Message) -> None:
    frame = message_frames.encode(message)
    assert message_frames.decode(frame) == message
    assert message_frames.expect(frame, type(message)) == message


def test_a_reason_with_a_name_from_xenstore_that_is_no_text_is_told() -> None:
    refuse = Refuse(reasons=(reason_of(JournalError("vif\udcff is gone", hint="see vif\udcff")),))
    assert message_frames.decode(message_frames.encode(refuse)) == Refuse(
        reasons=(Reason(code="journal", message="vif\\udcff is gone", hint="see vif\\udcff"),)
    )


def test_the_bytes_of_epoch_end() -> None:
    frame = message_frames.encode(EpochEnd(epoch=1, stream_bytes=3, pages=2, digest=b"d" * 16, last=True))
    assert frame.joined() == bytes([3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]) + b"d" * 16
    assert (frame.epoch, frame.flags) == (1, FLAG_LAST)


def test_another_kind_than_expected() -> None:
    with pytest.raises(ReplicationError, match="expected Welcome, received HELLO"):
        message_frames.expect(message_frames.encode(hello()), Welcome)


def test_another_protocol_version_is_named_also_when_its_fields_differ() -> None:
    frame = Frame(FrameType.HELLO, 0, 0, (b'{"protocol":3,"new":true}',))
    with pytest.raises(ReplicationError, match="speaks protocol 3, this one speaks 2") as caught:
        message_frames.decode(frame)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"domain": "../../etc/passwd"},
        {"domain": ""},
        {"domain": ".hidden"},
        {"domain": "a" * 128},
        {"domain": "a\n"},
        {"session": "not-a-uuid"},
        {"session": SESSION.upper()},
        {"generation": -1},
        {"generation": 2**63},
        {"memory_kib": "much"},
        {"purpose": "destroy"},
        {"guest_type": "lxc"},
        {"host": "h" * 257},
        {"disks": [{"vdev": "../x", "size": 512, "block": 512}]},
        {"disks": [{"vdev": "xvda", "size": 511, "block": 512}]},
        {"disks": [{"vdev": "xvda", "size": 512, "block": 0}]},
        {"disks": [{"vdev": "xvda", "size": 512, "block": 512}] * 2},
        {"disks": [{"vdev": f"xvd{n}", "size": 512, "block": 512} for n in range(17)]},
    ],
    ids=str,
)
def test_a_hello_that_breaks_the_rules(change: dict[str, Any]) -> None:
    fields = json.loads(message_frames.encode(hello()).joined()) | change
    with pytest.raises(ReplicationError, match="HELLO"):
        message_frames.decode(Frame(FrameType.HELLO, 0, 0, (json.dumps(fields).encode(),)))
    if "extra" not in change and "disks" not in change:
        with pytest.raises(ReplicationError, match="HELLO"):
            message_frames.encode(hello(**change))


@pytest.mark.parametrize(
    "message",
    [
        EpochEnd(epoch=0, stream_bytes=0, pages=0, digest=bytes(16)),
        EpochEnd(epoch=1, stream_bytes=0, pages=0, digest=bytes(15)),
        EpochEnd(epoch=1, stream_bytes=-1, pages=0, digest=bytes(16)),
        EpochEnd(epoch=1, stream_bytes=0, pages=2**32, digest=bytes(16)),
        MemoryAck(epoch=0, digest=bytes(16)),
        MemoryAck(epoch=1, digest=bytes(17)),
        Plain(FrameType.STREAM),
        DiskHello(**DISK | {"vdev": "/dev/sda"}),
        DiskHello(**DISK | {"map_id": "none"}),
        DiskEpochEnd(epoch=0, data_bytes=0, extents=0, digest=bytes(16)),
        DiskEpochEnd(epoch=1, data_bytes=-1, extents=0, digest=bytes(16)),
        DiskAck(epoch=1, digest=b""),
        DiskAsk(offset=0, length=0),
        DiskAsk(offset=0, length=(1 << 32) + 1),
        DiskDigests(digests=b""),
        Refuse(reasons=()),
    ],
    ids=str,
)
def test_what_must_not_be_sent(message: messages.Message) -> None:
    with pytest.raises(ReplicationError):
        message_frames.encode(message)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameType.EPOCH_END, 1, 0, (bytes(27),)),
        Frame(FrameType.EPOCH_END, 0, 0, (bytes(28),)),
        Frame(FrameType.MEMORY_ACK, 1, 0, (bytes(15),)),
        Frame(FrameType.HEARTBEAT, 0, 0, (b"x",)),
        Frame(FrameType.STREAM, 1, 0, (b"x",)),
        Frame(FrameType.DISK_ACK, 1),
        Frame(FrameType.DISK_DATA, 1, 0, (b"x",)),
        Frame(FrameType.DISK_END, 1, 0, (bytes(31),)),
        Frame(FrameType.DISK_END, 0, 0, (bytes(32),)),
        Frame(FrameType.DISK_ASK, 0, 0, (bytes(16),)),
        Frame(FrameType.DISK_DIGESTS, 0, 0, (bytes(17),)),
        Frame(FrameType.HELLO, 0, 0, (b"\xff{",)),
        Frame(FrameType.HELLO),
        Frame(FrameType.REFUSE, 0, 0, (b'{"reasons":[]}',)),
        Frame(FrameType.REFUSE, 0, 0, (b'{"reasons":[{"code":"A B","message":"m"}]}',)),
        pytest.param(Frame(FrameType.REFUSE, 0, 0, (b'{"x":' + b"[" * 30000 + b"]" * 30000 + b"}",)), id="too deep"),
    ],
    ids=str,
)
def test_what_is_not_a_message(frame: Frame) -> None:
    with pytest.raises(ReplicationError):
        message_frames.decode(frame)
