"""The agent of a backup that takes over is killed at each of its steps: exactly one host serves the guest in the end, or it is
said that nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remus_agent.adapters.sim.local import SimAnnouncer
from remus_agent.ports import TAKING
from tests.model.hosts import Target
from tests.model.test_authority import BOTH, answered, play, standing, status, until
from tests.model.world import GUEST, Machine, World

Work = Callable[..., Awaitable[Any]]


def dying(
    world: World, host: Machine, work: Work, *, before: bool, when: Callable[..., bool] = lambda *_: True
) -> Work:
    """The same work, once with a SIGKILL before it begins, or when it is done and nobody has heard of it."""
    alive = [True]

    async def die() -> None:
        alive.clear()
        world.kill_agent(host)
        await asyncio.get_running_loop().create_future()  # nothing of this process goes on

    async def done(*args: Any) -> Any:
        due = bool(alive) and when(*args)
        if due and before:
            await die()
        result = await work(*args)
        if due and not before:
            await die()
        return result

    return done


def save(role: str, *, before: bool) -> Callable[[World, pytest.MonkeyPatch], None]:
    """At beta's note of this role."""

    def arm(world: World, patch: pytest.MonkeyPatch) -> None:
        beta = world.hosts["beta"]
        work = dying(world, beta, beta.disk.save, before=before, when=lambda record: record.role == role)
        patch.setattr(beta.disk, "save", work)

    return arm


def activation(*, before: bool) -> Callable[[World, pytest.MonkeyPatch], None]:
    """At the toolstack's work."""

    def arm(world: World, patch: pytest.MonkeyPatch) -> None:
        activate = Target.activate
        beta = world.hosts["beta"]
        work = dying(world, beta, activate, before=before, when=lambda target, *_: target._host is beta.xen)
        patch.setattr(Target, "activate", work)

    return arm


def record_changed(world: World, _: pytest.MonkeyPatch) -> None:
    """The witness has made beta the owner, and beta does not hear of it."""
    beta, before = world.hosts["beta"], world.witness.changed

    def changed(guest: str, now: Any) -> None:
        before(guest, now)
        if now is not None and now.owner == "beta" and beta.agent is not None:
            world.kill_agent(beta)

    world.witness.changed = changed


def announcement(world: World, patch: pytest.MonkeyPatch) -> None:
    """The guest runs, and the network is not told yet."""
    work = dying(world, world.hosts["beta"], SimAnnouncer.announce, before=True)
    patch.setattr(SimAnnouncer, "announce", work)


NOT_RUN = {
    "before the note that it asks": save(TAKING, before=True),
    "before it asks": save(TAKING, before=False),
    "when the record has changed": record_changed,
    "before the note that the guest runs": save("primary", before=True),
}
"""The guest did not run, and a restart knows that."""

UNKNOWN = {
    "after the note that the guest runs": save("primary", before=False),
    "before the activation": activation(before=True),
}
"""It did not run, and nobody knows."""

HAS_RUN = {
    "after the activation": activation(before=False),
    "before the announcement": announcement,
}

Arm = Callable[[World, pytest.MonkeyPatch], None]


async def killed(world: World, arm: Arm, patch: pytest.MonkeyPatch, seconds: float = 12) -> None:
    """alpha cannot be heard; beta takes over, and its agent is killed there, and started again."""
    world.cut |= BOTH
    arm(world, patch)
    beta = world.hosts["beta"]
    await until(world, lambda: beta.agent is None, seconds)
    await asyncio.sleep(1)
    world.start_agent(beta)


def parametrized(arms: dict[str, Arm]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("arm", arms.values(), ids=arms)


@parametrized(NOT_RUN)
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "healed"])
def test_what_did_not_run_goes_on_where_it_was(arm: Arm, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        before = answered(world)
        await killed(world, arm, monkeypatch)
        if not cut:
            world.heal(set(BOTH))
        await until(
            world, lambda: [inc.host for inc in world.running()] == ["alpha"] and answered(world) > before + 5, 40
        )
        world.heal(set(BOTH))
        await until(world, lambda: standing(world)[0] == "alpha" and standing(world)[2:] == ("protected", "beta"), 30)
        assert await status(world, "alpha") == "protected"
        assert len(world.incarnations) == 1

    play(story)


@parametrized(HAS_RUN)
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "healed"])
def test_what_has_run_goes_on_at_the_new_owner(arm: Arm, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await killed(world, arm, monkeypatch)
        if not cut:
            world.heal(set(BOTH))
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 30)
        before = answered(world)
        await until(world, lambda: answered(world) > before + 5, 30)
        world.heal(set(BOTH))
        await until(world, lambda: standing(world)[0] == "beta" and standing(world)[2:] == ("protected", "alpha"), 30)
        assert await status(world, "beta") == "protected"
        assert [inc.host for inc in world.running()] == ["beta"]

    play(story)


@parametrized(UNKNOWN)
def test_where_nobody_knows_whether_it_ran_the_paused_guest_is_kept_and_both_hosts_say_so(
    arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        await killed(world, arm, monkeypatch)
        world.heal(set(BOTH))
        await asyncio.sleep(60)
        assert not world.running()
        assert standing(world) == ("beta", 3, "solo", None)
        paused = world.hosts["alpha"].xen.guests[GUEST]
        assert not paused.running
        assert await status(world, "alpha") == "stood-down"
        beta = world.hosts["beta"]
        (gone,) = [detail for event, detail in beta.events.details(GUEST) if event == "guest-gone"]
        assert "alpha" in gone["left"]
        noted = [event for event, _ in beta.events.details(GUEST)]
        assert "activating" in noted
        assert "active" not in noted, "that is how an operator learns that it did not run"

    play(story)


@parametrized({**NOT_RUN, **UNKNOWN})
def test_with_the_old_host_dead_the_copy_is_lost_with_its_agent(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await killed(world, arm, monkeypatch)
        await asyncio.sleep(30)
        assert not world.running(), "there is no image of it left"
        world.heal(set(BOTH))
        world.power_on(world.hosts["alpha"])
        await asyncio.sleep(30)
        assert not world.running()
        for host in world.hosts.values():
            assert GUEST not in host.xen.guests
        lost = [host.name for host in world.hosts.values() if ("guest-gone" in dict(host.events.details(GUEST)))]
        assert lost, "no host says that it is gone"

    play(story)


@parametrized(HAS_RUN)
def test_with_the_old_host_dead_what_runs_is_served(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await killed(world, arm, monkeypatch)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 10)
        before = answered(world)
        await until(world, lambda: answered(world) > before + 5, 20)
        world.heal(set(BOTH))
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world)[0] == "beta" and standing(world)[2:] == ("protected", "alpha"), 30)

    play(story)
