"""The steps of a takeover at which the host that takes over, or its agent, can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remus_agent.adapters.sim.hypervisor import SimTarget
from remus_agent.adapters.sim.local import SimAnnouncer
from remus_agent.store_ports import TAKING, GuestRecord
from tests.model.hosts import Machine
from tests.model.world import World

Work = Callable[..., Awaitable[Any]]
Loss = Callable[[World, Machine], None]
Arm = Callable[[World, pytest.MonkeyPatch, Loss], None]
"""Puts a loss at one of beta's steps."""


def agent_killed(world: World, host: Machine) -> None:
    world.kill_agent(host)


def power_lost(world: World, host: Machine) -> None:
    world.power_off(host)


def dying(world: World, lose: Loss, work: Work, *, before: bool, when: Callable[..., bool] = lambda *_: True) -> Work:
    """The same work, once with beta lost before it begins, or when it is done and nobody has heard of it."""
    alive = [True]

    async def die() -> None:
        alive.clear()
        lose(world, world.hosts["beta"])
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


def save(which: Callable[[GuestRecord], bool], *, before: bool) -> Arm:
    """At one of beta's notes."""

    def arm(world: World, patch: pytest.MonkeyPatch, lose: Loss) -> None:
        disk = world.hosts["beta"].disk
        patch.setattr(disk, "save", dying(world, lose, disk.save, before=before, when=which))

    return arm


def built(*, before: bool) -> Arm:
    """At the toolstack's work."""

    def arm(world: World, patch: pytest.MonkeyPatch, lose: Loss) -> None:
        xen = world.hosts["beta"].xen
        work = dying(world, lose, SimTarget.build, before=before, when=lambda target, *_: target._host is xen)
        patch.setattr(SimTarget, "build", work)

    return arm


def made_to_run(step: str, *, before: bool) -> Arm:
    """At one of the two steps after that."""

    def arm(world: World, patch: pytest.MonkeyPatch, lose: Loss) -> None:
        xen = world.hosts["beta"].xen
        patch.setattr(xen, step, dying(world, lose, getattr(xen, step), before=before))

    return arm


def record_changed(world: World, _: pytest.MonkeyPatch, lose: Loss) -> None:
    """The witness has made beta the owner, and beta does not hear of it."""
    beta, before = world.hosts["beta"], world.witness.changed

    def changed(guest: str, now: Any) -> None:
        before(guest, now)
        if now is not None and now.owner == "beta" and beta.agent is not None:
            lose(world, beta)

    world.witness.changed = changed


def announcement(world: World, patch: pytest.MonkeyPatch, lose: Loss) -> None:
    """The guest runs, and the network is not told yet."""
    work = dying(world, lose, SimAnnouncer.announce, before=True)
    patch.setattr(SimAnnouncer, "announce", work)


def asks(record: GuestRecord) -> bool:
    return record.role == TAKING


def starts(record: GuestRecord) -> bool:
    return bool(record.starting)


def runs(record: GuestRecord) -> bool:
    return record.role == "primary" and not record.starting


NOT_RUN: dict[str, Arm] = {
    "before the note that it asks": save(asks, before=True),
    "before it asks": save(asks, before=False),
    "when the record has changed": record_changed,
    "before the guest is built": built(before=True),
    "when the guest is built": built(before=False),
    "before the note that it is about to run": save(starts, before=True),
}
"""The guest did not run, and a restart knows that."""
ABOUT_TO_RUN: dict[str, Arm] = {
    "after the note that it is about to run": save(starts, before=False),
    "before it has its name": made_to_run("rename", before=True),
    "when it has its name": made_to_run("rename", before=False),
    "before it is unpaused": made_to_run("unpause", before=True),
}
"""It did not run, and stands there paused: whoever comes next lets it run."""
HAS_RUN: dict[str, Arm] = {
    "when it is unpaused": made_to_run("unpause", before=False),
    "before the note that it runs": save(runs, before=True),
    "after the note that it runs": save(runs, before=False),
    "before the announcement": announcement,
}
