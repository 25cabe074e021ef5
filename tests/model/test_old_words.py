"""An agent that finds a guest built here to run by an operator's word that is too old by now: it stands there, paused, and he
looks again. With a witness and without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from remus_agent.errors import AuthorityError, DomainNotFound, JournalError, RefusedError
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.services.sweep import TOOLSTACK_SECONDS
from remus_agent.store_ports import LoadedGuests
from tests.model.deaths import ABOUT_TO_RUN, Arm
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, quiet
from tests.model.pair import until as reached
from tests.model.test_authority import ask, override, play, standing, status, until
from tests.model.test_killed_new_owner import events, lost_overriding, parametrized, served_by
from tests.model.test_unfinished import ABOUT_TO_RUN as STOPS
from tests.model.world import GUEST, TIMES, World

LATE = TIMES["detect"] + 2


async def found_late(world: World, arm: Arm, patch: pytest.MonkeyPatch) -> None:
    """beta's agent dies in an override; the next one comes when nobody knows any more how long beta was away."""
    await lost_overriding(world, arm, patch)
    world.overriding = None
    await asyncio.sleep(LATE)
    world.start_agent(world.hosts["beta"])
    await asyncio.sleep(2)


async def waits(world: World) -> None:
    """It stands on beta and does not run, and beta says why and what to do."""
    assert not world.running()
    shown = await ask(world, "beta", lambda agent: agent.status(GUEST))
    assert (shown.state, shown.role, shown.peer) == ("starting", "primary", "alpha")
    assert "too old" in shown.reason
    assert "remusctl failover web1 --fenced-host alpha" in shown.reason
    assert [each.domain for each in await ask(world, "beta", lambda agent: agent.overview())] == [GUEST]
    assert "start-unfinished" in events(world, "beta")


def unprotect(agent: Any, *, force: bool = True) -> Any:
    return agent.unprotect(GUEST, force=force, timeout=5, progress=quiet)


@parametrized(ABOUT_TO_RUN)
def test_it_waits_and_runs_when_the_operator_has_looked_again(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await found_late(world, arm, monkeypatch)
        await waits(world)
        trial = await ask(
            world,
            "beta",
            lambda agent: agent.failover_trial(GUEST, generation=None, session=None, fenced=DEAD, accept_loss=True),
        )
        assert "given again" in trial["by"]
        assert not world.running()
        shown = await ask(world, "beta", override)
        assert (shown.role, "operator's word" in (shown.reason or "")) == ("none", True)
        await served_by(world, "beta")
        record = world.hosts["beta"].disk.guests[GUEST]
        assert (record.starting, record.until) == ("", 0.0)
        assert record.override
        world.witness.down = False
        await until(world, lambda: standing(world)[:3] == ("beta", 3, "solo"), 10)
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world)[2:] == ("protected", "alpha"), 20)

    play(story)


def test_its_fault_runs_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await found_late(world, ABOUT_TO_RUN["before it is unpaused"], monkeypatch)
        assert [inc.host for inc in world.running()] == ["beta"]

    monkeypatch.setenv(VARIABLE, FaultName.WORD_NEVER_OLD.value)
    play(story)


def test_what_speaks_against_it_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await found_late(world, ABOUT_TO_RUN["before it is unpaused"], monkeypatch)

        async def refused(why: str, **more: Any) -> None:
            given = {"generation": None, "session": None, "fenced": DEAD, "accept_loss": True, **more}
            with pytest.raises(AuthorityError, match=why):
                await ask(world, "beta", lambda agent: agent.failover(GUEST, **given))

        await refused("no proof", fenced={})
        await refused("gamma was fenced", fenced={**DEAD, "host": "gamma"})
        await refused("whatever the witness says", accept_loss=False)
        await refused("its generation is", generation=9)
        await refused("session", session="7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00ff")
        world.power_on(world.hosts["alpha"])
        await asyncio.sleep(5)
        with pytest.raises(AuthorityError, match="alpha is on"):
            await ask(world, "beta", override)
        await waits(world)

    play(story)


def test_nothing_else_is_done_with_it_and_it_can_be_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await found_late(world, ABOUT_TO_RUN["before it has its name"], monkeypatch)
        await asyncio.sleep(TOOLSTACK_SECONDS + 2)
        await waits(world)
        with pytest.raises(RefusedError, match="never run"):
            await ask(
                world,
                "beta",
                lambda agent: agent.protect(
                    GUEST, "alpha", interval_ms=0, output_limit_bytes=1 << 20, wait=False, timeout=5, progress=quiet
                ),
            )
        with pytest.raises(RefusedError, match="never run"):
            await ask(world, "beta", lambda agent: unprotect(agent, force=False))
        with pytest.raises(RefusedError, match="never run"):
            await ask(world, "beta", lambda agent: agent.require_unprotect(GUEST, force=False))
        found = await ask(world, "beta", lambda agent: agent.require_unprotect(GUEST, force=True))
        assert found.state == "starting"
        assert (await ask(world, "beta", unprotect)).state == "unprotected"
        beta = world.hosts["beta"]
        assert (beta.xen.guests, beta.disk.guests) == ({}, {})
        with pytest.raises(DomainNotFound):
            await status(world, "beta")

    play(story)


def test_one_that_cannot_be_started_or_was_destroyed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await found_late(world, ABOUT_TO_RUN["before it is unpaused"], monkeypatch)
        beta = world.hosts["beta"]
        beta.xen.stuck.add(GUEST)
        with pytest.raises(Exception, match="cannot be unpaused"):
            await ask(world, "beta", override)
        assert await status(world, "beta") == "starting"
        await beta.xen.destroy(GUEST)
        assert await ask(world, "beta", lambda agent: agent.overview()) == []
        with pytest.raises(DomainNotFound):
            await ask(world, "beta", override)
        assert "guest-gone" in events(world, "beta")

    play(story)


@asynccontextmanager
async def found_late_without_a_witness(
    patch: pytest.MonkeyPatch, stop: str, seconds: float, *, until: float | None = None, damaged: bool = False
) -> AsyncIterator[Pair]:
    """The same of a pair without a witness; the next agent of beta has started after so many seconds. until: what its record
    says of that, if not what was noted. damaged: the record can't be read any more."""
    pair = Pair()
    await pair.protect()
    await pair.orphan()
    there: list[str] = []
    STOPS[stop](pair.beta, patch, there)
    asking = asyncio.create_task(on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD))
    await reached(lambda: bool(there), "the point at which it dies")
    await pair.crash_backup()
    patch.undo()
    await asyncio.sleep(seconds)
    disk = pair.beta.disk
    if until is not None:
        disk.guests["web1"] = replace(disk.guests["web1"], until=until)
    if damaged:
        patch.setattr(disk, "load_all", unread)
    await pair.boot(pair.beta).resume()
    yield pair
    asking.cancel()


async def unread() -> LoadedGuests:
    return LoadedGuests((), (JournalError("web1.json is damaged", domain="web1"),))


@pytest.mark.parametrize("stop", STOPS)
def test_also_without_a_witness(stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with found_late_without_a_witness(monkeypatch, stop, 11.0) as pair:
            assert not pair.beta.xen.guests["web1"].running
            shown = await on(pair.beta).status("web1")
            assert (shown.state, "--accept-loss" in (shown.reason or "")) == ("starting", False)
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
            assert [guest.running for guest in pair.beta.xen.guests.values()] == [True]
            record = pair.beta.disk.guests["web1"]
            assert (record.role, record.starting, record.until, record.override) == ("active", "", 0.0, "")

    run(story())


@pytest.mark.parametrize("until", [0.0, 1e6], ids=["an older release", "an earlier boot"])
def test_a_note_that_does_not_say_how_old_it_is_counts_as_old(until: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with found_late_without_a_witness(monkeypatch, "named", 0.0, until=until) as pair:
            assert not pair.beta.xen.guests["web1"].running
            assert (await on(pair.beta).status("web1")).state == "starting"

    run(story())


def test_what_is_built_is_kept_while_nobody_can_read_whether_it_was_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the release from before was put back, which does not know what a newer one has noted."""

    async def story() -> None:
        async with found_late_without_a_witness(monkeypatch, "noted", 0.0, damaged=True) as pair:
            (built,) = pair.beta.xen.guests
            await asyncio.sleep(TOOLSTACK_SECONDS + 5)
            assert list(pair.beta.xen.guests) == [built]
            assert ("web1", "record-damaged") in pair.beta.events.noted

    run(story())
