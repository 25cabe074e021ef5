"""Single stories of authority in the simulated world: what happens after one fault, step by step."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from msgspec import UNSET

from remus_agent.adapters.sim.disk import SimVolume
from remus_agent.adapters.sim.net import SimConnection
from remus_agent.errors import AlreadyProtected, AuthorityError, PeerError, RemusError
from remus_agent.machines.authority import Ownership
from remus_agent.services import ownership
from remus_agent.services.agent import AgentService
from tests.model.pair import quiet
from tests.model.scheduler import Scheduler, run_scheduled
from tests.model.violated import Violated
from tests.model.world import GUEST, TIMES, UUID, World

BOTH = {(path, host) for path in ("channel", "second") for host in ("alpha", "beta")}


def override(agent: Any) -> Any:
    """An operator's failover with everything that it takes where the witness gives no word."""
    return agent.failover(GUEST, generation=None, session=None, fenced=FENCED, accept_loss=True)


FENCED = {"host": "alpha", "method": "power", "evidence": "the socket is switched off"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def play(
    story: Callable[[World], Awaitable[None]],
    *,
    automatic_reprotect: bool = True,
    watchdog_seconds: int = 0,
    disk: SimVolume | None = None,
) -> None:
    """A story in a world whose guest is protected, with this disk; every guarantee is checked beside it."""
    rng = random.Random(7)
    Violated.noted.clear()

    async def main(loop: Scheduler) -> None:
        world = World(loop, rng, (1.0, 1.0), disks=() if disk is None else (disk.facts.vdev,))
        world.automatic_reprotect = automatic_reprotect
        world.watchdog_seconds = watchdog_seconds
        if disk is not None:
            world.platters.put(world.hosts["alpha"], disk)

        async def work() -> None:
            while True:
                await asyncio.sleep(0.3)
                world.tick()

        working = loop.create_task(work())
        await world.begin()
        await until(world, lambda: standing(world)[:3] == ("alpha", 2, "protected"), 5)
        await story(world)
        if working.done():
            working.result()

    run_scheduled(rng, main)
    assert not Violated.noted


async def until(world: World, condition: Callable[[], bool], seconds: float) -> None:
    """Poll on virtual time."""
    end = world.loop.time() + seconds
    while not condition():
        assert world.loop.time() < end, f"never happened; the record is {world.owner}"
        await asyncio.sleep(0.1)


def standing(world: World) -> tuple[str, int, str, str | None]:
    """The record."""
    now = world.owner
    assert now is not None
    return now.owner, now.generation, now.state, now.backup


def stale(world: World) -> list[Any]:
    """What is left on alpha of a guest that it has given up."""
    return [guest for guest in world.hosts["alpha"].xen.guests.values() if not guest.paused_copy]


def answered(world: World) -> int:
    """The newest frame that clients have of the guest that runs."""
    (inc,) = world.running()
    return inc.seen


def agent_of(world: World, host: str) -> AgentService:
    """The one that runs there."""
    agent = world.hosts[host].agent
    assert agent is not None
    return agent


async def ask(world: World, host: str, what: Callable[[Any], Any]) -> Any:
    """Ask an agent, as its operator does."""
    return await world.hosts[host].node.spawn(what(agent_of(world, host)))


async def status(world: World, host: str) -> str:
    """The state of the guest's protection there."""
    shown = await ask(world, host, lambda agent: agent.status(GUEST))
    return str(shown.state)


def protect(agent: Any, to: str = "alpha", *, wait: bool = True, timeout: float = 30) -> Any:
    """What `remusctl protect` asks for."""
    return agent.protect(
        GUEST,
        to,
        interval_ms=700,
        output_limit_bytes=1 << 20,
        wait=wait,
        timeout=timeout,
        progress=lambda *_, **__: None,
    )


def test_a_backup_takes_over_by_itself_and_protects_again_when_the_other_returns() -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: standing(world) == ("beta", 3, "solo", None), 6)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 2)
        assert await status(world, "beta") == "solo"
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 10)
        assert await status(world, "beta") == "protected"

    play(story)


def test_a_takeover_does_not_wait_for_the_dead_primary_to_take_the_end_of_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lingers(_: SimConnection) -> None:
        await asyncio.sleep(3600)

    async def story(world: World) -> None:
        monkeypatch.setattr(SimConnection, "close", lingers)
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 8)

    monkeypatch.setitem(TIMES, "silence", 60.0)  # so that its session has not ended by itself before
    play(story)


def test_what_was_wanted_for_a_guest_goes_with_it_and_back() -> None:
    """Its interval and the limit of its output, which are not the usual ones of either host."""

    async def story(world: World) -> None:
        wanted = (700, 1 << 20)

        async def goes(old: str, new: str, generation: int) -> None:
            world.power_off(world.hosts[old])
            await until(world, lambda: [inc.host for inc in world.running()] == [new], 8)
            world.power_on(world.hosts[old])
            await until(world, lambda: standing(world) == (new, generation, "protected", old), 15)
            record = world.hosts[new].disk.guests[GUEST]
            assert (record.interval_ms, record.output_limit_bytes) == wanted

        await goes("alpha", "beta", 4)
        await goes("beta", "alpha", 6)

    play(story)


def test_what_is_usual_is_left_to_whoever_takes_it_over() -> None:
    """So that an agent of a release that does not know the fields is not refused for them."""

    async def story(world: World) -> None:
        (copy,) = agent_of(world, "beta").backup.copies_of(GUEST)
        assert (copy.hello.interval_ms, copy.hello.output_limit_bytes) == (700, 1 << 20)
        await ask(world, "alpha", lambda agent: agent.unprotect(GUEST, force=True, timeout=5, progress=quiet))
        usual = agent_of(world, "alpha").settings
        how = {"interval_ms": usual.interval_ms, "output_limit_bytes": usual.output_limit_bytes}
        await ask(
            world, "alpha", lambda agent: agent.protect(GUEST, "beta", **how, wait=True, timeout=30, progress=quiet)
        )
        (copy,) = agent_of(world, "beta").backup.copies_of(GUEST)
        assert (copy.hello.interval_ms, copy.hello.output_limit_bytes) == (UNSET, UNSET)

    play(story)


def test_events_tell_where_the_time_of_a_takeover_went() -> None:
    phases = ["suspect", "taking", "ownership", "activating", "active", "announced"]

    async def story(world: World) -> None:
        events = world.hosts["beta"].events
        seen = len(events.noted)
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: (GUEST, "announced") in events.noted[seen:], 10)
        assert [event for domain, event in events.noted[seen:] if domain == GUEST and event in phases] == phases

    play(story)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
def test_a_takeover_does_not_wait_for_a_tick(part: float) -> None:
    """A tenth of the time of detection, and clients wait for it. part: of one, after which the host dies."""

    async def story(world: World) -> None:
        await asyncio.sleep(part * TIMES["detect"] / 10)
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 8)
        (silent,) = (
            detail["silent_for"] for kind, detail in world.hosts["beta"].events.details(GUEST) if kind == "suspect"
        )
        assert isinstance(silent, float)
        assert TIMES["detect"] <= silent < TIMES["detect"] + 0.02

    play(story)


def test_the_witness_is_made_ready_while_there_is_still_hope() -> None:
    """What that takes is not added to the time for which clients wait; a primary that is heard costs the witness nothing."""

    async def story(world: World) -> None:
        witness, events = world.witness, world.hosts["beta"].events
        await asyncio.sleep(3 * TIMES["detect"])
        assert not witness.expected
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: bool(witness.expected), TIMES["detect"])
        assert set(witness.expected) == {"beta"}
        assert "suspect" not in {kind for kind, _ in events.details(GUEST)}
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 8)
        asked = len(witness.expected)
        await asyncio.sleep(TIMES["detect"])
        assert len(witness.expected) == asked

    play(story)


def test_protection_again_can_be_left_to_an_operator() -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 8)
        with pytest.raises(PeerError):
            await ask(world, "beta", protect)
        assert await status(world, "beta") == "solo"
        world.power_on(world.hosts["alpha"])
        await asyncio.sleep(20)
        assert standing(world) == ("beta", 3, "solo", None)
        assert (await ask(world, "beta", lambda agent: agent.probe(GUEST, "alpha")))["ok"]
        shown = await ask(world, "beta", protect)
        assert shown.state == "protected"
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 5)

    play(story, automatic_reprotect=False)


def test_a_guest_that_runs_alone_is_not_protected_by_somebody_else() -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 8)
        world.hosts["beta"].agent.peers["gamma"] = "gamma/channel"  # type: ignore[union-attr]
        with pytest.raises(AlreadyProtected, match="runs on alone; its backup is alpha"):
            await ask(world, "beta", lambda agent: protect(agent, "gamma", wait=False))

    play(story)


def test_a_primary_runs_on_alone_and_is_protected_again_when_the_link_heals() -> None:
    async def story(world: World) -> None:
        directions = {("channel", "alpha"), ("channel", "beta")}
        world.links.cut |= directions
        before = answered(world)
        await until(world, lambda: standing(world) == ("alpha", 3, "solo", None), 25)
        await until(world, lambda: answered(world) > before + 5, 5)
        world.links.heal(directions)
        await until(world, lambda: standing(world) == ("alpha", 4, "protected", "beta"), 15)

    play(story)


def test_a_guest_that_runs_alone_for_long_leaves_a_handful_of_events() -> None:
    async def story(world: World) -> None:
        directions = {("channel", "alpha"), ("channel", "beta")}
        world.links.cut |= directions
        await until(world, lambda: standing(world) == ("alpha", 3, "solo", None), 25)
        before = len(world.hosts["alpha"].events.details(GUEST))
        await asyncio.sleep(200)
        kinds = [kind for kind, _ in world.hosts["alpha"].events.details(GUEST)[before:]]
        assert {"seeking", "solo"} <= set(kinds)
        assert len(kinds) < 8
        world.links.heal(directions)
        await until(world, lambda: standing(world) == ("alpha", 4, "protected", "beta"), 15)
        attempts = [detail.get("attempts") for kind, detail in world.hosts["alpha"].events.details(GUEST)[before:]]
        assert any(count is not None and int(str(count)) > 50 for count in attempts)

    play(story)


def test_of_two_that_cannot_hear_each_other_one_wins_and_the_other_stands_down() -> None:
    async def story(world: World) -> None:
        world.links.cut |= BOTH
        await until(world, lambda: standing(world)[0] == "beta", 10)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 20)
        assert await status(world, "alpha") in ("standing-down", "stood-down")
        assert GUEST in world.hosts["alpha"].xen.guests, "it may be the only image that there is"
        assert not (await world.hosts["alpha"].outputs.by_name[GUEST].state()).held_packets, (
            "what it had sent is dropped"
        )
        world.links.heal(set(BOTH))
        await until(world, lambda: not stale(world), 10)
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 15)

    play(story)


def test_without_the_witness_nobody_changes_roles() -> None:
    async def story(world: World) -> None:
        world.witness.down = True
        world.links.cut |= BOTH
        await asyncio.sleep(30)
        assert standing(world) == ("alpha", 2, "protected", "beta")
        assert await status(world, "alpha") == "silent"
        assert await status(world, "beta") == "orphaned"
        world.links.heal(set(BOTH))
        before = answered(world)
        await until(world, lambda: answered(world) > before, 15)

    play(story)


def test_that_the_backup_is_not_confirmed_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for every few seconds, for as long as the witness is away."""
    warned: list[str] = []
    monkeypatch.setattr(ownership.log, "warning", lambda text, *parts: warned.append(text % parts))

    def unconfirmed() -> list[str]:
        return [text for text in warned if "cannot take over by itself yet" in text]

    async def story(world: World) -> None:
        world.witness.down = True
        world.links.cut |= BOTH
        await asyncio.sleep(30)
        world.links.heal(set(BOTH))
        await until(world, lambda: bool(unconfirmed()), 15)
        await asyncio.sleep(60)
        shown = await ask(world, "alpha", lambda agent: agent.status(GUEST))
        assert shown.state == "protected"
        assert "cannot take over by itself yet" in shown.reason
        world.witness.down = False

    play(story)
    assert len(unconfirmed()) == 1


def test_the_loss_of_the_second_path_alone_changes_nothing() -> None:
    async def story(world: World) -> None:
        world.links.cut |= {("second", "alpha"), ("second", "beta")}
        before = answered(world)
        await asyncio.sleep(15)
        assert standing(world) == ("alpha", 2, "protected", "beta")
        assert answered(world) > before + 30

    play(story)


def test_an_unprotected_guest_stands_as_solo_in_the_record_also_without_its_backup() -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["beta"])
        await asyncio.sleep(6)
        await ask(
            world,
            "alpha",
            lambda agent: agent.unprotect(GUEST, force=False, timeout=20, progress=lambda *_, **__: None),
        )
        assert standing(world) == ("alpha", 3, "solo", None)
        assert await status(world, "alpha") == "unprotected"

    play(story)


def test_an_operator_needs_no_proof_where_the_witness_answers() -> None:
    async def story(world: World) -> None:
        world.links.cut |= {("channel", "alpha"), ("channel", "beta")}
        failover = lambda agent: agent.failover(GUEST, generation=2, session=None, fenced={})  # noqa: E731
        await ask(world, "beta", failover)
        assert standing(world) == ("beta", 3, "solo", None)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 15)

    play(story)


def test_an_operators_proof_counts_where_the_witness_is_silent_until_it_agrees() -> None:
    async def story(world: World) -> None:
        world.witness.down = True
        world.power_off(world.hosts["alpha"])
        with pytest.raises(AuthorityError, match="the witness cannot be asked"):
            await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=None, session=None, fenced={}))
        with pytest.raises(AuthorityError, match="the witness cannot be asked") as caught:
            await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=None, session=None, fenced=FENCED))
        assert "accept" in (caught.value.hint or ""), "a proof does not make a copy new"
        # The override is the one way to two owners, if the proof is wrong; here it is right.
        world.overriding = "beta"
        shown = await ask(world, "beta", override)
        world.overriding = None
        assert shown.state == "active"
        assert "operator's word" in shown.reason
        world.witness.down = False
        await until(world, lambda: world.owner is not None and standing(world)[:3] == ("beta", 3, "solo"), 15)
        await asyncio.sleep(1)  # the answer is on its way
        assert await status(world, "beta") == "solo"

    play(story)


def test_a_record_of_another_owner_refuses_a_protection() -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 10)
        alpha = world.hosts["alpha"]
        world.links.cut |= BOTH
        world.power_on(alpha)
        await until(world, lambda: GUEST not in alpha.disk.guests, 5)
        alpha.xen.create(GUEST, UUID, 4)
        alpha.xen.guests[GUEST].running = False
        with pytest.raises(RemusError, match="beta owns it"):
            await ask(world, "alpha", lambda agent: protect(agent, "beta", timeout=5))

    play(story)


def test_the_record_is_what_people_read() -> None:
    async def story(world: World) -> None:
        assert isinstance(world.owner, Ownership)
        assert (world.owner.name, world.owner.changed_by) == (GUEST, "alpha")

    play(story)
