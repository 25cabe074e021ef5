"""A switchover where there is a witness: who owns the guest is on record, and an owner that never ran it gives it back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remus_agent.adapters.sim.hypervisor import SimTarget
from remus_agent.errors import DiskError, HypervisorError, SwitchoverInDoubt
from remus_agent.machines.primary import State
from remus_agent.services.copy_disks import CopyDisks
from tests.model.test_authority import BOTH, answered, ask, play, standing, status, until
from tests.model.world import GUEST, World


def move(world: World) -> asyncio.Task[Any]:
    """remusctl switchover on alpha."""
    agent = world.hosts["alpha"].agent
    assert agent is not None
    return world.hosts["alpha"].node.spawn(
        agent.switchover(GUEST, timeout=3, dry_run=False, generation=None, progress=lambda *_, **__: None)
    )


async def is_handed_over(world: World) -> None:
    """alpha has handed it over, and beta is asking the witness."""
    agent = world.hosts["alpha"].agent
    assert agent is not None
    service = agent._primaries[GUEST]
    while service.state is not State.HANDED:
        await service.changed.wait()


async def cut_off(world: World) -> asyncio.Task[Any]:
    """Right after the hand-over nobody hears the other host any more; beta becomes the owner."""
    moving = move(world)
    await is_handed_over(world)
    world.links.cut |= BOTH
    await until(world, lambda: standing(world)[0] == "beta", 10)
    return moving


def down_on_alpha(world: World) -> bool:
    guest = world.hosts["alpha"].xen.guests.get(GUEST)
    return guest is not None and not guest.paused_copy and (guest.suspended or not guest.running)


async def same_guest_goes_on(world: World, before: int) -> None:
    """On alpha, and protected again."""
    await until(world, lambda: standing(world)[0] == "alpha", 20)
    await until(world, lambda: standing(world)[2:] == ("protected", "beta"), 40)
    assert [inc.number for inc in world.running()] == [0]
    await until(world, lambda: answered(world) > before, 5)
    record = world.hosts["alpha"].disk.guests[GUEST]
    assert (record.role, record.handed) == ("primary", None)
    assert world.hosts["beta"].disk.guests.get(GUEST) is None


def test_the_record_changes_with_the_host_and_nobody_is_fenced() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha", "beta"}
        await asyncio.wait_for(move(world), 20)
        assert [inc.host for inc in world.running()] == ["beta"]
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 15)
        assert world.hosts["beta"].disk.guests[GUEST].role == "primary"
        assert world.fencing.asked == []

    play(story)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ((SimTarget, "run"), HypervisorError("the toolstack fails")),
        ((CopyDisks, "hand_over"), DiskError("it cannot be handed over")),
    ],
    ids=["copy lost", "copy whole"],
)
def test_an_owner_that_did_not_run_it_gives_it_back(
    broken: tuple[type, str], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        before = answered(world)
        monkeypatch.setattr(*broken, fail)
        await asyncio.gather(move(world), return_exceptions=True)
        monkeypatch.undo()
        await same_guest_goes_on(world, before)
        assert world.fencing.asked == [], "its host is well"

    play(story)


def test_an_owner_whose_agent_dies_before_it_runs_gives_it_back() -> None:
    async def story(world: World) -> None:
        before = answered(world)
        world.witness.lose_answer = lambda host: host == "beta"
        moving = await cut_off(world)
        world.kill_agent(world.hosts["beta"])
        world.witness.lose_answer = lambda _: False
        with pytest.raises(SwitchoverInDoubt):
            await moving
        await until(world, lambda: world.hosts["alpha"].disk.guests[GUEST].role == "stood-down", 20)
        world.kill_agent(world.hosts["alpha"])
        world.start_agent(world.hosts["alpha"])
        await asyncio.sleep(20)
        assert down_on_alpha(world), "nobody knows yet what beta will do"
        world.start_agent(world.hosts["beta"])
        await until(world, lambda: [inc.number for inc in world.running()] == [0], 20)
        assert not down_on_alpha(world)
        world.links.heal(set(BOTH))
        await same_guest_goes_on(world, before)

    play(story)


def test_a_primary_in_doubt_keeps_its_guest_down_until_the_owner_opens_a_session() -> None:
    async def story(world: World) -> None:
        moving = await cut_off(world)
        await until(world, lambda: any(inc.host == "beta" for inc in world.running()), 10)
        await asyncio.gather(moving, return_exceptions=True)
        await until(world, lambda: world.hosts["alpha"].disk.guests[GUEST].role == "stood-down", 20)
        await asyncio.sleep(20)
        assert down_on_alpha(world)
        assert await status(world, "alpha") == "stood-down"
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 20)
        assert not down_on_alpha(world)
        assert [inc.host for inc in world.running()] == ["beta"]

    play(story)


def test_an_owner_that_has_run_it_and_forgets_everything_says_neither_yes_nor_no() -> None:
    async def story(world: World) -> None:
        await cut_off(world)
        await until(world, lambda: any(inc.host == "beta" for inc in world.running()), 10)
        world.power_off(world.hosts["beta"])
        world.hosts["beta"].disk.guests.clear()
        world.power_on(world.hosts["beta"])
        world.witness.cut.add("alpha")
        world.links.heal(set(BOTH))
        await asyncio.sleep(30)
        assert down_on_alpha(world)
        assert await status(world, "alpha") == "in-doubt"
        shown = await ask(world, "alpha", lambda agent: agent.status(GUEST))
        assert "the witness's record says" in shown.reason

    play(story)
