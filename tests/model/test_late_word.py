"""A word that a host may run a guest is of the moment at which it is given: who was frozen since does not act on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from remus_agent.adapters.sim.hypervisor import SimTarget
from remus_agent.errors import AuthorityError, HypervisorError, SwitchoverError
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.machines.authority import Ownership
from tests.model.loop import VirtualLoop, run
from tests.model.pair import DEAD, Pair, on
from tests.model.test_authority import ask, override, play, status, until
from tests.model.test_switchover import goes_on, switch, working
from tests.model.world import GUEST, TIMES, UUID, World

FROZEN = 60.0
"""Seconds: enough for somebody to switch the other host on again."""


def while_building(monkeypatch: pytest.MonkeyPatch, what: Callable[[], Awaitable[None]]) -> None:
    build = SimTarget.build

    async def slow(self: SimTarget, *args: Any) -> None:
        await build(self, *args)
        await what()

    monkeypatch.setattr(SimTarget, "build", slow)


async def freeze() -> None:
    """Both hosts: nothing runs for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._virtual.skipped += FROZEN


def failover_of_a_frozen_host(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """A host that is frozen while it builds the copy; the pair afterwards."""
    while_building(monkeypatch, freeze)
    pairs: list[Pair] = []

    async def story() -> None:
        pair = Pair()
        pairs.append(pair)
        await pair.protect()
        await pair.orphan()
        with pytest.raises(AuthorityError, match="frozen meanwhile"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert (await on(pair.beta).status("web1")).state == "orphaned"
        assert "web1" not in pair.beta.disk.guests, "the next agent must not finish it either"

    run(story())
    return pairs[0]


def test_a_failover_is_not_carried_out_late(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = failover_of_a_frozen_host(monkeypatch)
    assert all(guest.paused_copy for guest in pair.beta.xen.guests.values())


def test_its_fault_runs_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.WORD_NEVER_OLD.value)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        failover_of_a_frozen_host(monkeypatch)


def test_it_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = [None]

    async def once() -> None:
        if frozen:
            frozen.pop()
            await freeze()

    while_building(monkeypatch, once)

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()
        failover = partial(on(pair.beta).failover, "web1", generation=None, session=None, fenced=DEAD)
        with pytest.raises(AuthorityError, match="look again"):
            await failover()
        assert (await failover()).state == "active"

    run(story())


def test_an_override_is_not_carried_out_late(monkeypatch: pytest.MonkeyPatch) -> None:
    building = asyncio.Event()

    async def built() -> None:
        building.set()
        await asyncio.sleep(0.5)

    while_building(monkeypatch, built)

    async def story(world: World) -> None:
        beta = world.hosts["beta"]
        world.power_off(world.hosts["alpha"])
        world.witness.down = True
        asking = asyncio.ensure_future(ask(world, "beta", override))
        await until(world, building.is_set, 20)
        beta.node.stopped = True
        await asyncio.sleep(TIMES["detect"] + 1)
        beta.node.stopped = False
        with pytest.raises(AuthorityError, match="frozen meanwhile"):
            await asking
        assert not world.running()
        assert await status(world, "beta") == "orphaned"

    play(story)


async def frozen_while_building(
    world: World, monkeypatch: pytest.MonkeyPatch, ask_first: bool
) -> asyncio.Future[Any] | None:
    """alpha is off, and beta frozen in the middle of building its copy, for longer than that may take. What an operator has
    asked for by override, if he has."""
    building = asyncio.Event()

    async def built() -> None:
        building.set()
        await asyncio.sleep(0.5)

    while_building(monkeypatch, built)
    beta = world.hosts["beta"]
    world.witness.down = ask_first
    world.power_off(world.hosts["alpha"])
    asking = asyncio.ensure_future(ask(world, "beta", override)) if ask_first else None
    await until(world, building.is_set, 20)
    beta.node.stopped = True
    await asyncio.sleep(TIMES["activate"] + 2)
    return asking


def test_a_copy_that_was_frozen_while_it_was_built_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        asking = await frozen_while_building(world, monkeypatch, ask_first=True)
        assert asking is not None
        world.hosts["beta"].node.stopped = False
        with pytest.raises(AuthorityError, match=r"frozen meanwhile, or too busy, for \d+ s") as caught:
            await asking
        assert "see what loads this host" in (caught.value.hint or "")
        assert await status(world, "beta") == "orphaned"
        world.overriding = "beta"
        await ask(world, "beta", override)
        assert [inc.host for inc in world.running()] == ["beta"]

    play(story)


def test_the_owner_by_the_record_runs_it_when_it_is_awake_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is the only image of the guest, and nobody else may run it."""

    async def story(world: World) -> None:
        await frozen_while_building(world, monkeypatch, ask_first=False)
        world.hosts["beta"].node.stopped = False
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 3)

    play(story)


def test_it_does_not_where_the_record_was_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await frozen_while_building(world, monkeypatch, ask_first=False)
        by_hand = Ownership("alpha", 4, "solo", None, GUEST, "an operator wants it there", "somebody")
        world.witness.write(UUID, by_hand)
        world.hosts["beta"].node.stopped = False
        await asyncio.sleep(20)
        assert not world.running()
        assert await status(world, "beta") == "stale"

    play(story)


def test_with_the_witness_away_it_waits_for_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await frozen_while_building(world, monkeypatch, ask_first=False)
        world.witness.down = True
        world.hosts["beta"].node.stopped = False
        await asyncio.sleep(20)
        assert not world.running()
        assert await status(world, "beta") == "orphaned"
        world.witness.down = False
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 60)

    play(story)


def test_a_toolstack_that_hangs_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    while_building(monkeypatch, hangs)

    async def story() -> None:
        pair = Pair(activate=7.0)
        await pair.protect()
        await pair.orphan()
        began = asyncio.get_running_loop().time()
        with pytest.raises(HypervisorError, match="did not finish the domain within 7 s"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert 7 <= asyncio.get_running_loop().time() - began < 25
        assert (await on(pair.beta).status("web1")).state == "discarded"

    run(story())


def test_a_hand_over_without_a_witness_is_declined_late(monkeypatch: pytest.MonkeyPatch) -> None:
    while_building(monkeypatch, freeze)

    async def story() -> None:
        pair, service, living = await working()
        with pytest.raises(SwitchoverError):
            await switch(pair.alpha)
        await goes_on(service, pair.alpha)
        living.cancel()

    run(story())
