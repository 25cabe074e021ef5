"""A backup on which something does not answer: nobody waits for it without an end, and everybody is told what it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remus_agent.adapters.sim.replica import SimReplica
from remus_agent.errors import RefusedError
from remus_agent.machines.backup import State
from remus_agent.machines.primary import State as Primary
from remus_agent.ports import Connection, HostFacts
from remus_agent.protocol.replication.messages import AskOutcome, Welcome
from remus_agent.services.copy import Copy
from tests.model.hanging import hang_commits
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, quiet, until


def copy_of(pair: Pair) -> Copy:
    copy = on(pair.beta).backup.copy_of("web1")
    assert copy is not None
    return copy


def test_sessions_do_not_queue_up_behind_one_that_cannot_be_opened() -> None:
    async def story() -> None:
        pair = Pair(ack=20.0)
        await pair.protect()
        answers, waiting = asyncio.Event(), 0

        async def hangs() -> HostFacts:
            nonlocal waiting
            waiting += 1
            await answers.wait()
            return pair.beta.xen.host

        pair.beta.xen.facts = hangs  # type: ignore[method-assign]
        await pair.network.drop_all()
        primary = on(pair.alpha)._primaries["web1"]
        await until(lambda: "an earlier session is being opened" in str(primary.reason), "the next one is told")
        assert "beta looks at its memory, its guests and the disks" in str(primary.reason)
        await asyncio.sleep(200)
        assert waiting == 1
        answers.set()
        await until(lambda: primary.state.value == "protected", "protected again")

    run(story())


def test_a_takeover_does_not_wait_for_ever_for_the_session_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        hanging = hang_commits(monkeypatch)
        await until(lambda: copy_of(pair).hangs is not None, "it hangs")
        backup = on(pair.beta).backup
        with backup.taking_over("web1"), pytest.raises(RefusedError, match=r"taking in epoch .* does not answer"):
            await backup.silence("web1")
        hanging.answers.set()
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "sessions are taken in again")

    run(story())


def test_who_asks_for_a_hand_over_s_outcome_is_told_that_nobody_knows_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        hang_commits(monkeypatch)
        copy = copy_of(pair)
        await until(lambda: copy.hangs is not None, "it hangs")
        ask = AskOutcome(session=copy.hello.session, domain="web1", uuid=copy.hello.uuid, host="alpha")
        hand_overs = on(pair.beta).backup.hand_overs
        assert hand_overs is not None
        said = await hand_overs.outcome(ask)
        assert said.result == "unknown"
        assert "does not answer" in said.reason

    run(story())


def test_an_agent_stops_although_a_copy_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        hang_commits(monkeypatch)
        await until(lambda: copy_of(pair).hangs is not None, "it hangs")
        async with asyncio.timeout(30):
            await on(pair.beta).close()

    run(story())


def test_a_copy_that_is_discarded_while_it_commits_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        copy, hanging = copy_of(pair), hang_commits(monkeypatch)
        await hanging.begun.wait()
        await on(pair.beta).unprotect("web1", force=True, timeout=30, progress=quiet)
        assert copy.state is State.DISCARDED
        hanging.answers.set()
        await until(lambda: copy_of(pair) is not copy, "the next session is taken in")
        assert ("web1", "defect") not in pair.beta.events.noted
        assert "discarded" in str(copy.reason)

    run(story())


@pytest.mark.parametrize("force", [True, False])
def test_a_protection_that_ends_at_both_hosts_at_once_ends_for_who_vouches(
    monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    """The copy is discarded there while it commits, so the session fails before it can be confirmed that it is gone."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        agent, hanging = on(pair.alpha), hang_commits(monkeypatch)
        service = agent._primaries["web1"]
        await hanging.begun.wait()
        ending = asyncio.create_task(agent.unprotect("web1", force=force, timeout=120, progress=quiet))
        await until(lambda: service.state is Primary.STOPPING, "the primary asks for the copy to be destroyed")
        await on(pair.beta).unprotect("web1", force=True, timeout=30, progress=quiet)
        hanging.answers.set()
        async with asyncio.timeout(30):
            if force:
                await ending
                assert service.state is Primary.STOPPED
            else:
                with pytest.raises(RefusedError, match="did not confirm"):
                    await ending

    run(story())


def test_a_copy_that_is_taken_over_is_not_said_to_be_discarded() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()
        copy, agent = copy_of(pair), on(pair.beta)
        pair.beta.xen.step = lambda: 20.0
        failing_over = asyncio.create_task(agent.failover("web1", generation=None, session=None, fenced=DEAD))
        await until(lambda: copy.state is State.ACTIVATING, "it is activated")
        with pytest.raises(RefusedError, match="this host is about to run it") as refused:
            await agent.unprotect("web1", force=True, timeout=30, progress=quiet)
        assert refused.value.left == "nothing was changed"
        assert (await failing_over).state == "active"

    run(story())


def test_a_session_that_is_ended_before_its_first_frame_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a takeover that begins when it was let in, and before it is told so."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        backup = on(pair.beta).backup
        answer = backup._answer
        ending: list[asyncio.Task[object]] = []

        async def slowly(connection: Connection, message: Any) -> None:
            if isinstance(message, Welcome) and not ending:
                ending.append(asyncio.create_task(backup.silence("web1")))
                await asyncio.sleep(0.1)
            await answer(connection, message)

        monkeypatch.setattr(backup, "_answer", slowly)
        await pair.network.drop_all()
        await until(lambda: bool(ending), "the next session is let in")
        arriving = backup.copies_of("web1")[-1]
        left = await ending[0]
        assert left is not None
        assert left is not arriving
        assert arriving.state is State.DISCARDED

    run(story())


def test_disks_that_are_not_handed_over_are_said_to_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asyncio.Event()
    works = SimReplica.hand_over

    async def hangs(self: SimReplica) -> None:
        await answers.wait()
        await works(self)

    monkeypatch.setattr(SimReplica, "hand_over", hangs)

    async def story() -> None:
        pair = Pair(("xvda",))
        await pair.protect()
        await pair.orphan()
        agent = on(pair.beta)
        reason = copy_of(pair).reason
        failing_over = asyncio.create_task(agent.failover("web1", generation=None, session=None, fenced=DEAD))
        await until(lambda: ("web1", "copy-hangs") in pair.beta.events.noted, "said", 100)
        status = await agent.status("web1")
        assert (status.state, "have not been handed over within 60 s" in str(status.reason)) == ("activating", True)
        answers.set()
        assert (await failing_over).state == "active", "it goes on by itself"
        assert copy_of(pair).reason == reason

    run(story())
