"""Protections that are paused: output flows only without a copy, and whatever happens meanwhile the guest is protected again."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.adapters.sim.hypervisor import SimSource
from remus_agent.errors import JournalError, RefusedError
from remus_agent.observe.status import Status
from remus_agent.ports import Domain
from tests.model.loop import run
from tests.model.pair import Host, Pair, on, quiet, until
from tests.model.test_authority import ask, play, standing
from tests.model.test_authority import until as world_until
from tests.model.world import GUEST, World


async def started() -> Pair:
    """A pair whose guest is protected, and whose agents do what agents do by themselves."""
    pair = Pair()
    for host in (pair.alpha, pair.beta):
        await on(host).resume()
    await pair.protect()
    return pair


async def pause(pair: Pair, seconds: float, reason: str = "") -> Status:
    return await on(pair.alpha).pause("web1", seconds=seconds, reason=reason, timeout=30, progress=quiet)


async def state(host: Host) -> str:
    return (await on(host).status("web1")).state


async def until_state(pair: Pair, wanted: str) -> None:
    """Poll the status of the guest on alpha."""
    for _ in range(3000):
        if await state(pair.alpha) == wanted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"never {wanted}, but {await state(pair.alpha)}")


def kinds(pair: Pair) -> list[str]:
    return [kind for name, kind in pair.alpha.events.noted if name == "web1"]


def test_a_pause_ends_the_copy_first_and_itself_when_its_time_is_over() -> None:
    async def story() -> None:
        pair = await started()
        status = await pause(pair, 60, "new switch")
        assert (status.role, status.state, status.peer) == ("none", "paused", "beta")
        assert status.reason is not None
        assert "new switch" in status.reason
        assert "remusctl resume web1" in status.reason
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        assert copy.state.value == "discarded"
        assert not pair.output.holding
        assert [one.domain for one in await on(pair.alpha).overview()] == ["web1"]
        await asyncio.sleep(50)
        assert await state(pair.alpha) == "paused"
        await until_state(pair, "protected")
        await until(lambda: not pair.alpha.pauses.notes, "the note is gone")
        assert kinds(pair)[-1] == "pause-over"
        assert "paused" in kinds(pair)
        await on(pair.alpha).close()

    run(story())


@pytest.mark.parametrize("dead_for", [5, 200])
def test_a_pause_outlives_the_agent(dead_for: float) -> None:
    async def story() -> None:
        pair = await started()
        await pause(pair, 100)
        await pair.kill_agent(pair.alpha)
        await asyncio.sleep(dead_for)
        await pair.boot(pair.alpha).resume()
        if dead_for < 100:
            assert await state(pair.alpha) == "paused"
        await until_state(pair, "protected")
        await on(pair.alpha).close()

    run(story())


def test_an_agent_that_dies_before_the_copy_is_gone_leaves_the_guest_protected() -> None:
    async def story() -> None:
        pair = await started()
        agent = on(pair.alpha)

        async def dies(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        agent._pauses._protections.end = dies  # type: ignore[method-assign]
        pausing = asyncio.create_task(pause(pair, 1000))
        await until(lambda: "web1" in pair.alpha.pauses.notes, "the note is there")
        await pair.kill_agent(pair.alpha)
        pausing.cancel()
        await pair.boot(pair.alpha).resume()
        await until(lambda: not pair.alpha.pauses.notes, "the note is dropped")
        assert await state(pair.alpha) == "protected"
        await on(pair.alpha).close()

    run(story())


def test_a_silent_guest_is_not_paused_where_nobody_can_say_that_its_copy_is_gone() -> None:
    async def story() -> None:
        pair = await started()
        await pair.crash_backup()
        await until_state(pair, "silent")
        with pytest.raises(RefusedError, match="nobody knows whether it will be activated"):
            await pause(pair, 60)
        assert pair.alpha.pauses.notes == {}
        assert await state(pair.alpha) == "silent"
        assert pair.output.holding
        await on(pair.alpha).close()

    run(story())


def test_a_pause_that_is_over_and_cannot_end_is_loud_and_tried_again() -> None:
    async def story() -> None:
        pair = await started()
        await pause(pair, 30)
        await pair.crash_backup()
        await until(lambda: "pause-overdue" in kinds(pair), "it is overdue")
        status = await on(pair.alpha).status("web1")
        assert status.state == "paused"
        assert status.reason is not None
        assert "its pause is over, and it is not protected again: " in status.reason
        assert "it is tried" not in status.reason
        await asyncio.sleep(300)
        assert kinds(pair).count("pause-overdue") == 1
        assert kinds(pair).count("connecting") <= 12  # no more than one attempt a minute
        pair.boot(pair.beta)
        await until_state(pair, "protected")
        await until(lambda: not pair.alpha.pauses.notes, "the note is gone")
        await on(pair.alpha).close()

    run(story())


def test_a_pause_is_renewed_ended_early_or_for_good() -> None:
    async def story() -> None:
        pair = await started()
        agent = on(pair.alpha)
        await pause(pair, 30)
        await asyncio.sleep(20)
        await pause(pair, 30)
        await asyncio.sleep(20)
        assert await state(pair.alpha) == "paused"
        status = await agent.resume_protection("web1", wait=True, timeout=60, progress=quiet)
        assert status.state == "protected"
        await until(lambda: not pair.alpha.pauses.notes, "the note is gone")
        with pytest.raises(RefusedError, match="it is not paused"):
            await agent.resume_protection("web1", wait=True, timeout=60, progress=quiet)
        await pause(pair, 30)
        status = await agent.unprotect("web1", force=False, timeout=30, progress=quiet)
        assert status.state == "unprotected"
        await asyncio.sleep(100)
        assert await state(pair.alpha) == "unprotected"
        with pytest.raises(RefusedError, match="it is not protected on this host"):
            await pause(pair, 30)
        await pair.protect()
        await pause(pair, 1000)
        await pair.protect()
        await until(lambda: not pair.alpha.pauses.notes, "who protects it ends the pause")
        await agent.close()

    run(story())


def test_a_full_disk_refuses_a_pause_and_leaves_the_protection() -> None:
    async def story() -> None:
        pair = await started()
        pair.alpha.disk.full = True
        with pytest.raises(Exception, match="no space left"):
            await pause(pair, 30)
        pair.alpha.disk.full = False
        assert await state(pair.alpha) == "protected"
        await on(pair.alpha).close()

    run(story())


def test_a_pause_whose_note_stays_is_not_over_for_good() -> None:
    """Nor does the guest's protection begin anew behind the back of an operator who asked once more."""

    async def story() -> None:
        pair = await started()
        await pause(pair, 60)
        remove = pair.alpha.pauses.remove

        async def fails(name: str) -> bool:
            raise JournalError("the device fails", domain=name)

        pair.alpha.pauses.remove = fails  # type: ignore[method-assign]
        with pytest.raises(JournalError, match="the device fails"):
            await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert await state(pair.alpha) == "paused"
        pair.alpha.pauses.remove = remove  # type: ignore[method-assign]
        await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        await pair.kill_agent(pair.alpha)
        await pair.boot(pair.alpha).resume()
        await asyncio.sleep(200)
        assert await state(pair.alpha) == "unprotected"
        await on(pair.alpha).close()

    run(story())


def test_a_guest_that_is_paused_anew_while_its_last_pause_is_forgotten_stays_paused_after_a_restart() -> None:
    async def story() -> None:
        pair = await started()
        await pause(pair, 60)
        agent, remove = on(pair.alpha), pair.alpha.pauses.remove
        removing, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(name: str) -> bool:
            removing.set()
            await go_on.wait()
            return await remove(name)

        pair.alpha.pauses.remove = slowly  # type: ignore[method-assign]
        await agent.resume_protection("web1", wait=True, timeout=60, progress=quiet)
        await removing.wait()
        again = asyncio.create_task(pause(pair, 500))
        await asyncio.sleep(5)
        go_on.set()
        await again
        await asyncio.sleep(1)
        assert "web1" in pair.alpha.pauses.notes, "the note of the new pause is durable"
        await pair.kill_agent(pair.alpha)
        await pair.boot(pair.alpha).resume()
        assert await state(pair.alpha) == "paused"
        await on(pair.alpha).close()

    run(story())


def test_a_protection_that_is_ended_while_it_begins_anew_does_not_come_behind_that() -> None:
    async def story() -> None:
        pair = await started()
        agent, opens = on(pair.alpha), pair.alpha.xen.open_source
        await pause(pair, 30)
        beginning, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(domain: Domain) -> SimSource:
            beginning.set()
            await go_on.wait()
            return await opens(domain)

        pair.alpha.xen.open_source = slowly  # type: ignore[method-assign]
        await beginning.wait()
        ending = asyncio.create_task(agent.unprotect("web1", force=False, timeout=30, progress=quiet))
        await asyncio.sleep(1)
        go_on.set()
        assert (await ending).state == "unprotected"
        await asyncio.sleep(100)
        assert await state(pair.alpha) == "unprotected"
        await agent.close()

    run(story())


def test_a_guest_that_a_switchover_has_moved_is_not_paused() -> None:
    async def story() -> None:
        pair = await started()
        agent = on(pair.alpha)
        pair.beta.disk.delay = lambda: 2.0
        moving = asyncio.create_task(
            agent.switchover("web1", timeout=30, dry_run=False, generation=None, progress=quiet)
        )
        await until(lambda: agent._primaries["web1"].state.value == "switching", "it is moved")
        with pytest.raises(RefusedError, match="it was moved to beta") as refused:
            await pause(pair, 60)
        assert refused.value.left == "it runs on beta, nothing is paused"
        await moving
        assert pair.alpha.pauses.notes == {}
        assert "paused" not in kinds(pair)
        await agent.close()

    run(story())


def test_with_a_witness_the_record_says_solo_before_output_flows() -> None:
    """The world looks at every frame that leaves a host, and at every copy that runs: see `World`."""

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await ask(world, "alpha", lambda agent: agent.pause(GUEST, seconds=30, reason="", timeout=20, progress=quiet))
        assert standing(world)[0::2] == ("alpha", "solo")
        assert not alpha.outputs.by_name[GUEST].holding
        await asyncio.sleep(20)
        assert standing(world)[0::2] == ("alpha", "solo")
        await world_until(world, lambda: standing(world)[2:] == ("protected", "beta"), 30)
        await world_until(world, lambda: not alpha.pauses.notes, 30)

    play(story)


def test_while_it_is_paused_nobody_takes_it_over() -> None:
    async def story(world: World) -> None:
        await ask(world, "alpha", lambda agent: agent.pause(GUEST, seconds=60, reason="", timeout=20, progress=quiet))
        world.power_off(world.hosts["alpha"])
        await asyncio.sleep(20)
        assert world.running() == []
        assert standing(world)[0] == "alpha"

    play(story)
