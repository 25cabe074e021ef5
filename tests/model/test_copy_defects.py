"""An error that nobody has foreseen on the backup ends the session or the activation, and never what a takeover needs."""

from __future__ import annotations

from typing import Any

import pytest

from remus_agent.adapters.sim.hypervisor import SimTarget
from remus_agent.adapters.sim.local import SimAnnouncer
from remus_agent.errors import DiskError
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.services import disk_channel, session
from remus_agent.services.copy_disks import CopyDisks
from remus_agent.services.copy_image import CopyImage
from remus_agent.services.disk_feed import DiskFeed
from tests.model.disk_pair import DISKS, protected
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, until


class Defect(Exception):
    """What no service knows."""


def failing_once(monkeypatch: pytest.MonkeyPatch, kind: Any, method: str) -> list[None]:
    """The method fails the next time that it is called, after `armed` was given an element."""
    armed: list[None] = []
    works = getattr(kind, method)

    async def perhaps(*args: Any, **kwargs: Any) -> Any:
        if armed:
            armed.pop()
            raise Defect
        return await works(*args, **kwargs)

    monkeypatch.setattr(kind, method, perhaps)
    return armed


def states(pair: Pair) -> list[str]:
    return [copy.state.value for copy in on(pair.beta).backup.copies_of("web1")]


def test_a_copy_whose_session_ended_so_can_be_failed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, CopyImage, "epoch_end")

    async def story() -> None:
        pair = Pair(silence=3, heartbeat=1)
        await pair.protect()
        await pair.kill_agent(pair.alpha)
        armed.append(None)
        pair.boot(pair.alpha)
        await on(pair.alpha).resume()
        await until(lambda: not armed, "the defect")
        await pair.kill_host()
        await until(lambda: states(pair).count("orphaned") == 1, "what is left", 30)
        assert "ready" not in states(pair)
        status = await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert status.state == "active"

    run(story())


def test_it_is_told_and_the_guest_is_protected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, CopyImage, "stream")

    async def story() -> None:
        pair = Pair()
        before = await pair.protect()
        armed.append(None)
        await until(lambda: ("web1", "defect") in pair.beta.events.noted, "the defect")
        await until(lambda: on(pair.alpha)._primaries["web1"].session_id not in (None, before.session), "a new session")
        await until(lambda: states(pair) == ["discarded", "ready"], "one copy only", 30)

    run(story())


def test_a_copy_that_was_given_half_an_epoch_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, SimTarget, "feed")

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        armed.append(None)
        await until(lambda: not armed and states(pair)[:1] == ["discarded"], "the copy is gone", 10)

    run(story())


def test_one_whose_disks_do_not_stop_in_order_can_be_failed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, DiskFeed, "stop")

    async def story() -> None:
        pair = await protected(silence=3, heartbeat=1)
        armed.extend([None] * len(DISKS))
        await pair.kill_host()
        await until(lambda: states(pair) == ["orphaned"], "the session is over", 30)
        assert not armed
        status = await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert status.state == "active"

    run(story())


def test_it_is_not_in_the_way_of_the_next_session_either(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, DiskFeed, "stop")

    async def story() -> None:
        pair = await protected(silence=3, heartbeat=1)
        armed.extend([None] * 2 * len(DISKS))  # as the session ends, and once more when all of it is over
        await pair.kill_agent(pair.alpha)
        await until(lambda: not armed and states(pair) == ["orphaned"], "the session is over", 30)
        await pair.boot(pair.alpha).resume()
        await until(lambda: states(pair)[-1] == "ready", "the next one has committed", 60)

    run(story())


@pytest.mark.parametrize("method", ["build", "rename", "run"])
def test_an_activation_that_fails_so_is_over(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, SimTarget, method)

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()
        armed.append(None)
        with pytest.raises(Defect):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert states(pair) == ["discarded"]

    run(story())


@pytest.mark.parametrize(
    ("error", "event"), [(DiskError("it is busy", domain="web1"), "older-copy-stays"), (Defect(), "defect")]
)
def test_an_older_copy_that_is_not_cleared_up_is_told_of_at_once_and_keeps_no_agent_from_stopping(
    error: Exception, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed: list[Exception] = []
    leave = CopyDisks.leave

    async def perhaps(self: CopyDisks) -> None:
        if armed:
            raise armed.pop()
        await leave(self)

    monkeypatch.setattr(CopyDisks, "leave", perhaps)

    async def story() -> None:
        pair = Pair(silence=3, heartbeat=1)
        await pair.protect()
        await pair.kill_agent(pair.alpha)
        await until(lambda: states(pair) == ["orphaned"], "the session is over", 30)
        armed.append(error)
        await pair.boot(pair.alpha).resume()
        await until(lambda: not armed, "the older copy is cleared up", 60)
        await until(lambda: ("web1", event) in pair.beta.events.noted, "it is told", 1)
        assert len(pair.beta.xen.guests) == 1, "the domain of the older copy stays"
        await until(lambda: states(pair) == ["discarded", "ready"], "the newer one stands")
        await on(pair.beta).close()

    run(story())


def test_a_disk_s_defect_ends_its_session_at_once_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, DiskFeed, "_take")

    async def story() -> None:
        pair = await protected()
        primary = on(pair.alpha)._primaries["web1"]
        armed.append(None)
        await until(lambda: primary.state.value != "protected", "it is told", 10)
        assert "failed by a defect at disk xvd" in str(primary.reason)
        await until(lambda: primary.state.value == "protected", "protected again")

    run(story())


@pytest.mark.parametrize(
    ("kind", "method"), [(disk_channel.DiskChannel, "_put"), (disk_channel, "receive_within")], ids=["send", "receive"]
)
def test_a_helper_of_a_disk_on_the_primary_does_not_die_unnoticed(
    monkeypatch: pytest.MonkeyPatch, kind: Any, method: str
) -> None:
    armed = failing_once(monkeypatch, kind, method)

    async def story() -> None:
        pair = await protected()
        primary = on(pair.alpha)._primaries["web1"]
        armed.append(None)
        await until(lambda: primary.state.value != "protected", "it is noticed", 10)
        assert "this host's agent failed by a defect: Defect()" in str(primary.reason)
        await until(lambda: primary.state.value == "protected", "protected again")

    run(story())


def test_a_helper_of_a_session_does_not_die_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that listens: without it a session that copies for an hour would not hear that the backup is gone."""
    armed: list[None] = []
    works = session.PrimarySession._handle

    def perhaps(self: session.PrimarySession, frame: Frame) -> None:
        if armed:
            armed.pop()
            raise Defect
        works(self, frame)

    monkeypatch.setattr(session.PrimarySession, "_handle", perhaps)

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        primary = on(pair.alpha)._primaries["web1"]
        armed.append(None)
        await until(lambda: primary.state.value != "protected", "it is noticed", 10)
        assert "this host's agent failed by a defect: Defect()" in str(primary.reason)
        await until(lambda: primary.state.value == "protected", "protected again")

    run(story())


def test_a_frame_without_records_is_the_primary_s_fault() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        (near,) = (one for one in pair.network.connections if one.sent and one.sent[0].type is FrameType.HELLO)
        await near.send(Frame(FrameType.STREAM, copy.committed_epoch + 1))
        await until(lambda: copy.state.value != "ready", "its session is over", 10)
        assert "STREAM without records" in str(copy.reason)
        assert ("web1", "defect") not in pair.beta.events.noted

    run(story())


def test_a_guest_that_is_not_announced_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    armed = failing_once(monkeypatch, SimAnnouncer, "announce")

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()
        armed.append(None)
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        await until(lambda: not armed, "it is announced")
        assert ("web1", "defect") in pair.beta.events.noted

    run(story())
