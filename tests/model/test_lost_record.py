"""The witness loses its data while a guest is protected: what was decided before is known to nobody any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from remus_agent.errors import RefusedError
from remus_agent.machines.authority import Ownership
from tests.model.pair import quiet
from tests.model.test_authority import BOTH, answered, ask, play, protect, standing, status, until
from tests.model.world import GUEST, UUID, World

CHANNEL = {("channel", "alpha"), ("channel", "beta")}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def record(world: World) -> Ownership | None:
    """What stands in the witness; `world.owner` is who owned it last, also when that is lost."""
    found = world.witness.records.get(UUID)
    return None if found is None else found.ownership


def losses(world: World, host: str = "alpha") -> int:
    """How often it was said there."""
    return world.hosts[host].events.noted.count((GUEST, "record-lost"))


async def superseded(world: World) -> None:
    """alpha is cut off from everybody, beta has taken over and answers clients, and then the witness loses its data."""
    world.links.cut |= BOTH
    world.witness.cut.add("alpha")
    await until(world, lambda: standing(world) == ("beta", 3, "solo", None), 10)
    await until(world, lambda: world.incarnations[-1].host == "beta" and world._is_open("beta"), 5)
    told = world.incarnations[-1]
    await until(world, lambda: told.seen > 0, 5)


def test_a_superseded_primary_stays_silent_and_stands_down_when_the_owner_has_written_its_record_anew() -> None:
    async def story(world: World) -> None:
        await superseded(world)
        world.witness.cut = {"beta"}  # it comes to the empty witness last
        world.witness.lose_data()
        await asyncio.sleep(60)
        assert record(world) is None, "alpha has made itself the owner of a guest that runs on beta"
        assert await status(world, "alpha") in ("silent", "reconnecting")
        assert [inc.host for inc in world.running() if world._is_open(inc.host)] == ["beta"]
        assert losses(world) == 1, "said aloud, and once"
        world.witness.cut.clear()
        await until(world, lambda: (found := record(world)) is not None and found.owner == "beta", 15)
        found = record(world)
        assert found is not None and found.generation > 3, "no older copy is of its generation"
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 15)
        assert await status(world, "alpha") in ("standing-down", "stood-down")
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world)[2:] == ("protected", "alpha"), 30)

    play(story)


def test_a_session_that_the_backup_lets_in_has_the_record_written_anew() -> None:
    """Nobody has taken over: beta's agent was there all the time and knows it."""

    async def story(world: World) -> None:
        world.witness.lose_data()
        world.links.cut |= CHANNEL
        await asyncio.sleep(5)
        world.links.heal(set(CHANNEL))
        before = answered(world)
        await until(world, lambda: (found := record(world)) is not None and found.backup == "beta", 15)
        found = record(world)
        assert found is not None and (found.owner, found.generation) == ("alpha", 2), "of the session's own generation"
        await until(world, lambda: answered(world) > before + 5, 10)
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 10)

    play(story)


def test_a_backup_that_has_forgotten_too_lets_nobody_in_until_an_operator_has_looked() -> None:
    async def story(world: World) -> None:
        world.witness.lose_data()
        world.kill_agent(world.hosts["beta"])
        await asyncio.sleep(1)
        world.start_agent(world.hosts["beta"])
        await asyncio.sleep(40)
        assert record(world) is None
        assert await status(world, "alpha") in ("silent", "reconnecting")
        assert losses(world) == 1
        with pytest.raises(RefusedError):
            await ask(world, "alpha", lambda agent: agent.unprotect(GUEST, force=False, timeout=20, progress=quiet))
        world.owner = None  # the operator vouches that what it said is of no meaning any more
        await ask(world, "alpha", lambda agent: agent.unprotect(GUEST, force=True, timeout=20, progress=quiet))
        before = answered(world)
        await asyncio.sleep(2)
        assert answered(world) > before
        shown = await ask(world, "alpha", lambda agent: protect(agent, "beta"))
        assert shown.state == "protected"
        await until(world, lambda: standing(world)[2:] == ("protected", "beta"), 5)

    play(story)


def test_a_guest_that_never_ran_elsewhere_is_given_back_all_the_same() -> None:
    """alpha has stood down for beta, whose toolstack fails; the witness loses what it knew before beta has given it back."""

    async def story(world: World) -> None:
        alpha, beta = world.hosts["alpha"], world.hosts["beta"]
        beta.xen.toolstack_fails = True
        world.links.cut |= BOTH
        await until(world, lambda: standing(world)[0] == "beta", 10)
        while (GUEST, "ownership") not in beta.events.noted:  # noqa: ASYNC110 - beta knows it, and gives it back in no time
            await asyncio.sleep(0.001)
        world.witness.cut.add("beta")
        await until(world, lambda: (GUEST, "stood-down") in alpha.events.noted, 15)
        await asyncio.sleep(10)
        world.witness.lose_data()
        world.witness.cut.clear()
        before = world.incarnations[0].seen
        await until(world, lambda: standing(world)[0] == "alpha" and world.incarnations[0].seen > before + 3, 30)

    play(story)


def test_one_that_was_given_back_unheard_stays_paused_until_the_record_is_written_by_hand() -> None:
    async def story(world: World) -> None:
        alpha, beta = world.hosts["alpha"], world.hosts["beta"]
        beta.xen.toolstack_fails = True
        world.links.cut |= BOTH
        await until(world, lambda: (GUEST, "stood-down") in alpha.events.noted, 20)
        world.witness.cut.add("alpha")
        await until(world, lambda: standing(world)[:2] == ("alpha", 4), 20)
        world.witness.lose_data()
        world.witness.cut.clear()
        await asyncio.sleep(30)
        assert world.running() == []
        assert losses(world) == 1
        (reason,) = [str(detail["reason"]) for kind, detail in alpha.events.details(GUEST) if kind == "record-lost"]
        assert "do not destroy the guest" in reason
        seen = world.incarnations[0].seen
        world.witness.write(UUID, Ownership("alpha", 9, "solo", None, GUEST, "by hand", "beta"))
        await until(world, lambda: world.incarnations[0].seen > seen + 3, 20)

    play(story)


def test_a_protection_can_be_ended_in_order_and_begun_anew() -> None:
    async def story(world: World) -> None:
        world.witness.lose_data()
        world.owner = None  # what it said is of no meaning any more
        await ask(world, "alpha", lambda agent: agent.unprotect(GUEST, force=False, timeout=20, progress=quiet))
        assert await status(world, "alpha") == "unprotected"
        before = answered(world)
        await asyncio.sleep(1)
        assert answered(world) > before
        shown = await ask(world, "alpha", lambda agent: protect(agent, "beta"))
        assert shown.state == "protected"
        await until(world, lambda: standing(world)[2:] == ("protected", "beta"), 5)

    play(story)


def test_an_old_epoch_is_not_released_on_the_word_of_an_empty_witness() -> None:
    """alpha was frozen over the takeover, and its backup's acknowledgement waits for it."""

    async def story(world: World) -> None:
        await superseded(world)
        world.witness.lose_data()
        world.witness.cut = {"beta"}
        await asyncio.sleep(30)
        agent = world.hosts["alpha"].agent
        assert agent is not None
        rights = agent._primaries[GUEST].ownership
        with pytest.raises(Exception, match="the witness has lost its record"):
            await world.hosts["alpha"].node.spawn(rights.may_release(world.hosts["alpha"].clock.now() - 60, 2))

    play(story)
