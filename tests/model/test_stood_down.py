"""A guest whose host has lost it to another one: paused, until the other one is known to run it, or gives it back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from remus_agent.errors import HypervisorError, OwnershipLost, RefusedError, RemusError
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.services.session import PrimarySession
from tests.model.test_authority import BOTH, ask, play, protect, standing, status, until
from tests.model.world import GUEST, PAGES, TIMES, UUID, World


async def taken_over_unseen(world: World) -> None:
    """beta runs the guest, and alpha, which cannot reach it, has learned of it."""
    world.links.cut |= BOTH
    await until(world, lambda: standing(world)[0] == "beta", 10)
    await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 20)
    await asyncio.sleep(0.2)
    assert await status(world, "alpha") == "stood-down"


def paused_on_alpha(world: World) -> bool:
    guest = world.hosts["alpha"].xen.guests.get(GUEST)
    return guest is not None and not guest.running and not guest.paused_copy


def test_the_guest_is_paused_until_the_new_owner_opens_a_session() -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)
        await asyncio.sleep(30)
        assert paused_on_alpha(world), "nobody has shown that it runs the guest"
        shown = await ask(world, "alpha", lambda agent: agent.status(GUEST))
        assert "until beta opens a session" in shown.reason
        world.links.heal(set(BOTH))
        await until(world, lambda: not paused_on_alpha(world), 5)
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 15)
        assert world.hosts["alpha"].disk.guests.get(GUEST) is None

    play(story)


def test_one_that_cannot_be_paused_is_held_also_when_it_ran_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise HypervisorError("the toolstack does not answer", operation="pause")

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        world.links.cut |= {("channel", "alpha"), ("channel", "beta")}
        await until(world, lambda: standing(world) == ("alpha", 3, "solo", None), 25)
        await until(world, lambda: not alpha.outputs.by_name[GUEST].holding, 5)
        monkeypatch.setattr(alpha.xen, "pause", fails)
        world.kill_agent(world.hosts["beta"])  # what it does with a guest that it owns is not of interest here
        world.by_word.add(
            0
        )  # until it looks at the record it goes on, and may: this change of it nobody could have made
        world.witness.write(UUID, replace(world.witness.records[UUID].ownership, owner="beta", generation=4))
        await until(world, lambda: (GUEST, "stale-guest-not-paused") in alpha.events.noted, 15)
        told = world.incarnations[0].seen
        await asyncio.sleep(20)
        assert world.incarnations[0].seen == told, "it went on speaking beside its owner"
        monkeypatch.undo()
        await until(world, lambda: paused_on_alpha(world), 10)
        assert not (await alpha.outputs.by_name[GUEST].state()).held_packets

    play(story)


def test_an_agent_that_starts_goes_on_waiting_also_without_the_witness() -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)
        alpha = world.hosts["alpha"]
        world.kill_agent(alpha)
        world.witness.down = True
        world.start_agent(alpha)
        await asyncio.sleep(20)
        assert paused_on_alpha(world)
        assert await status(world, "alpha") == "stood-down"

    play(story)


def test_an_agent_that_starts_and_finds_another_owner_pauses_and_waits() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        world.links.cut |= BOTH
        world.kill_agent(alpha)
        await until(world, lambda: [inc.host for inc in world.running()] == ["alpha", "beta"], 10)
        world.start_agent(alpha)
        await until(world, lambda: paused_on_alpha(world), 10)
        await asyncio.sleep(20)
        assert paused_on_alpha(world)

    play(story)


@pytest.mark.parametrize("anew", [False, True], ids=["unpaused", "started-anew"])
def test_a_guest_that_somebody_lets_run_is_paused_again(anew: bool) -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)
        xen, output = world.hosts["alpha"].xen, world.hosts["alpha"].outputs.by_name[GUEST]
        if anew:
            await xen.destroy(GUEST)
            xen.create(GUEST, UUID, PAGES)
        else:
            xen.guests[GUEST].running = True
        await until(world, lambda: paused_on_alpha(world), 2 * TIMES["retry"])
        assert output.holding
        assert xen.guests[GUEST].domain.vifs[0].device in output.plugged
        await until(world, lambda: world.hosts["alpha"].events.noted[-1] == (GUEST, "stood-down"), 2)
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world) == ("beta", 4, "protected", "alpha"), 15)

    play(story)


def probe_alpha(agent: Any) -> Any:
    """What `remusctl probe` asks for on beta."""
    return agent.probe(GUEST, "alpha")


def test_what_is_paused_here_is_in_nobodys_way() -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)
        world.links.heal(set(BOTH))
        xen = world.hosts["alpha"].xen
        free, xen.host = xen.host, replace(xen.host, free_memory_kib=0)  # the paused guest has it
        assert (await ask(world, "beta", probe_alpha))["reasons"] == []
        xen.host = free
        assert paused_on_alpha(world), "to ask is not to open a session"
        shown = await ask(world, "beta", protect)
        assert shown.state == "protected"
        assert not paused_on_alpha(world)

    play(story, automatic_reprotect=False)


def test_a_host_that_has_not_heard_yet_stands_down_by_itself_and_nobody_is_told_to_destroy_its_guest() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        world.links.cut |= BOTH
        world.kill_agent(alpha)
        await until(world, lambda: [inc.host for inc in world.running()] == ["alpha", "beta"], 10)
        world.witness.cut.add("alpha")
        world.start_agent(alpha)
        world.links.heal(set(BOTH))
        (reason,) = (await ask(world, "beta", probe_alpha))["reasons"]
        assert reason["code"] == "runs-here"
        assert reason["hint"].startswith(
            "wait: once alpha hears from the witness that beta owns the guest, it stands down"
        )
        world.witness.cut.clear()
        await until(world, lambda: paused_on_alpha(world), 15)
        assert (await ask(world, "beta", probe_alpha))["ok"]

    play(story, automatic_reprotect=False)


def test_only_force_ends_it() -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)

        async def unprotect(*, force: bool) -> None:
            await ask(
                world,
                "alpha",
                lambda agent: agent.unprotect(GUEST, force=force, timeout=20, progress=lambda *_, **__: None),
            )

        with pytest.raises(RefusedError, match="may be the only one"):
            await unprotect(force=False)
        assert paused_on_alpha(world)
        await unprotect(force=True)
        assert not paused_on_alpha(world)
        assert world.hosts["alpha"].disk.guests.get(GUEST) is None

    play(story)


def test_a_guest_that_somebody_destroys_meanwhile_is_forgotten() -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)
        world.hosts["alpha"].xen.guests.pop(GUEST)
        await until(world, lambda: world.hosts["alpha"].disk.guests.get(GUEST) is None, 5)
        assert GUEST not in world.hosts["alpha"].outputs.by_name

    play(story)


def test_to_be_heard_is_not_to_open_a_session() -> None:
    async def story(world: World) -> None:
        await taken_over_unseen(world)
        agent = world.hosts["beta"].agent
        assert agent is not None
        agent._primaries.tasks[GUEST].cancel()
        world.links.heal(set(BOTH))
        await asyncio.sleep(10)
        assert paused_on_alpha(world)

    play(story)


def test_its_fault_destroys_the_guest_before_anybody_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.DESTROY_AT_ONCE.value)

    async def story(world: World) -> None:
        world.links.cut |= BOTH
        await until(world, lambda: standing(world)[0] == "beta", 10)
        await until(world, lambda: not world.hosts["alpha"].xen.guests, 20)

    play(story)


def test_an_unprotection_that_meets_another_owner_stands_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record was asked for the session's backup, and names another owner, while the copy is to be discarded."""
    discard = PrimarySession.discard_copy

    async def too_late(self: PrimarySession) -> None:
        self.fail(OwnershipLost("beta owns the guest", operation="ask the witness"))
        await discard(self)

    monkeypatch.setattr(PrimarySession, "discard_copy", too_late)

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        with pytest.raises(RemusError):
            await ask(
                world,
                "alpha",
                lambda agent: agent.unprotect(GUEST, force=False, timeout=3, progress=lambda *_, **__: None),
            )
        assert (GUEST, "standing-down") in alpha.events.noted
        assert (GUEST, "defect") not in alpha.events.noted

    play(story)
