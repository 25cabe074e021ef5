"""Fencing between the change of the record and the activation: awaited where it is required, beside it otherwise."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from remus_agent.errors import AuthorityError, ConfigError, FencingError
from remus_agent.faults import VARIABLE, FaultName
from tests.model.test_authority import BOTH, FENCED, ask, play, standing, status, until
from tests.model.world import GUEST, World

Story = Callable[[World], Awaitable[None]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def noted(world: World, event: str) -> int:
    """How often beta has noted an event."""
    return world.hosts["beta"].events.noted.count((GUEST, event))


def runs_on(world: World) -> list[str]:
    return [inc.host for inc in world.running()]


async def lose_alpha(world: World) -> None:
    """It dies, and beta becomes the owner."""
    world.power_off(world.hosts["alpha"])
    await until(world, lambda: standing(world) == ("beta", 3, "solo", None), 6)


async def required_and_failing(world: World) -> None:
    """Nothing is activated, for as long as it fails; it is tried again, less and less often."""
    world.fencing.must = {"alpha"}
    world.fencing.broken = True
    await lose_alpha(world)
    await until(world, lambda: noted(world, "fencing-failed") >= 1, 5)
    await asyncio.sleep(40)
    assert runs_on(world) == []
    times = [at for _, at in world.fencing.asked]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert 4 <= len(pauses) <= 8
    assert all(after > 1.5 * before for before, after in itertools.pairwise(pauses))
    shown = await ask(world, "beta", lambda agent: agent.status(GUEST))
    assert shown.state == "orphaned"
    assert "owned by this host, but alpha is not fenced after" in shown.reason
    assert "the fence agent of alpha does not answer" in shown.reason


async def _and_works_later(world: World) -> None:
    await required_and_failing(world)
    world.fencing.broken = False
    await until(world, lambda: runs_on(world) == ["beta"], 40)
    assert noted(world, "fenced") == 1
    assert await status(world, "beta") == "solo"


def test_required_and_failing_activates_nothing_until_it_works() -> None:
    play(_and_works_later)


def test_its_fault_activates_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.FENCE_NOT_AWAITED.value)
    with pytest.raises(AssertionError, match=r"assert \['beta'\] == \[\]"):
        play(required_and_failing)


def test_required_and_working_is_done_before_the_activation() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        world.fencing.seconds = 3.0
        await lose_alpha(world)
        await asyncio.sleep(2)
        assert runs_on(world) == []
        await until(world, lambda: runs_on(world) == ["beta"], 3)
        assert world.fencing.off == {"alpha"}
        assert noted(world, "fenced") == 1

    play(story)


def test_a_primary_that_lives_is_switched_off() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        world.fencing.switch = lambda host: world.power_off(world.hosts[host])
        world.links.cut |= BOTH
        await until(world, lambda: standing(world)[0] == "beta", 10)
        await until(world, lambda: not world.hosts["alpha"].up, 3)
        await until(world, lambda: runs_on(world) == ["beta"], 3)

    play(story)


@pytest.mark.parametrize("wrong", ["broken", "hangs", "ignored"])
def test_not_required_never_delays_the_activation(wrong: str) -> None:
    async def story(world: World) -> None:
        world.fencing.hosts = {"alpha"}
        setattr(world.fencing, wrong, True)
        world.fencing.timeout = 60.0
        await lose_alpha(world)
        await until(world, lambda: runs_on(world) == ["beta"], 1)
        assert world.fencing.asked
        await until(world, lambda: noted(world, "fencing-failed") == 1, 130)
        assert noted(world, "fenced") == 0
        assert await status(world, "beta") == "solo"

    play(story)


def test_a_defect_beside_the_activation_is_said_as_well() -> None:
    async def story(world: World) -> None:
        world.fencing.hosts = {"alpha"}

        async def fails(host: str) -> None:
            raise RuntimeError("a defect")

        world.fencing.fence = fails  # type: ignore[method-assign, assignment]
        await lose_alpha(world)
        await until(world, lambda: noted(world, "fencing-failed") == 1, 20)
        await until(world, lambda: runs_on(world) == ["beta"], 1)

    play(story)


@pytest.mark.parametrize("wrong", ["hangs", "ignored"])
def test_an_agent_that_hangs_or_lies_has_not_fenced(wrong: str) -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        setattr(world.fencing, wrong, True)
        await lose_alpha(world)
        await until(world, lambda: noted(world, "fencing-failed") == 2, 20)
        assert runs_on(world) == []
        assert noted(world, "fenced") == 0

    play(story)


def test_an_operators_proof_ends_the_waiting() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        world.fencing.hangs = True
        await lose_alpha(world)
        await until(world, lambda: noted(world, "fencing-failed") == 1, 20)
        with pytest.raises(AuthorityError, match="alpha has to be fenced before"):
            await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=2, session=None, fenced={}))
        with pytest.raises(AuthorityError, match="gamma was fenced, but the primary runs on alpha"):
            wrong = {**FENCED, "host": "gamma"}
            await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=2, session=None, fenced=wrong))
        assert runs_on(world) == []
        shown = await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=2, session=None, fenced=FENCED))
        assert (shown.role, shown.state) == ("primary", "solo")
        assert runs_on(world) == ["beta"]
        assert noted(world, "fenced") == 1
        failed = noted(world, "fencing-failed")
        await asyncio.sleep(30)
        assert noted(world, "fencing-failed") == failed, "it is not tried any more"

    play(story)


def test_an_operators_proof_from_the_start_asks_no_agent() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        world.fencing.broken = True
        world.power_off(world.hosts["alpha"])
        await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=2, session=None, fenced=FENCED))
        assert standing(world)[:2] == ("beta", 3)
        assert not world.fencing.asked

    play(story)


def test_a_proof_that_is_not_true_does_not_end_the_waiting() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        world.fencing.broken = True
        world.links.cut |= {("channel", "alpha"), ("channel", "beta")}
        await until(world, lambda: ("web1", "orphaned") in world.hosts["beta"].events.noted, 6)

        def word(fenced: dict[str, str]) -> Callable[[Any], Any]:
            return lambda agent: agent.failover(GUEST, generation=2, session=None, fenced=fenced)

        asking = asyncio.ensure_future(ask(world, "beta", word({})))
        await until(world, lambda: noted(world, "fencing-failed") >= 1, 10)
        with pytest.raises(AuthorityError, match="alpha is on"):
            await ask(world, "beta", word(FENCED))
        assert runs_on(world) == []
        world.power_off(world.hosts["alpha"])
        await ask(world, "beta", word(FENCED))
        await asking
        assert runs_on(world) == ["beta"]

    play(story)


def test_an_agent_that_stops_while_it_waits_activates_nothing() -> None:
    async def story(world: World) -> None:
        world.fencing.must = {"alpha"}
        world.fencing.hangs = True
        await lose_alpha(world)
        await until(world, lambda: noted(world, "fencing-failed") == 1, 20)
        await ask(world, "beta", lambda agent: agent.close())
        await asyncio.sleep(20)
        assert runs_on(world) == []
        assert not [guest for guest in world.hosts["beta"].xen.guests.values() if guest.paused_copy]

    play(story)


def test_a_check_asks_and_switches_nothing() -> None:
    async def story(world: World) -> None:
        check = lambda agent: agent.fence_check("alpha")  # noqa: E731
        with pytest.raises(ConfigError, match="no fence agent is configured for alpha"):
            await ask(world, "beta", check)
        world.fencing.must = {"alpha"}
        assert await ask(world, "beta", check) == {
            "host": "alpha",
            "agent": "fence_sim",
            "required": True,
            "power": "on",
            "unknown_options": [],
        }
        world.fencing.broken = True
        with pytest.raises(FencingError):
            await ask(world, "beta", check)
        with pytest.raises(ConfigError, match="no peer 'gamma'"):
            await ask(world, "beta", lambda agent: agent.fence_check("gamma"))
        assert not world.fencing.asked

    play(story)
