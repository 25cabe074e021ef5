"""Which copy of a guest with disks is activated, and in which state its disks are then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remus_agent.adapters.sim.hypervisor import SimTarget
from remus_agent.adapters.sim.net import SimConnection
from remus_agent.errors import AuthorityError, DiskError, DomainNotFound, HypervisorError
from remus_agent.machines.backup import State
from remus_agent.protocol.replication.frames import Frame, FrameType
from tests.model.disk_pair import copy_of, later, protected, protected_again, same
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, until


def test_an_apply_that_failed_is_made_up_for_before_activation() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        pair.beta.stores.fails.add("apply")
        pair.volume("xvda").write(0, b"committed")
        await until(lambda: copy_of(pair).state is State.ORPHANED, "the session ends")
        await pair.kill_host()
        with pytest.raises(AssertionError):
            assert pair.copied("xvda").startswith(b"committed")
        pair.beta.stores.fails.clear()
        await asyncio.sleep(40)
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert same(pair)

    run(story())


def test_a_failover_does_not_wait_for_a_dead_host_to_take_the_ends_of_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lingers(_: SimConnection) -> None:
        await asyncio.sleep(3600)

    async def story() -> None:
        pair = await protected()
        await later(pair)
        pair.network.cut()
        monkeypatch.setattr(SimConnection, "close", lingers)
        began = asyncio.get_running_loop().time()
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert asyncio.get_running_loop().time() - began < 3600

    run(story())


@pytest.mark.parametrize(("operation", "message"), [("hand_over", "has failed"), ("lead", "is busy")])
def test_nothing_is_activated_when_a_disk_cannot_be_handed_over(operation: str, message: str) -> None:
    async def story() -> None:
        pair = await protected()
        pair.volume("xvda").write(0, b"last")
        await later(pair)
        await pair.kill_host()
        await until(lambda: copy_of(pair).state is State.ORPHANED, "orphaned")
        pair.beta.stores.fails.add(operation)
        with pytest.raises(DiskError, match=message) as caught:
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert caught.value.left == "nothing was activated, the copy stands"
        assert [guest.paused_copy for guest in pair.beta.xen.guests.values()] == [True]
        pair.beta.stores.fails.clear()
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert pair.beta.xen.guests["web1"].running
        assert same(pair)

    run(story())


def test_a_primary_that_lives_is_not_taken_for_silent_while_the_backup_is_busy() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        pair.beta.stores.delay = lambda: 15.0
        await asyncio.sleep(1)
        with pytest.raises(AuthorityError, match="the primary is alive"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert "web1" not in pair.beta.xen.guests
        pair.beta.stores.delay = lambda: 0.0
        await later(pair)

    run(story())


def hold_memory(pair: Pair) -> None:
    """New sessions get no further than their disks: no end of an epoch of memory arrives."""
    pair.network.mangler = lambda frame, data: b"" if frame.type is FrameType.EPOCH_END else data


def test_an_older_copy_is_activated_while_a_newer_session_stages() -> None:
    async def story() -> None:
        pair = await protected()
        pair.volume("xvda").write(0, b"old")
        await later(pair)
        then = bytes(pair.volume("xvda").content)
        first = copy_of(pair)
        await pair.network.drop_all()
        hold_memory(pair)
        pair.volume("xvda").write(0, b"new")
        await until(lambda: pair.beta.stores.by_disk["web1", "xvda"].slots.get(1, ("", 0, ()))[1] == 1, "staged", 60)
        backup = on(pair.beta).backup
        assert [copy.state for copy in backup.copies_of("web1")] == [State.ORPHANED, State.RECEIVING]
        assert copy_of(pair) is first
        with pytest.raises(AuthorityError, match="the primary is alive"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert copy_of(pair) is first
        pair.network.cut()
        await pair.kill_agent(pair.alpha)
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert first.state is State.ACTIVE
        assert pair.copied("xvda") == then
        assert [copy.state for copy in backup.copies_of("web1")] == [State.ACTIVE, State.DISCARDED]
        assert not pair.beta.stores.violations

    run(story())


def test_an_older_copy_is_not_activated_once_a_newer_one_has_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the newer one breaks right after its first commit: what the guest sent in it has left its host."""

    async def story() -> None:
        pair = await protected()
        await later(pair)
        first = copy_of(pair)
        feed = SimTarget.feed

        async def break_down(self: SimTarget, buffers: Any) -> None:
            newest = on(pair.beta).backup.copies_of("web1")[-1]
            if newest is not first and newest.committed_epoch == 1:
                raise HypervisorError("the toolstack process ended", operation="feed")
            await feed(self, buffers)

        states: list[State] = []

        def at_the_acknowledgement(frame: Frame, data: bytes) -> bytes:
            if frame.type is FrameType.MEMORY_ACK and frame.epoch == 1:
                states.append(first.state)
            return data

        monkeypatch.setattr(SimTarget, "feed", break_down)
        pair.network.mangler = at_the_acknowledgement
        await pair.network.drop_all()
        pair.output.emit("reply of the first epoch of the new session")
        await until(lambda: "reply of the first epoch of the new session" in pair.output.out, "released", 100)
        pair.network.cut()
        await pair.kill_host()
        await asyncio.sleep(40)
        with pytest.raises(DomainNotFound):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert first.state is State.DISCARDED
        assert states[0] is State.DISCARDED, "the commit was heard of while the older copy could still be activated"

    run(story())


def test_a_first_epoch_that_does_not_fit_gives_up_the_older_copy() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        await pair.network.drop_all()
        pair.beta.stores.capacity = 8192
        hold_memory(pair)
        pair.volume("xvda").write(0, b"q" * 16384)
        await until(lambda: ("web1", "older-copy-given-up") in pair.beta.events.noted, "given up", 60)
        backup = on(pair.beta).backup
        await until(lambda: pair.beta.stores.by_disk["web1", "xvda"].seeding, "seeded")
        assert {copy.state for copy in backup.copies_of("web1")} == {State.DISCARDED, State.RECEIVING}
        with pytest.raises(AuthorityError):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        pair.network.mangler = None
        pair.beta.stores.capacity = 1 << 20
        await protected_again(pair)
        await later(pair)
        assert same(pair)

    run(story())


def test_an_epoch_that_the_journal_cannot_hold_ends_the_session_and_not_the_guest() -> None:
    async def story() -> None:
        pair = await protected()
        await later(pair)
        before = on(pair.alpha)._primaries["web1"].session_id
        pair.beta.stores.capacity = 8192
        pair.volume("xvda").write(0, b"q" * 16384)
        pair.output.emit("reply")
        primary = on(pair.alpha)._primaries["web1"]
        await until(lambda: "larger than the 8192 bytes that can be staged" in str(primary.error), "said", 60)
        assert "give the disk's journal on the backup more space" in str(primary.error)
        assert "reply" not in pair.output.out, "it is not committed"
        assert pair.guest.running
        await until(lambda: "reply" in pair.output.out, "protected again, by a copy that needs no journal")
        assert primary.session_id != before
        await later(pair)
        assert same(pair)

    run(story())
