"""What looks after all guests of a host goes on after an error that nobody has foreseen, and says so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from remus_agent.machines.authority import Want
from remus_agent.services.attached import LOOK_SECONDS, DeviceWatch
from remus_agent.services.authority import Settled
from remus_agent.services.disks import DiskSet
from remus_agent.services.giving_back import GivingBack
from remus_agent.services.ownership import Witnessed
from remus_agent.services.pausing import Pauses
from remus_agent.services.resumption import Resumption
from remus_agent.services.takeover import Takeover
from tests.model.loop import run
from tests.model.pair import Pair, on, quiet, until
from tests.model.test_authority import play, standing
from tests.model.test_authority import until as in_time
from tests.model.test_defects import defects, failing
from tests.model.test_giving_back import lost_before_it_ran
from tests.model.world import GUEST, World


class Defect(Exception):
    """What no service knows."""


def fails_once(monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> list[None]:
    """The next call of the method fails; empty once it has."""
    left: list[None] = [None]
    works = getattr(kind, method)

    def perhaps(self: Any, *args: Any, **named: Any) -> Any:
        if left:
            left.pop()
            raise Defect
        return works(self, *args, **named)

    monkeypatch.setattr(kind, method, perhaps)
    return left


@pytest.mark.parametrize("method", ["_look", "take"])
def test_a_guest_is_taken_over_all_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        left = fails_once(monkeypatch, Takeover, method)
        world.power_off(world.hosts["alpha"])
        await in_time(world, lambda: not left, 20)
        await in_time(world, lambda: standing(world)[0] == "beta" and bool(world.running()), 20)
        assert "defect" in [kind for _, kind in world.hosts["beta"].events.noted]

    play(story)


def test_a_guest_is_given_back_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        left = fails_once(monkeypatch, GivingBack, "_look")
        await lost_before_it_ran(world)
        await in_time(world, lambda: not left and standing(world)[0] == "alpha", 20)

    play(story)


def test_a_session_whose_backup_was_not_named_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[None] = []
    settle = Witnessed._settle

    async def perhaps(self: Witnessed, want: Want, generation: int, reason: str, **options: Any) -> Settled:
        if want is Want.REGISTER and left:
            left.pop()
            raise Defect
        return await settle(self, want, generation, reason, **options)

    monkeypatch.setattr(Witnessed, "_settle", perhaps)

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        left.append(None)
        world.kill_agent(world.hosts["beta"])
        world.start_agent(world.hosts["beta"])
        await in_time(world, lambda: not left, 20)
        await in_time(world, lambda: alpha.events.noted.count((GUEST, "silent")) == 2, 2)
        await in_time(world, lambda: alpha.events.noted[-1] == (GUEST, "protected"), 20)

    play(story)


def test_a_pause_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await on(pair.alpha).resume()
        await pair.protect()
        await on(pair.alpha).pause("web1", seconds=20, reason="", timeout=10, progress=quiet)
        left = fails_once(monkeypatch, Pauses, "_look")
        await until(lambda: not left, "the defect")
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "protected again", 120)
        assert ("?", "defect") in pair.alpha.events.noted

    run(story())


def test_devices_are_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    left = fails_once(monkeypatch, DeviceWatch, "run")

    async def story() -> None:
        pair = Pair(retry=1000)
        await pair.protect()
        assert not left
        assert ("web1", "defect") in pair.alpha.events.noted
        pair.network.cut()
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "silent", "silent")
        await asyncio.sleep(LOOK_SECONDS)
        vif = replace(pair.guest.domain.vifs[0], devid=1, device="vif1.1")
        pair.guest.attach(vif)
        # It begins anew before the guest looks for its backup again, which looks at devices as well.
        await until(lambda: "vif1.1" in pair.output.plugged, "it is held", 985)

    run(story())


def test_a_local_disk_is_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair(("xvda",))
        await pair.protect()
        disks = on(pair.alpha)._primaries["web1"]._parts.disks
        assert isinstance(disks, DiskSet)
        left = fails_once(monkeypatch, type(disks._taps[0]), "require_local")
        await until(lambda: not left, "the defect")
        pair.volume("xvda").failed = True
        await until(lambda: ("web1", "local-disk-failed") in pair.alpha.events.noted, "it is noticed", 60)

    run(story())


def test_a_guest_goes_on_after_a_defect_that_follows_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        left = fails_once(monkeypatch, Resumption, "again")
        pair.alpha.xen.in_window = failing(1)
        await until(lambda: defects(pair) == 1 and not left, "both", 60)
        pair.output.emit("held")
        await until(lambda: "held" in pair.output.out, "output flows again", 120)

    run(story())
