"""`remusctl forget`: the record of a guest that is gone for good is removed, and of no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from remus_agent.errors import (
    AuthorityError,
    ConfigError,
    WitnessConflict,
    WitnessUnknown,
    WitnessUnreachable,
)
from remus_agent.machines.authority import Ownership
from remus_agent.services.requests import handlers
from tests.model.loop import run
from tests.model.pair import Pair, on
from tests.model.test_authority import BOTH, ask, play, standing, status, until
from tests.model.world import GUEST, UUID, World


@pytest.fixture(autouse=True)
def _nothing_else_is_said(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("CRITICAL"):
        yield


def quiet(*_: Any, **__: Any) -> None:
    """Progress that nobody watches."""


async def forget(world: World, host: str, **how: Any) -> dict[str, Any]:
    """As an operator asks for it."""
    wanted = {"force": False, "generation": None, "dry_run": False} | how
    answer: dict[str, Any] = await ask(world, host, lambda agent: agent.forget(UUID, **wanted))
    return answer


async def refused(world: World, host: str, why: str, kind: type[Exception] = AuthorityError, **how: Any) -> Any:
    """The error; it must leave the record as it was."""
    before = world.witness.records.get(UUID)
    with pytest.raises(kind, match=why) as caught:
        await forget(world, host, **how)
    assert world.witness.records.get(UUID) == before
    for each in world.hosts.values():
        assert (GUEST, "forgotten") not in each.events.noted
    return caught.value


async def unprotected(world: World) -> None:
    """The protection is ended; alpha still runs the guest."""
    await ask(world, "alpha", lambda agent: agent.unprotect(GUEST, force=False, timeout=20, progress=quiet))
    assert standing(world) == ("alpha", 3, "solo", None)


async def gone(world: World) -> Ownership:
    """The guest is removed for good, and its record is left."""
    await unprotected(world)
    world.incarnations[0].guest.running = False
    await world.hosts["alpha"].xen.destroy(GUEST)
    assert world.owner is not None
    return world.owner


def test_the_record_of_a_guest_that_is_gone_is_removed_and_says_what_it_was() -> None:
    async def story(world: World) -> None:
        noted: list[tuple[str, str, dict[str, object]]] = []
        record = await gone(world)
        events = world.hosts["alpha"].events
        events.note = lambda domain, event, **detail: noted.append((domain, event, detail))  # type: ignore[method-assign]
        assert await forget(world, "alpha") == {"uuid": UUID, "changed": True, "record": asdict(record)}
        assert world.witness.records == {}
        assert noted == [(GUEST, "forgotten", {"uuid": UUID, "name": GUEST, "owner": "alpha", "generation": 3})]

    play(story)


def test_a_guest_that_was_forgotten_begins_anew() -> None:
    async def story(world: World) -> None:
        await gone(world)
        await forget(world, "alpha")
        world.hosts["alpha"].xen.create("web2", UUID)
        how = {"interval_ms": 700, "output_limit_bytes": 1 << 20, "wait": False, "timeout": 5, "progress": quiet}
        await ask(world, "alpha", lambda agent: agent.protect("web2", "beta", **how))
        assert standing(world) == ("alpha", 1, "solo", None)

    play(story)


def test_without_a_record_there_is_nothing_to_do() -> None:
    async def story(world: World) -> None:
        await gone(world)
        await forget(world, "alpha")
        events = len(world.hosts["alpha"].events.noted)
        for host in ("alpha", "beta"):
            for how in ({}, {"force": True}, {"generation": 3}, {"dry_run": True}):
                assert await forget(world, host, **how) == {"uuid": UUID, "changed": False, "record": None}
        assert len(world.hosts["alpha"].events.noted) == events

    play(story)


def test_a_trial_shows_the_record_and_leaves_it() -> None:
    async def story(world: World) -> None:
        record = await gone(world)
        assert await forget(world, "alpha", dry_run=True) == {"uuid": UUID, "changed": False, "record": asdict(record)}
        assert standing(world) == ("alpha", 3, "solo", None)
        assert (GUEST, "forgotten") not in world.hosts["alpha"].events.noted

    play(story)


@pytest.mark.parametrize("force", [False, True])
def test_refused_where_it_is_protected(force: bool) -> None:
    async def story(world: World) -> None:
        error = await refused(world, "alpha", "this host protects it", force=force)
        assert error.hint == f"end that first: remusctl unprotect {GUEST}"
        assert (error.operation, error.domain, error.left) == ("forget", GUEST, "nothing was changed")

    play(story)


@pytest.mark.parametrize("force", [False, True])
def test_refused_where_a_copy_is(force: bool) -> None:
    async def story(world: World) -> None:
        error = await refused(world, "beta", r"this host holds a copy of it \(ready\)", force=force)
        assert error.hint == f"end the protection on alpha first: remusctl unprotect {GUEST}"
        world.witness.cut = {"beta"}
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: world.hosts["beta"].agent.backup.copy_of(GUEST).state.value == "orphaned", 10)  # type: ignore[union-attr]
        world.witness.cut = set()
        error = await refused(world, "beta", r"this host holds a copy of it \((orphaned|taking)\)", force=force)
        assert "remusctl" in error.hint

    play(story)


@pytest.mark.parametrize("force", [False, True])
def test_refused_where_a_domain_of_this_uuid_is(force: bool) -> None:
    async def story(world: World) -> None:
        await unprotected(world)
        error = await refused(world, "alpha", "a domain of this UUID is on this host", force=force)
        assert error.hint == f"if it is not wanted any more, end it first: xl shutdown {GUEST}"
        guest = world.hosts["alpha"].xen.guests.pop(GUEST)
        guest.domain = replace(guest.domain, name="renamed")
        world.hosts["alpha"].xen.guests["renamed"] = guest
        assert (await refused(world, "alpha", "a domain of this UUID", force=force)).domain == "renamed"
        guest.ended = True
        assert (await forget(world, "alpha"))["changed"]

    play(story)


def test_refused_where_the_guest_is_paused_for_another_owner() -> None:
    async def story(world: World) -> None:
        world.links.cut |= BOTH
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 30)
        await asyncio.sleep(0.2)
        assert await status(world, "alpha") == "stood-down"
        error = await refused(world, "alpha", "paused on this host, because another one owns it", force=True)
        assert error.hint.endswith(f"if it is not wanted any more: remusctl unprotect {GUEST} --force")
        await refused(world, "beta", "this host protects it", force=True)

    play(story)


def test_refused_where_another_host_is_the_owner_unless_forced() -> None:
    async def story(world: World) -> None:
        await gone(world)
        error = await refused(world, "beta", r"alpha owns it \(generation 3\)")
        assert error.hint == (
            "run it on alpha; if that host is gone for good and you made sure that the guest runs nowhere: --force"
        )
        await refused(world, "beta", "alpha owns it", dry_run=True)
        assert (await forget(world, "beta", force=True))["changed"]
        assert world.witness.records == {}
        assert (GUEST, "forgotten") in world.hosts["beta"].events.noted

    play(story)


def test_only_the_generation_that_was_looked_at_is_removed() -> None:
    async def story(world: World) -> None:
        await gone(world)
        await refused(world, "alpha", "of generation 3 by now, not 2", generation=2)
        assert (await forget(world, "alpha", generation=3))["changed"]

    play(story)


def test_a_record_that_somebody_changes_meanwhile_stays() -> None:
    async def story(world: World) -> None:
        record = await gone(world)
        newer = replace(record, owner="beta", generation=4, changed_by="beta")

        async def changed_meanwhile(uuid: str) -> None:
            world.witness.write(uuid, newer)

        world.hosts["alpha"].xen.name_of = changed_meanwhile  # type: ignore[method-assign]
        with pytest.raises(WitnessConflict, match="somebody has changed the record meanwhile") as caught:
            await forget(world, "alpha", force=True)
        assert (caught.value.left, caught.value.domain) == ("nothing was changed", GUEST)
        assert caught.value.hint
        assert world.owner == newer
        assert (GUEST, "forgotten") not in world.hosts["alpha"].events.noted

    play(story)


def test_a_removal_that_is_asked_for_twice_on_the_way_is_one() -> None:
    """The second is answered, with a conflict: there is no record any more that it compares to."""

    async def story(world: World) -> None:
        await gone(world)
        again = [0.0]
        world.witness.twice = lambda _: again.pop() if again else None
        assert (await forget(world, "alpha"))["changed"]
        assert not again
        assert UUID not in world.witness.records
        assert (GUEST, "forgotten") in world.hosts["alpha"].events.noted

    play(story)


def test_such_a_conflict_is_an_unknown_outcome_until_the_record_can_be_read() -> None:
    async def story(world: World) -> None:
        await gone(world)

        def then_it_is_away(_: str) -> float:
            world.witness.down = True
            return 0.0

        world.witness.twice = then_it_is_away
        with pytest.raises(WitnessUnknown, match="nobody can say whether the record was removed"):
            await forget(world, "alpha")
        world.witness.down = False
        assert not (await forget(world, "alpha"))["changed"]

    play(story)


def test_an_unknown_outcome_is_said_and_known_when_it_is_asked_for_again() -> None:
    async def story(world: World) -> None:
        await gone(world)
        world.witness.lose_answer = lambda _: True
        with pytest.raises(WitnessUnknown, match="nobody can say whether the record was removed") as caught:
            await forget(world, "alpha")
        assert "run it again: that is safe" in (caught.value.hint or "")
        assert (caught.value.left, caught.value.domain) == ("the record was removed, or may still be", GUEST)
        assert not (await forget(world, "alpha"))["changed"]

    play(story)


def test_a_witness_that_cannot_be_asked_changes_nothing() -> None:
    async def story(world: World) -> None:
        await gone(world)
        world.witness.down = True
        await refused(world, "alpha", "the witness does not answer", WitnessUnreachable, force=True)
        world.witness.down = False
        assert (await forget(world, "alpha"))["changed"]

    play(story)


def test_nobody_begins_to_protect_it_meanwhile() -> None:
    """A guest that the record gives to this host is protected without a change of it, which the removal would find."""

    async def story(world: World) -> None:
        await gone(world)
        xen = world.hosts["alpha"].xen
        agent: Any = world.hosts["alpha"].agent
        started: list[asyncio.Task[Any]] = []

        async def began_meanwhile(uuid: str) -> None:
            xen.create("web2", UUID)
            how = {"interval_ms": 700, "output_limit_bytes": 1 << 20, "wait": False, "timeout": 5, "progress": quiet}
            started.append(asyncio.create_task(agent.protect("web2", "beta", **how)))
            await asyncio.sleep(1)

        xen.name_of = began_meanwhile  # type: ignore[method-assign]
        assert (await forget(world, "alpha"))["changed"]
        await started[0]
        assert standing(world) == ("alpha", 1, "solo", None)

    play(story)


def test_without_a_witness_the_next_step_is_said() -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match="no witness is configured") as caught:
            await on(Pair().alpha).forget(UUID, force=True, generation=None, dry_run=False)
        assert "add [witness]" in (caught.value.hint or "")

    run(story())


@pytest.mark.parametrize("uuid", [UUID.upper(), UUID.replace("-", ""), UUID + "\n", "web1", "", None])
def test_a_request_names_the_guest_by_its_uuid(uuid: object) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match=r"wrong parameters: .*uuid"):
            await handlers(on(Pair().alpha), lambda *_: [])["forget"]({"uuid": uuid}, quiet)

    run(story())


def test_a_request_is_passed_on() -> None:
    async def story(world: World) -> None:
        await gone(world)
        agent: Any = world.hosts["beta"].agent
        verb = handlers(agent, lambda *_: [])["forget"]

        async def asked(**how: object) -> Mapping[str, Any]:
            return await verb({"uuid": UUID, **how}, quiet)

        on_beta = world.hosts["beta"].node.spawn
        shown = await on_beta(asked(force=True, dry_run=True))
        assert shown["record"]["owner"] == "alpha"
        with pytest.raises(AuthorityError, match="generation 3 by now, not 1"):
            await on_beta(asked(force=True, expected_generation=1))
        with pytest.raises(AuthorityError, match="alpha owns it"):
            await on_beta(asked())
        assert (await on_beta(asked(force=True)))["changed"]

    play(story)
