"""Guests with disks, on virtual time: the same two agents, with simulated taps and replicas."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.errors import DiskError
from remus_agent.machines.backup import State
from remus_agent.protocol.replication.frames import Frame, FrameType
from tests.model.disk_pair import DISKS, copy_of, dropping, later, protected, protected_again, same
from tests.model.loop import run
from tests.model.pair import DEAD, DISK_BYTES, on, quiet, until


def test_a_guest_takes_its_disks_along() -> None:
    async def story() -> None:
        pair = await protected()
        for vdev in DISKS:
            pair.volume(vdev).write(512, b"told to a client")
        pair.guest.write(3, b"told to a client")
        pair.output.emit("reply")
        await until(lambda: "reply" in pair.output.out, "the reply leaves the host")
        status = (await on(pair.alpha).status("web1")).as_dict()
        assert [(disk["vdev"], disk["mode"], disk["done"]) for disk in status["disks"]] == [  # type: ignore[attr-defined]
            (vdev, "replicating", DISK_BYTES) for vdev in DISKS
        ]
        record = on(pair.alpha).records("web1", 100)
        assert sum(epoch["disk_bytes"] for epoch in record) > 2 * 4096, "zeros are the same on both sides"
        await pair.kill_host()
        await until(lambda: copy_of(pair).state is State.ORPHANED, "orphaned")
        assert {store.mapper for store in pair.beta.stores.by_disk.values()} == {"nowhere"}
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert pair.beta.xen.guests["web1"].read(3, 16) == b"told to a client"
        for vdev in DISKS:
            assert pair.copied(vdev)[512:528] == b"told to a client"
            assert pair.copied(vdev)[8192:8203] == f"before {vdev}".encode()
        assert {(store.mapper, store.map_id) for store in pair.beta.stores.by_disk.values()} == {("linear", None)}
        assert not pair.beta.stores.violations

    run(story())


@pytest.mark.parametrize("vdev", DISKS)
def test_output_waits_for_the_acknowledgement_of_every_disk(vdev: str) -> None:
    async def story() -> None:
        pair = await protected()
        dropping(FrameType.DISK_ACK, vdev, pair)
        await asyncio.sleep(0.5)
        pair.output.emit("early")
        await asyncio.sleep(30)
        assert "early" not in pair.output.out
        await asyncio.sleep(60)
        assert "no acknowledgement" in str(on(pair.alpha)._primaries["web1"].error)
        await until(lambda: "early" in pair.output.out, "protected again in a new session")

    run(story())


def test_memory_is_not_committed_before_every_disk_is_staged() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        dropped = False

        def lose_the_end(frame: Frame, data: bytes) -> bytes:
            nonlocal dropped
            if frame.type is FrameType.DISK_END and not dropped:
                dropped = True
                return b""
            return data

        pair.network.mangler = lose_the_end
        await until(lambda: dropped, "lost")
        copy, epoch = copy_of(pair), copy_of(pair).committed_epoch
        pair.output.emit("early")
        await asyncio.sleep(20)
        assert copy.committed_epoch == epoch
        assert "early" not in pair.output.out
        await until(lambda: "early" in pair.output.out, "the session ends, the next one commits")

    run(story())


def test_after_a_lost_link_only_marked_regions_travel() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        pair.network.cut()
        await asyncio.sleep(100)
        status = await on(pair.alpha).status("web1")
        assert status.state == "silent"
        assert {disk.mode for disk in status.disks} == {"tracking"}
        pair.volume("xvda").write(4096, b"while alone")
        pair.network.heal()
        await protected_again(pair)
        await later(pair)
        disks = (await on(pair.alpha).status("web1")).disks
        assert [disk.total for disk in disks] == [4096, 0]
        assert disks[0].sent <= 4096
        assert same(pair)
        assert not pair.beta.stores.violations

    run(story())


def test_a_disk_that_is_alike_does_not_travel_the_first_time() -> None:
    async def story() -> None:
        pair = await protected()
        await on(pair.alpha).unprotect("web1", force=False, timeout=100, progress=quiet)
        pair.volume("xvda").write(0, b"changed")
        await pair.protect()
        disks = (await on(pair.alpha).status("web1")).disks
        assert [(disk.total, disk.done) for disk in disks] == [(DISK_BYTES, DISK_BYTES)] * 2
        assert [disk.sent for disk in disks] == [4096, 0]
        await later(pair)
        assert same(pair)

    run(story())


def test_an_agent_that_starts_anew_copies_what_was_written_without_it() -> None:
    async def story() -> None:
        pair = await protected()
        await pair.kill_agent(pair.alpha)
        pair.volume("xvdb").write(12288, b"without an agent")
        pair.output.emit("while dead")
        await asyncio.sleep(1)
        await pair.boot(pair.alpha).resume()
        await until(lambda: "while dead" in pair.output.out, "released after the new commit")
        await later(pair)
        assert same(pair)
        disks = (await on(pair.alpha).status("web1")).disks
        assert disks[1].total <= 2 * 4096

    run(story())


def test_a_new_agent_serves_its_taps_before_it_looks_for_the_backup() -> None:
    async def story() -> None:
        pair = await protected()
        await pair.kill_agent(pair.alpha)
        pair.network.cut()
        await pair.boot(pair.alpha).resume()
        await asyncio.sleep(1)
        assert all(pair.volume(vdev).tap is not None for vdev in DISKS)

    run(story())


def test_a_backup_that_crashed_and_returned() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        for round_ in range(5):
            for vdev in DISKS:
                pair.volume(vdev).write(512 * round_, b"x" * 512)
            pair.beta.stores.delay = lambda: 0.004
            await asyncio.sleep(0.05 + 0.007 * round_)
            await pair.crash_backup()
            pair.beta.stores.delay = lambda: 0.0
            pair.volume("xvda").write(20480, b"alone %d" % round_)
            pair.boot(pair.beta)
            await protected_again(pair)
            await later(pair)
            assert same(pair)
            assert (await on(pair.alpha).status("web1")).disks[0].total < DISK_BYTES
        assert not pair.beta.stores.violations

    run(story())


def test_a_disk_that_was_replaced_is_copied_whole_even_if_the_first_session_ends_at_once() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        await pair.crash_backup()
        store = pair.beta.stores.by_disk["web1", "xvda"]
        store.map_id, store.content = None, bytearray(b"other" + bytes(DISK_BYTES - 5))
        lost = 0

        def lose_the_welcome(frame: Frame, data: bytes) -> bytes:
            nonlocal lost
            if frame.type is FrameType.DISK_WELCOME and not lost:
                lost += 1
                for connection in pair.network.connections:
                    connection.arrive(None)
                return b""
            return data

        pair.network.mangler = lose_the_welcome
        pair.boot(pair.beta)
        await protected_again(pair)
        await until(lambda: lost == 1, "lost")
        await protected_again(pair)
        await later(pair)
        assert same(pair)

    run(story())


def test_a_log_that_overflows_ends_the_session_and_not_the_guest() -> None:
    async def story() -> None:
        pair = await protected()
        pair.volume("xvda").limit = 4096
        pair.output.emit("held")
        pair.volume("xvda").write(0, b"y" * 8192)
        service = on(pair.alpha)._primaries["web1"]
        await until(lambda: service.state.value == "silent", "the session ends")
        assert "faster" in (service.reason or "")
        assert pair.guest.running
        assert pair.volume("xvda").marked >= {0, 1}
        pair.volume("xvda").limit = 1 << 20
        await until(lambda: "held" in pair.output.out, "protected again")
        await later(pair)
        assert same(pair)

    run(story())


def test_a_disk_that_fails_on_the_backup_is_named_on_the_primary() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        pair.beta.stores.fails.add("stage")
        pair.volume("xvdb").write(0, b"z" * 512)
        service = on(pair.alpha)._primaries["web1"]
        await until(lambda: service.state.value == "silent", "the session ends")
        assert "has failed" in (service.reason or "")
        pair.beta.stores.fails.clear()
        await protected_again(pair)
        await later(pair)
        assert same(pair)

    run(story())


def test_the_connection_of_one_disk_ends_alone() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        service = on(pair.alpha)._primaries["web1"]
        pair.output.emit("held")
        sessions = len(pair.network.connections)
        disk = [c for c in pair.network.connections if any(f.type is FrameType.DISK_ACK for f in c.sent)][-1]
        await disk.close()
        await until(lambda: service.state.value == "silent", "the session ends")
        assert pair.guest.running
        await protected_again(pair)
        assert len(pair.network.connections) == sessions + 2 * (1 + len(DISKS))
        await later(pair)
        assert "held" in pair.output.out
        assert same(pair)

    run(story())


def test_unprotect_makes_the_disks_linear() -> None:
    async def story() -> None:
        pair = await protected()
        assert all(pair.volume(vdev).map_id for vdev in DISKS)
        await on(pair.alpha).unprotect("web1", force=False, timeout=100, progress=quiet)
        assert not any(pair.volume(vdev).map_id for vdev in DISKS)
        assert {store.user for store in pair.beta.stores.by_disk.values()} == {None}

    run(story())


def test_a_tap_that_is_stuck_keeps_the_protection_from_ending() -> None:
    async def story() -> None:
        pair = await protected()
        pair.volume("xvdb").stuck = True
        with pytest.raises(DiskError, match="still tapped"):
            await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert "web1" in pair.alpha.disk.guests
        pair.volume("xvdb").stuck = False
        status = await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert status.state == "unprotected"
        assert not pair.volume("xvdb").map_id

    run(story())


def test_a_guest_that_powers_off_leaves_linear_disks() -> None:
    async def story() -> None:
        pair = await protected()
        pair.guest.ended = True
        await until(lambda: not pair.alpha.disk.guests, "forgotten")
        assert not any(pair.volume(vdev).map_id for vdev in DISKS)

    run(story())


def test_a_primary_that_is_heard_over_a_disks_connection_alone_is_not_silent() -> None:
    """Each connection travels for itself: what memory's is late with is no word on the host."""

    async def story() -> None:
        pair = await protected()
        await later(pair)
        session = next(each for each in pair.network.connections if any(f.type is FrameType.HELLO for f in each.sent))

        async def lost(frame: Frame) -> None:
            """It never arrives."""

        session.send = lost  # type: ignore[method-assign]
        heartbeat = on(pair.beta).settings.heartbeat
        await asyncio.sleep(2.5 * heartbeat)
        silent = on(pair.beta)._ports.clock.now() - copy_of(pair).primary_heard
        assert silent <= heartbeat
        assert copy_of(pair).state is State.READY

    run(story())
