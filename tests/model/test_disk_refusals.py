"""Disks that a backup does not take in."""

from __future__ import annotations

from typing import Any

import pytest

from remus_agent.errors import PeerRefused
from remus_agent.protocol.replication.message_frames import encode, expect
from remus_agent.protocol.replication.messages import DiskAsk, DiskHello, Refuse
from tests.model.disk_pair import DISKS, copy_of, later, protected
from tests.model.loop import run
from tests.model.pair import DISK_BYTES, Pair, on


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session": "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60"}, "there is no session"),
        ({"vdev": "xvdz"}, "no such disk xvdz"),
        ({"size": 512}, "no such disk xvda"),
        ({}, "has a connection already"),
        ({"domain": "web2"}, "there is no session"),
    ],
)
def test_a_disk_that_belongs_to_no_session_is_refused(change: dict[str, Any], message: str) -> None:
    async def story() -> None:
        pair = await protected()
        hello = copy_of(pair).hello
        facts: dict[str, Any] = {"session": hello.session, "domain": "web1", "vdev": "xvda", "size": DISK_BYTES}
        facts |= {"block": 512, "map_id": pair.volume("xvda").map_id} | change
        connection = await pair.network.connect("beta:1", 10)
        await connection.send(encode(DiskHello(**facts)))
        refused = expect(await connection.receive(), Refuse)
        assert message in refused.reasons[0].message
        await later(pair)
        assert copy_of(pair).hello.session == hello.session, "the session goes on"

    run(story())


def test_a_disk_of_another_host_than_the_session_s_is_refused() -> None:
    async def story() -> None:
        pair = await protected()
        hello, map_id = copy_of(pair).hello, pair.volume("xvda").map_id
        assert map_id is not None
        pair.network.identity = "gamma"
        connection = await pair.network.connect("beta:1", 10)
        await connection.send(
            encode(
                DiskHello(
                    session=hello.session,
                    domain="web1",
                    vdev="xvda",
                    size=DISK_BYTES,
                    block=512,
                    map_id=map_id,
                )
            )
        )
        refused = expect(await connection.receive(), Refuse)
        assert "has proven to be gamma and speaks for alpha" in refused.reasons[0].message

    run(story())


def test_a_connection_that_begins_with_something_else_is_refused() -> None:
    async def story() -> None:
        pair = await protected()
        connection = await pair.network.connect("beta:1", 10)
        await connection.send(encode(DiskAsk(offset=0, length=4096)))
        refused = expect(await connection.receive(), Refuse)
        assert "expected HELLO or DISK_HELLO" in refused.reasons[0].message

    run(story())


def test_a_backup_names_the_disks_that_it_cannot_hold() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        await pair.beta.replicas.open("web1", pair.volume("xvda").facts, None)  # type: ignore[union-attr]
        pair.beta.stores.by_disk["web1", "xvda"].content = bytearray(512)
        probed = await on(pair.alpha).probe("web1", "beta")
        assert [reason["code"] for reason in probed["reasons"]] == ["disk"]
        with pytest.raises(PeerRefused, match="xvda has 512 bytes"):
            await pair.protect()
        assert not any(pair.volume(vdev).map_id for vdev in DISKS)

    run(story())
