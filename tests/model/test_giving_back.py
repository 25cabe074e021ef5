"""A new owner that loses its copy before it runs the guest gives the guest back; one that may have run it does not."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.faults import VARIABLE, FaultName
from tests.model.plans import Fault, Plan
from tests.model.simulate import simulate
from tests.model.test_authority import BOTH, answered, play, standing, status, until
from tests.model.world import GUEST, TIMES, World

UNSEEN = Fault(at=1.0, kind="cut", host="alpha", seconds=20.0, paths=("channel", "second"))


async def lost_before_it_ran(world: World) -> None:
    """beta owns the guest by takeover; its copy is lost before it ran; alpha lives, and has learned of it."""
    world.links.cut |= BOTH
    world.hosts["beta"].xen.toolstack_fails = True
    await until(world, lambda: standing(world)[0] == "beta", 10)


def test_a_guest_whose_copy_could_not_be_activated_goes_on_where_it_was_paused() -> None:
    async def story(world: World) -> None:
        before = answered(world)
        await lost_before_it_ran(world)
        await until(world, lambda: standing(world)[0] == "alpha", 10)
        assert standing(world)[1:] in ((4, "solo", None), (5, "solo", None))
        await until(world, lambda: standing(world) == ("alpha", 5, "solo", None), 20)
        await until(world, lambda: answered(world) > before, 5)
        assert await status(world, "alpha") == "solo"
        world.hosts["beta"].xen.toolstack_fails = False
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world) == ("alpha", 6, "protected", "beta"), 15)
        assert world.hosts["beta"].disk.guests.get(GUEST) is None

    play(story)


def test_the_next_agent_gives_back_what_the_one_before_it_did_not_run() -> None:
    async def story(world: World) -> None:
        world.links.cut |= BOTH
        beta = world.hosts["beta"]
        world.witness.lose_answer = lambda host: host == "beta"
        await until(world, lambda: standing(world)[0] == "beta", 10)
        world.kill_agent(beta)
        await until(world, lambda: not world.running(), 20)
        assert await status(world, "alpha") == "stood-down"
        await asyncio.sleep(10)
        assert not world.running(), "nobody knows yet what beta will do"
        world.witness.lose_answer = lambda _: False
        world.start_agent(beta)
        await until(world, lambda: standing(world) == ("alpha", 5, "solo", None), 10)
        assert [inc.number for inc in world.running()] == [0]

    play(story)


def test_what_has_run_is_not_given_back() -> None:
    async def story(world: World) -> None:
        world.links.cut |= BOTH
        await until(world, lambda: [inc.host for inc in world.running()][-1:] == ["beta"], 10)
        await until(world, lambda: len(world.running()) == 1, 20)
        world.power_off(world.hosts["beta"])
        world.power_on(world.hosts["beta"])
        await asyncio.sleep(20)
        assert standing(world) == ("beta", 3, "solo", None)
        assert await status(world, "alpha") == "stood-down"

    play(story)


def test_a_full_disk_keeps_a_takeover_from_being_given_back_not_from_being_made() -> None:
    async def story(world: World) -> None:
        beta = world.hosts["beta"]
        world.power_off(world.hosts["alpha"])
        beta.disk.full = True
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 10)
        assert beta.disk.guests.get(GUEST) is None

    play(story)


def unseen(*more: Fault, solo: float = TIMES["solo"]) -> Plan:
    return Plan(seed=1, rates=(1.0, 1.0), faults=(UNSEEN, *more), solo=solo)


PLANS = {
    # beta's toolstack fails when it is to activate its copy.
    FaultName.DESTROY_AT_ONCE: unseen(Fault(at=1.5, kind="toolstack-fails", host="beta", seconds=18.0)),
    # beta has run the guest, loses power, and comes back while alpha still waits.
    FaultName.RUNS_UNNOTED: unseen(Fault(at=13.0, kind="power-off", host="beta", seconds=1.0)),
}


@pytest.mark.parametrize("fault", PLANS, ids=lambda fault: fault.value)
def test_each_seeded_fault_is_found_by_its_plan(fault: FaultName, monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulate(PLANS[fault]) is None
    monkeypatch.setenv(VARIABLE, fault.value)
    assert simulate(PLANS[fault]) is not None
