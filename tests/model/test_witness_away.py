"""The witness is away for ten minutes: longer than anything else waits, and normal running never needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from tests.model.test_authority import BOTH, answered, play, standing, status, until
from tests.model.world import GUEST, TIMES, World

AWAY = 600.0
"""Seconds."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def session(world: World) -> tuple[str | None, int]:
    """The session on alpha, and how many of its epochs are acknowledged."""
    agent = world.hosts["alpha"].agent
    assert agent is not None
    protection = agent._primaries[GUEST]
    return protection.session_id, protection.acked_epoch


def test_protection_goes_on_without_the_witness_for_ten_minutes() -> None:
    async def story(world: World) -> None:
        alpha, beta = world.hosts["alpha"], world.hosts["beta"]
        events = [len(host.events.noted) for host in (alpha, beta)]
        (before, epochs), seen = session(world), answered(world)
        world.witness.down = True
        for minute in range(1, 11):
            await asyncio.sleep(AWAY / 10)
            assert standing(world) == ("alpha", 2, "protected", "beta")
            assert await status(world, "alpha") == "protected"
            assert session(world)[0] == before
            assert session(world)[1] > epochs + 60 * minute, "an epoch takes less than a second"
            assert answered(world) > seen + 150 * minute, "output flows"
        assert [len(host.events.noted) for host in (alpha, beta)] == events, "nothing happened"
        assert [inc.host for inc in world.running()] == ["alpha"]
        world.witness.down = False
        await asyncio.sleep(30)
        assert session(world)[0] == before
        assert standing(world) == ("alpha", 2, "protected", "beta")
        assert [len(host.events.noted) for host in (alpha, beta)] == events

    play(story)


@pytest.mark.parametrize("seconds", [2.0, 0.0], ids=["silent", "refuses"])
def test_a_takeover_waits_for_the_witness_and_comes_as_soon_as_it_is_back(seconds: float) -> None:
    async def story(world: World) -> None:
        beta = world.hosts["beta"]
        world.witness.timeout = seconds
        world.witness.down = True
        world.power_off(world.hosts["alpha"])
        before = len(beta.events.noted)
        await asyncio.sleep(AWAY)
        assert world.running() == []
        assert standing(world) == ("alpha", 2, "protected", "beta")
        assert beta.events.noted.count((GUEST, "not-taken-over")) == 1
        assert len(beta.events.noted) < before + 10, "an event an attempt would push all others out of the ring"
        world.witness.down = False
        await until(world, lambda: standing(world) == ("beta", 3, "solo", None), TIMES["retry"] + 3.0)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 2)

    play(story)


def test_a_witness_that_is_full_keeps_no_living_primary_out() -> None:
    async def story(world: World) -> None:
        world.witness.full = True
        world.links.cut |= BOTH
        await until(world, lambda: (GUEST, "not-taken-over") in world.hosts["beta"].events.noted, 15)
        world.links.heal(set(BOTH))
        before = answered(world)
        await until(world, lambda: answered(world) > before + 5, 20)
        assert standing(world) == ("alpha", 2, "protected", "beta")

    play(story)


def test_a_primary_that_is_heard_again_is_left_alone_when_the_witness_is_back() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        world.witness.down = True
        alpha.node.stopped = True
        await until(world, lambda: (GUEST, "not-taken-over") in world.hosts["beta"].events.noted, 15)
        await asyncio.sleep(60)
        alpha.node.stopped = False
        await asyncio.sleep(10)
        world.witness.down = False
        await asyncio.sleep(30)
        assert standing(world)[0] == "alpha"
        assert [inc.host for inc in world.running()] == ["alpha"]
        seen = answered(world)
        await until(world, lambda: answered(world) > seen + 3, 5)

    play(story)
