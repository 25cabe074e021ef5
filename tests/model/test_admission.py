"""A backup whose agent has just started knows nothing of what it has done; the record does."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.faults import VARIABLE, FaultName
from tests.model.test_authority import play, stale, standing, until
from tests.model.violated import Violated
from tests.model.world import GUEST, World


async def _forgetful_owner(world: World) -> None:
    """beta takes over, answers clients, and goes down with the guest; it comes back while the witness can't be asked, and alpha,
    whose agent was dead all the time, looks for its backup."""
    alpha, beta = world.hosts["alpha"], world.hosts["beta"]
    world.kill_agent(alpha)
    await until(world, lambda: world.incarnations[-1].host == "beta", 20)
    told = world.incarnations[-1]
    before = told.seen
    await until(world, lambda: told.seen > before + 2, 20)
    world.witness.down = True
    world.power_off(beta)
    await asyncio.sleep(1)
    world.power_on(beta)
    world.start_agent(alpha)
    await asyncio.sleep(15)


def test_a_former_owner_that_forgot_lets_nothing_out_of_the_other_one() -> None:
    async def story(world: World) -> None:
        await _forgetful_owner(world)
        world.witness.down = False
        await until(world, lambda: bool(stale(world)) and not world.running(), 30)
        assert standing(world)[:3] == ("beta", 3, "solo")

    play(story)


def test_its_fault_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.SESSION_UNASKED.value)
    with pytest.raises((Violated, AssertionError)):
        play(_forgetful_owner)
    assert any("G3" in str(found) for found in Violated.noted)


def test_an_agent_that_has_read_nothing_lets_no_session_in() -> None:
    """The guest runs on, held; with the witness back it is protected again."""

    async def story(world: World) -> None:
        alpha, beta = world.hosts["alpha"], world.hosts["beta"]
        world.witness.down = True
        world.kill_agent(beta)
        world.start_agent(beta)
        await asyncio.sleep(6)
        assert alpha.agent is not None and beta.agent is not None
        assert beta.agent.backup.copy_of(GUEST) is None
        (running,) = world.running()
        seen = running.seen
        await asyncio.sleep(3)
        assert running.seen == seen, "output was let out without a copy"
        world.witness.down = False
        await until(world, lambda: running.seen > seen and standing(world)[2] == "protected", 30)

    play(story)


def test_an_agent_that_has_read_it_needs_the_witness_no_more() -> None:
    """A session that is lost is opened again without it."""

    async def story(world: World) -> None:
        world.witness.down = True
        both = {("channel", "alpha"), ("channel", "beta")}
        (running,) = world.running()
        world.links.cut |= both
        await asyncio.sleep(4.5)
        world.links.heal(both)
        seen = running.seen
        await until(world, lambda: running.seen > seen + 3, 20)

    play(story)
