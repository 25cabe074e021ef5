"""The agent of a backup that takes over is killed at each of its steps: exactly one host serves the guest in the end, or it is
said that nobody does. Its host may lose power there as well."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.machines.authority import Ownership
from remus_agent.services.sweep import TOOLSTACK_SECONDS
from remus_agent.services.working_names import guest_of
from tests.model.deaths import ABOUT_TO_RUN, HAS_RUN, NOT_RUN, Arm, Loss, agent_killed, power_lost
from tests.model.test_authority import BOTH, FENCED, answered, ask, override, play, standing, status, until
from tests.model.world import GUEST, UUID, World

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <coroutine object BackupService")
"""Nothing that a killed agent was about to do is done, nor its cleaning up, for which Python asks when it collects it."""


async def lost(
    world: World,
    arm: Arm,
    patch: pytest.MonkeyPatch,
    lose: Loss = agent_killed,
    *,
    cut: bool = True,
    seconds: float = 12,
) -> None:
    """alpha cannot be heard; beta takes over, and is lost there."""
    if cut:
        world.links.cut |= BOTH
    arm(world, patch, lose)
    beta = world.hosts["beta"]
    await until(world, lambda: beta.agent is None, seconds)
    await asyncio.sleep(1)


async def lost_overriding(world: World, arm: Arm, patch: pytest.MonkeyPatch) -> None:
    """alpha is off, the witness cannot be asked, and beta is lost in the override of an operator, which is still allowed."""
    world.witness.down = True
    world.power_off(world.hosts["alpha"])
    await asyncio.sleep(4)
    world.overriding = "beta"
    asking = asyncio.create_task(ask(world, "beta", override))
    await lost(world, arm, patch, cut=False)
    asking.cancel()


async def killed(world: World, arm: Arm, patch: pytest.MonkeyPatch) -> None:
    """The same with beta's agent, which is started again."""
    await lost(world, arm, patch)
    world.start_agent(world.hosts["beta"])


async def served_by(world: World, host: str, seconds: float = 30) -> None:
    """This host alone runs the guest, and its clients are answered."""
    await until(world, lambda: [inc.host for inc in world.running()] == [host], seconds)
    before = answered(world)
    await until(world, lambda: answered(world) > before + 5, seconds)
    assert [inc.host for inc in world.running()] == [host]


def events(world: World, host: str) -> list[str]:
    return [event for event, _ in world.hosts[host].events.details(GUEST)]


def parametrized(arms: dict[str, Arm]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("arm", arms.values(), ids=arms)


@parametrized(NOT_RUN)
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "healed"])
def test_what_did_not_run_goes_on_where_it_was(arm: Arm, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        before = answered(world)
        await killed(world, arm, monkeypatch)
        if not cut:
            world.links.heal(set(BOTH))
        await until(
            world, lambda: [inc.host for inc in world.running()] == ["alpha"] and answered(world) > before + 5, 40
        )
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world)[0] == "alpha" and standing(world)[2:] == ("protected", "beta"), 30)
        assert await status(world, "alpha") == "protected"
        assert len(world.incarnations) == 1

    play(story)


@parametrized({**ABOUT_TO_RUN, **HAS_RUN})
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "healed"])
def test_what_was_about_to_run_or_has_run_goes_on_at_the_new_owner(
    arm: Arm, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        await killed(world, arm, monkeypatch)
        if not cut:
            world.links.heal(set(BOTH))
        await served_by(world, "beta")
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world)[0] == "beta" and standing(world)[2:] == ("protected", "alpha"), 30)
        assert await status(world, "beta") == "protected"
        assert [inc.host for inc in world.running()] == ["beta"]
        assert world.hosts["beta"].disk.guests[GUEST].starting == ""

    play(story)


@parametrized(ABOUT_TO_RUN)
def test_it_runs_only_when_a_change_of_the_record_has_confirmed_its_owner(
    arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await lost(world, arm, monkeypatch, cut=False)
        world.witness.down = True
        world.start_agent(world.hosts["beta"])
        await asyncio.sleep(20)
        assert not world.running()
        assert await status(world, "beta") == "starting"
        with pytest.raises(Exception, match="has not run here yet"):
            await ask(world, "beta", lambda agent: agent.unprotect(GUEST, force=False, timeout=5, progress=print))
        world.witness.down = False
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 5)
        assert standing(world) == ("beta", 4, "solo", None)
        assert events(world, "beta").count("announced") == 1

    play(story)


@parametrized(ABOUT_TO_RUN)
def test_it_does_not_run_when_another_host_has_become_its_owner(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await lost(world, arm, monkeypatch)
        by_hand = Ownership("alpha", 4, "solo", None, GUEST, "an operator wants it there", "somebody")
        world.witness.write(UUID, by_hand)
        world.start_agent(world.hosts["beta"])
        await served_by(world, "alpha")
        world.links.heal(set(BOTH))
        await until(world, lambda: standing(world)[0] == "alpha" and standing(world)[2:] == ("protected", "beta"), 30)
        assert len(world.incarnations) == 1

    play(story)


def test_an_operator_may_give_up_what_was_about_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await lost(world, ABOUT_TO_RUN["before it is unpaused"], monkeypatch, cut=False)
        world.witness.down = True
        world.start_agent(world.hosts["beta"])
        await asyncio.sleep(3)
        await ask(
            world,
            "beta",
            lambda agent: agent.unprotect(GUEST, force=True, timeout=20, progress=lambda *_, **__: None),
        )
        assert not world.hosts["beta"].xen.guests
        assert not world.hosts["beta"].disk.guests

    play(story)


@parametrized(ABOUT_TO_RUN)
def test_where_nobody_knows_whether_it_ran_the_paused_guest_is_kept_and_both_hosts_say_so(
    arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host itself is lost there: what stood on it, built, is gone."""

    async def story(world: World) -> None:
        await lost(world, arm, monkeypatch, power_lost)
        world.power_on(world.hosts["beta"])
        world.links.heal(set(BOTH))
        await asyncio.sleep(60)
        assert not world.running()
        assert standing(world) == ("beta", 3, "solo", None)
        paused = world.hosts["alpha"].xen.guests[GUEST]
        assert not paused.running
        assert await status(world, "alpha") == "stood-down"
        beta = world.hosts["beta"]
        (gone,) = [detail for event, detail in beta.events.details(GUEST) if event == "guest-gone"]
        assert "alpha" in str(gone["left"])
        assert "nobody knows" in str(gone["left"])
        assert "activating" in events(world, "beta")
        assert not {"active", "started"} & {*events(world, "beta")}, "it is all that an operator can learn"

    play(story)


@parametrized({**NOT_RUN, **ABOUT_TO_RUN})
def test_with_both_hosts_dead_it_is_lost_and_somebody_says_so(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await lost(world, arm, monkeypatch, power_lost, cut=False)
        for host in world.hosts.values():
            world.power_on(host)
        await asyncio.sleep(40)
        assert not world.running(), "there is no image of it left"
        assert not [guest for host in world.hosts.values() for guest in host.xen.guests]
        assert [name for name in world.hosts if "guest-gone" in events(world, name)], "no host says that it is gone"

    play(story)


@parametrized(NOT_RUN)
def test_with_the_old_host_dead_a_copy_that_is_not_noted_is_lost_with_its_agent(
    arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await killed(world, arm, monkeypatch)
        await asyncio.sleep(30)
        assert not world.running(), "there is no image of it left"
        world.links.heal(set(BOTH))
        world.power_on(world.hosts["alpha"])
        await asyncio.sleep(30)
        assert not world.running()
        for host in world.hosts.values():
            assert not host.xen.guests
        assert [name for name in world.hosts if "guest-gone" in events(world, name)], "no host says that it is gone"

    play(story)


@parametrized({**ABOUT_TO_RUN, **HAS_RUN})
def test_with_the_old_host_dead_what_runs_or_was_about_to_is_served(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await killed(world, arm, monkeypatch)
        await served_by(world, "beta")
        world.links.heal(set(BOTH))
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world)[0] == "beta" and standing(world)[2:] == ("protected", "alpha"), 30)

    play(story)


def test_a_copy_that_was_built_and_not_noted_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its toolstack has finished it, so it outlives its agent; it must not stay, with the guest's memory and disks."""

    async def story(world: World) -> None:
        await killed(world, NOT_RUN["when the guest is built"], monkeypatch)
        beta = world.hosts["beta"]
        (left,) = beta.xen.guests
        assert guest_of(left) == GUEST
        await until(world, lambda: left not in beta.xen.guests, TOOLSTACK_SECONDS + 1)
        copies = [detail["copy"] for event, detail in beta.events.details("?") if event == "left-copy-destroyed"]
        assert copies == [left]

    play(story)


@parametrized({**NOT_RUN, **ABOUT_TO_RUN, **HAS_RUN})
def test_a_switchover_whose_new_owner_dies_ends_with_one_host_that_serves(
    arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        moving = asyncio.create_task(
            ask(
                world,
                "alpha",
                lambda agent: agent.switchover(
                    GUEST, timeout=3, dry_run=False, generation=None, progress=lambda *_, **__: None
                ),
            )
        )
        await lost(world, arm, monkeypatch, cut=False)
        world.start_agent(world.hosts["beta"])
        await asyncio.gather(moving, return_exceptions=True)
        ran = arm in (*ABOUT_TO_RUN.values(), *HAS_RUN.values())
        await served_by(world, "beta" if ran else "alpha", 60)
        await until(world, lambda: standing(world)[2] == "protected", 40)

    play(story)


@parametrized({**ABOUT_TO_RUN, "when it is unpaused": HAS_RUN["when it is unpaused"]})
def test_what_an_operator_has_activated_by_override_is_finished(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await lost_overriding(world, arm, monkeypatch)
        world.start_agent(world.hosts["beta"])
        await served_by(world, "beta", 10)
        assert world.hosts["beta"].disk.guests[GUEST].override
        world.overriding = None
        world.witness.down = False
        await until(world, lambda: standing(world)[:2] == ("beta", 3), 10)
        assert world.owner is not None
        assert FENCED["evidence"] in world.owner.reason

    play(story)
