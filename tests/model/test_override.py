"""Copies that nobody activates by himself, and the operator who accepts the loss: noted, recorded, by the next agent too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remus_agent.errors import AuthorityError, DomainNotFound, HypervisorError
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.ports import Domain
from remus_agent.services.copy import Copy
from remus_agent.services.takeover import Takeover
from remus_agent.store_ports import TAKING, GuestRecord
from tests.model.plans import Fault, Plan
from tests.model.simulate import simulate
from tests.model.test_authority import BOTH, FENCED, ask, override, play, standing, status, until
from tests.model.world import GUEST, World

CHANNEL = {("channel", "alpha"), ("channel", "beta")}


async def alone(world: World) -> None:
    """alpha has run on without beta, whose copy is of the generation before."""
    world.links.cut |= CHANNEL
    await until(world, lambda: standing(world) == ("alpha", 3, "solo", None), 25)


async def overridden(world: World) -> None:
    """beta runs the guest by an operator's word; the witness can't be asked."""
    world.witness.down = True
    world.power_off(world.hosts["alpha"])
    await asyncio.sleep(4)
    world.overriding = "beta"
    await ask(world, "beta", override)
    world.overriding = None


def test_a_possible_loss_is_written_into_the_record_whatever_its_owner_is() -> None:
    async def story(world: World) -> None:
        await alone(world)
        await overridden(world)
        assert standing(world) == ("alpha", 3, "solo", None)
        assert ("web1", "override") in world.hosts["beta"].events.noted
        world.witness.down = False
        await until(world, lambda: standing(world) == ("beta", 4, "solo", None), 5)
        assert world.owner is not None
        assert "a possible loss" in world.owner.reason
        assert FENCED["evidence"] in world.owner.reason
        world.links.cut.clear()
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world) == ("beta", 5, "protected", "alpha"), 15)

    play(story)


def test_the_next_agent_writes_it_into_the_record_as_well() -> None:
    async def story(world: World) -> None:
        await alone(world)
        await overridden(world)
        beta = world.hosts["beta"]
        world.kill_agent(beta)
        world.start_agent(beta)
        await asyncio.sleep(5)
        shown = await ask(world, "beta", lambda agent: agent.overview())
        assert ["operator's word" in (each.reason or "") for each in shown] == [True]
        world.witness.down = False
        await until(world, lambda: standing(world) == ("beta", 4, "solo", None), 5)
        await asyncio.sleep(1)
        assert await status(world, "beta") == "solo"
        assert beta.disk.guests[GUEST].override == ""

    play(story)


async def fails(_: str) -> Domain:
    raise HypervisorError("xenstore does not answer")


def test_a_guest_that_is_gone_is_left_out_of_the_list_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await alone(world)
        await overridden(world)
        beta = world.hosts["beta"]
        world.kill_agent(beta)
        world.start_agent(beta)
        await asyncio.sleep(5)
        assert [each.domain for each in await ask(world, "beta", lambda agent: agent.overview())] == [GUEST]
        with monkeypatch.context() as patch:
            patch.setattr(beta.xen, "domain", fails)
            (shown,) = await ask(world, "beta", lambda agent: agent.overview())
            assert (shown.domain, shown.state, shown.reason) == (GUEST, "unprotected", "xenstore does not answer")
            assert len((await ask(world, "beta", lambda agent: agent.topology()))["guests"]) == 1
        await beta.xen.destroy(GUEST)
        assert await ask(world, "beta", lambda agent: agent.overview()) == []
        assert (await ask(world, "beta", lambda agent: agent.topology()))["guests"] == []
        with pytest.raises(DomainNotFound):
            await status(world, "beta")
        world.witness.down = False
        await until(world, lambda: (GUEST, "guest-gone") in beta.events.noted, 5)

    play(story)


def test_a_host_that_is_heard_over_the_second_path_is_not_off() -> None:
    async def story(world: World) -> None:
        world.links.cut |= CHANNEL
        world.witness.down = True
        await until(world, lambda: ("web1", "orphaned") in world.hosts["beta"].events.noted, 6)
        with pytest.raises(AuthorityError, match="alpha is on: its agent was heard over the second path"):
            await ask(world, "beta", override)
        trial = lambda agent: agent.failover_trial(  # noqa: E731
            GUEST, generation=None, session=None, fenced=FENCED, accept_loss=True
        )
        with pytest.raises(AuthorityError, match="second path"):
            await ask(world, "beta", trial)
        assert [inc.host for inc in world.running()] == ["alpha"]
        assert await status(world, "beta") == "orphaned"

    play(story)


def test_an_override_does_not_wait_for_a_word_that_does_not_come() -> None:
    async def story(world: World) -> None:
        world.witness.late = lambda host: 60.0 if host == "beta" else None
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: ("web1", "taking") in world.hosts["beta"].events.noted, 10)
        await asyncio.sleep(3)
        world.witness.down = True
        assert not world.running(), "nobody knows whether beta owns it"
        world.overriding = "beta"
        await ask(world, "beta", override)
        world.overriding = None
        assert [inc.host for inc in world.running()] == ["beta"]
        world.witness.late = lambda _: None
        world.witness.down = False
        await until(world, lambda: standing(world) == ("beta", 3, "solo", None), 5)
        await asyncio.sleep(80)
        assert standing(world) == ("beta", 3, "solo", None), "the late request is void"

    play(story)


@pytest.mark.parametrize("at", ["note", "older-copy"])
def test_an_override_goes_on_wherever_it_ends_the_attempt(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt is in the middle of noting that it asks, or has won and destroys an older copy."""

    async def story(world: World) -> None:
        beta = world.hosts["beta"]
        hangs = asyncio.Event()
        if at == "note":
            save = beta.disk.save

            async def slow(record: GuestRecord) -> None:
                if record.role == TAKING and not hangs.is_set():
                    hangs.set()
                    await asyncio.sleep(60)
                await save(record)

            monkeypatch.setattr(beta.disk, "save", slow)
        else:
            settle = Takeover._win

            async def won(self: Takeover, copy: Copy, reason: str, patience: float | None) -> None:
                await settle(self, copy, reason, patience)
                if not hangs.is_set():
                    hangs.set()
                    await asyncio.sleep(60)

            monkeypatch.setattr(Takeover, "_win", won)
        world.power_off(world.hosts["alpha"])
        await until(world, hangs.is_set, 20)
        world.overriding = "beta"
        await ask(world, "beta", override)
        world.overriding = None
        assert [inc.host for inc in world.running()] == ["beta"]

    play(story)


def test_nothing_is_activated_that_cannot_be_noted() -> None:
    async def story(world: World) -> None:
        world.witness.down = True
        world.power_off(world.hosts["alpha"])
        await asyncio.sleep(4)
        world.hosts["beta"].disk.full = True
        with pytest.raises(Exception, match="no space left"):
            await ask(world, "beta", override)
        assert not world.running()
        assert await status(world, "beta") == "orphaned"

    play(story)


def test_a_stale_copy_is_kept_and_activated_only_by_who_accepts_the_loss() -> None:
    async def story(world: World) -> None:
        await alone(world)
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: ("web1", "not-taken-over") in world.hosts["beta"].events.noted, 15)
        assert await status(world, "beta") == "stale"
        await asyncio.sleep(30)
        assert not world.running()
        with pytest.raises(AuthorityError, match="ran on without") as caught:
            await ask(world, "beta", lambda agent: agent.failover(GUEST, generation=None, session=None, fenced=FENCED))
        assert "--accept-loss" in (caught.value.hint or "")
        world.overriding = "beta"
        await ask(world, "beta", override)
        world.overriding = None
        await until(world, lambda: standing(world) == ("beta", 4, "solo", None), 5)
        await asyncio.sleep(1)
        assert await status(world, "beta") == "solo"

    play(story)


def test_a_stale_copy_goes_when_a_newer_one_is_committed_or_an_operator_discards_it() -> None:
    async def story(world: World) -> None:
        await alone(world)
        world.links.cut |= BOTH
        await until(world, lambda: ("web1", "not-taken-over") in world.hosts["beta"].events.noted, 15)
        assert await status(world, "beta") == "stale"
        unprotect = lambda agent: agent.unprotect(  # noqa: E731
            GUEST, force=True, timeout=5, progress=lambda *_, **__: None
        )
        kept = next(name for name, guest in world.hosts["beta"].xen.guests.items() if guest.paused_copy)
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world) == ("alpha", 4, "protected", "beta"), 15)
        await until(world, lambda: kept not in world.hosts["beta"].xen.guests, 5)
        assert await status(world, "beta") == "ready"
        await ask(world, "beta", unprotect)
        assert await status(world, "beta") in ("discarded", "receiving")

    play(story)


def test_no_older_copy_is_left_when_a_newer_session_is_first_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds: list[World] = []
    at_first: list[list[str]] = []
    acknowledge = Copy._acknowledge

    async def look(self: Copy, ack: Any) -> Any:
        agent = worlds[0].hosts["beta"].agent if worlds else None
        if ack.epoch == 1 and agent is not None:
            at_first.append([copy.state.value for copy in agent.backup.copies_of(GUEST)])
        return await acknowledge(self, ack)

    monkeypatch.setattr(Copy, "_acknowledge", look)

    async def story(world: World) -> None:
        worlds.append(world)
        world.links.cut |= CHANNEL
        await until(world, lambda: ("web1", "orphaned") in world.hosts["beta"].events.noted, 6)
        world.links.heal(set(CHANNEL))
        await until(world, lambda: bool(at_first), 10)
        assert at_first[0] == ["discarded", "ready"]

    play(story)


PLANS = {
    # A second session under the same record commits, its copy breaks, and then the primary dies.
    FaultName.OLDER_COPY_KEPT: Plan(
        seed=1,
        rates=(1.0, 1.0),
        faults=(
            Fault(at=2.0, kind="cut", host="alpha", seconds=3.8, paths=("channel",)),
            Fault(at=9.0, kind="toolstack-fails", host="beta", seconds=2.5),
            Fault(at=10.5, kind="power-off", host="alpha", seconds=15.0),
        ),
        solo=20.0,
    ),
    # The primary runs on alone, and its host dies while the witness can't be asked.
    FaultName.OVERRIDE_UNRECORDED: Plan(
        seed=1,
        rates=(1.0, 1.0),
        faults=(
            Fault(at=1.5, kind="cut", host="alpha", seconds=13.0, paths=("channel",)),
            Fault(at=13.0, kind="override", host="alpha", seconds=4.0),
        ),
    ),
}


@pytest.mark.parametrize("fault", PLANS, ids=lambda fault: fault.value)
def test_each_seeded_fault_is_found_by_its_plan(fault: FaultName, monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulate(PLANS[fault]) is None
    monkeypatch.setenv(VARIABLE, fault.value)
    assert simulate(PLANS[fault]) is not None
