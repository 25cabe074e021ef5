"""A trial of a failover says what a failover would, and changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remus_agent.errors import AuthorityError, DomainNotFound
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, until
from tests.model.test_authority import ask, play, standing
from tests.model.test_authority import until as world_until
from tests.model.world import GUEST, World

NO_PROOF: dict[str, str] = {}


async def trial(pair: Pair, fenced: dict[str, str] = DEAD, **more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"generation": None, "session": None, "accept_loss": False} | more
    return await on(pair.beta).failover_trial("web1", fenced=fenced, **options)


def test_without_a_witness() -> None:
    async def story() -> None:
        pair = Pair()
        with pytest.raises(DomainNotFound):
            await trial(pair)
        await pair.protect()
        with pytest.raises(AuthorityError, match="no proof that the primary is dead"):
            await trial(pair, NO_PROOF)
        with pytest.raises(AuthorityError):
            await trial(pair)  # the primary talks
        await pair.kill_host()
        await until(lambda: on(pair.beta).backup.copy_of("web1").state.value == "orphaned", "orphaned")  # type: ignore[union-attr]
        with pytest.raises(AuthorityError, match="not the expected one"):
            await trial(pair, generation=7)
        found = await trial(pair)
        assert (found["by"], found["from"], found["changed"]) == (
            "an operator's proof that alpha is off",
            "alpha",
            False,
        )
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        assert copy.state.value == "orphaned"
        assert found["committed_epoch"] == copy.committed_epoch
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert "runs here already" in (await trial(pair))["by"]

    run(story())


def test_a_session_that_is_silent_for_a_while_is_not_ended_by_it() -> None:
    async def story() -> None:
        pair = Pair(silence=60, ack=60)
        before = await pair.protect()
        pair.network.cut()
        await asyncio.sleep(8)
        await trial(pair)
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        assert copy.state.value == "ready"
        pair.network.heal()
        await asyncio.sleep(5)
        assert (await on(pair.alpha).status("web1")).session == before.session

    run(story())


def test_with_a_witness_its_word_counts() -> None:
    async def world_trial(world: World, **more: Any) -> Any:
        options: dict[str, Any] = {"generation": None, "session": None, "fenced": NO_PROOF, "accept_loss": False} | more
        return await ask(world, "beta", lambda agent: agent.failover_trial(GUEST, **options))

    async def story(world: World) -> None:
        world.witness.cut.add("beta")
        world.power_off(world.hosts["alpha"])
        await asyncio.sleep(8)
        with pytest.raises(AuthorityError, match="the witness cannot be asked"):
            await world_trial(world)
        found = await world_trial(world, fenced=DEAD, accept_loss=True)
        assert "an operator's override, recorded as a possible loss" in found["by"]
        assert standing(world)[0] == "alpha"
        await world_until(world, lambda: world.running() == [], 1)

    play(story)
