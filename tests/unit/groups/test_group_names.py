"""What groups, members, their disks and their copies are called, and which groups a configuration may have."""

from __future__ import annotations

import re

import pytest

from remus_agent.errors import ConfigError, ReplicationError
from remus_agent.group_config import check_disks, parse
from remus_agent.protocol.groups import Groups, disk_name, disk_place, group_uuid, member_working_name
from remus_agent.protocol.replication.frames import Frame, FrameDecoder, FrameType, encode
from remus_agent.protocol.replication.message_frames import decode
from remus_agent.protocol.replication.message_frames import encode as encode_message
from remus_agent.protocol.replication.messages import Hello, HelloDisk, HelloMember
from remus_agent.services.working_names import guest_of, working_name

GROUPS = Groups({"shop": ("db1", "app1")})
UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"


def test_members_are_in_the_same_order_everywhere() -> None:
    assert GROUPS["shop"] == ("app1", "db1")
    assert Groups({"shop": ("app1", "db1")}) == GROUPS


def test_names() -> None:
    assert disk_place("shop", disk_name("db1", "xvda")) == ("db1", "xvda")
    assert disk_place("web1", "xvda") == ("web1", "xvda")
    assert (GROUPS.of_guest("db1"), GROUPS.of_guest("web1"), GROUPS.of_guest("shop")) == ("shop", None, None)
    assert GROUPS.expanded(frozenset({"shop", "web1"})) == {"shop", "web1", "app1", "db1"}


def test_the_copy_of_a_member_is_known_by_its_name() -> None:
    copy = "shop--incoming-0123abcd"
    member = member_working_name("db1", copy)
    assert guest_of(member) == "db1--of-shop"
    assert GROUPS.of_copy(member) == copy
    assert GROUPS.named(copy) == "shop"
    for other in (copy, "db1", "shop", "db1--incoming-0123abcd", "web1--of-shop--incoming-0123abcd", "db1--of-shop"):
        assert GROUPS.of_copy(other) is None


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([], "groups must be sections"),
        ({"shop": ["app1", "db1"]}, "groups.shop has members and nothing else"),
        ({"shop": {"members": ["app1", "db1"], "interval": 5}}, "groups.shop has members and nothing else"),
        ({"shop": {"members": "app1"}}, "groups.shop.members must be names"),
        ({"shop": {"members": ["app1", 5]}}, "groups.shop.members must be names"),
        ({"shop": {"members": ["app1"]}}, "has 1 members; 2 to 8"),
        ({"shop": {"members": [f"app{n}" for n in range(9)]}}, "has 9 members; 2 to 8"),
        ({"shop": {"members": ["app1", "app1"]}}, "names a member twice"),
        ({"shop": {"members": ["app1", "../db1"]}}, "'../db1' cannot be the name"),
        ({"shop": {"members": ["app1", "a--of-b"]}}, "'a--of-b' cannot be the name"),
        ({"sh/op": {"members": ["app1", "db1"]}}, "'sh/op' cannot be the name"),
        ({"shop": {"members": ["app1", "shop"]}}, "shop is the name of a group"),
        ({"shop": {"members": ["app1", "db1"]}, "b": {"members": ["web1", "db1"]}}, "db1 is a member of shop as well"),
    ],
)
def test_what_is_wrong_with_a_group_is_named(sections: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(sections)


def test_groups_of_a_configuration() -> None:
    assert parse({}) == Groups()
    assert parse({"shop": {"members": ["db1", "app1"]}}) == GROUPS
    check_disks(GROUPS, ["db1", "web1"])
    with pytest.raises(ConfigError, match="shop is a guest, whose disks this host knows"):
        check_disks(GROUPS, ["shop"])


# HELLO, and whose a frame is


def hello(**changes: object) -> Hello:
    members = tuple(
        HelloMember(name=name, uuid=UUID, guest_type="pvh", memory_kib=64, cpu_policy="c0ffee")
        for name in ("app1", "db1")
    )
    fields: dict[str, object] = {
        "purpose": "protect",
        "session": UUID,
        "generation": 1,
        "domain": "shop",
        "uuid": group_uuid("shop", ("app1", "db1")),
        "guest_type": "pvh",
        "memory_kib": 128,
        "xen_version": "4.20.0",
        "cpu_policy": "c0ffee",
        "host": "alpha",
        "members": members,
    }
    return Hello(**(fields | changes))  # type: ignore[arg-type]


def test_hello_names_the_members() -> None:
    sent = hello(disks=(HelloDisk(vdev="db1/xvda", size=512, block=512),))
    assert decode(encode_message(sent)) == sent
    assert sent.member_names == ("app1", "db1")
    assert working_name(sent) == "shop--incoming-7b0b2a1e"


def test_hello_of_a_guest_alone_is_what_it_was() -> None:
    """An older agent, which takes no field that it does not know, takes this one."""
    alone = Hello(
        purpose="protect",
        session=UUID,
        generation=1,
        domain="web1",
        uuid=UUID,
        guest_type="pvh",
        memory_kib=64,
        xen_version="4.20.0",
        cpu_policy="c0ffee",
        host="alpha",
    )
    assert b"members" not in encode_message(alone).joined()
    assert [guest.name for guest in alone.guests] == ["web1"]
    assert alone.member_names == ()
    assert b"members" in encode_message(hello()).joined()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uuid": UUID}, "UUID is not that of a group"),
        ({"members": ()}, "at least two members"),
        ({"members": hello().guests[:1]}, "at least two members"),
        ({"members": hello().guests * 2}, "at least two members"),
        ({"domain": "app1"}, "at least two members"),
        ({"disks": (HelloDisk(vdev="xvda", size=512, block=512),)}, "disk xvda is of no guest"),
        ({"disks": (HelloDisk(vdev="web1/xvda", size=512, block=512),)}, "disk web1/xvda is of no guest"),
        (
            {"disks": tuple(HelloDisk(vdev=f"db1/xvd{n}", size=512, block=512) for n in range(17))},
            "more than 16 disks",
        ),
    ],
)
def test_what_is_wrong_with_hello_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ReplicationError, match=message):
        encode_message(hello(**changes))


def test_a_guest_alone_has_no_disks_of_others() -> None:
    import msgspec

    alone = hello(members=msgspec.UNSET, domain="web1", disks=(HelloDisk(vdev="web1/xvda", size=512, block=512),))
    with pytest.raises(ReplicationError, match="disk web1/xvda is of no guest"):
        encode_message(alone)


@pytest.mark.parametrize("kind", [FrameType.PREAMBLE, FrameType.STREAM])
def test_a_frame_says_whose_it_is(kind: FrameType) -> None:
    data = b"".join(encode(Frame(kind, 3, 0, (b"abcd",), 5)))
    (frame,) = FrameDecoder().feed(data)
    assert (frame.member, frame.epoch, frame.joined()) == (5, 3, b"abcd")
    damaged = data[:6] + b"\x04" + data[7:]
    with pytest.raises(ReplicationError, match="check"):
        FrameDecoder().feed(damaged)


def test_other_frames_are_of_nobody() -> None:
    with pytest.raises(ReplicationError, match="HEARTBEAT is of no member"):
        encode(Frame(FrameType.HEARTBEAT, 0, 0, (), 1))
