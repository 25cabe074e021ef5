"""A primary's own disk fails below the tap: md goes on with the backup's alone, so the copy there is the only good one."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.adapters.sim.disk import SimTap, SimVolume
from remus_agent.errors import DiskError
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, quiet, until
from tests.model.platters import device
from tests.model.test_authority import BOTH, play, standing, status
from tests.model.test_authority import until as world_until
from tests.model.world import GUEST, UUID, World


async def failed() -> Pair:
    """web1 protected, and then its local disk fails."""
    pair = Pair(("xvda",))
    await pair.protect()
    pair.volume("xvda").failed = True
    return pair


def told(pair: Pair) -> list[str]:
    return [event for _, event in pair.alpha.events.noted if event == "local-disk-failed"]


def test_it_is_reported_once_and_the_guest_goes_on() -> None:
    async def story() -> None:
        pair = await failed()
        await until(lambda: bool(told(pair)), "reported")
        await asyncio.sleep(60)
        assert told(pair) == ["local-disk-failed"]
        (disk,) = (await on(pair.alpha).status("web1")).disks
        assert "has failed" in (disk.problem or "")
        pair.output.emit("reply")
        await until(lambda: "reply" in pair.output.out, "the guest serves on")

    run(story())


def test_its_protection_is_not_ended_and_its_copy_can_be_activated() -> None:
    async def story() -> None:
        pair = await failed()
        with pytest.raises(DiskError):
            await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert on(pair.alpha)._primaries["web1"].state.value == "protected"
        await pair.kill_host()
        await asyncio.sleep(120)
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert "web1" in pair.beta.xen.guests

    run(story())


def test_a_guest_that_powers_off_keeps_its_copy() -> None:
    async def story() -> None:
        pair = await failed()
        pair.guest.ended = True
        await asyncio.sleep(120)
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        assert copy.state.value == "orphaned"

    run(story())


def test_a_session_ends_whose_tap_md_has_dropped_unnoticed() -> None:
    async def story() -> None:
        pair = Pair(("xvda",))
        await pair.protect()
        before = on(pair.alpha)._primaries["web1"].session_id
        pair.volume("xvda").let_go = True
        await until(lambda: on(pair.alpha)._primaries["web1"].session_id not in (before, None), "a new session")
        assert not pair.volume("xvda").let_go, "md was made to take it back"

    run(story())


def test_what_is_not_known_of_a_disk_is_no_failed_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dmsetup` may hang on a busy host; an operator who reads `local-disk-failed` switches a host off."""

    async def story() -> None:
        pair = Pair(("xvda",))
        await pair.protect()

        async def fails(_: SimTap) -> None:
            raise DiskError("dmsetup has not ended within 30 s", operation="look at a disk")

        monkeypatch.setattr(SimTap, "look", fails)
        await until(lambda: on(pair.alpha)._primaries["web1"].disks[0].problem is not None, "shown")
        assert not told(pair)

    run(story())


# With a witness


async def lose_the_device(world: World, disk: SimVolume) -> None:
    """In mid-protection, and the agent has seen it."""
    disk.failed = True
    await world_until(world, lambda: "local-disk-failed" in noted(world), 20)


def noted(world: World) -> list[str]:
    return [event for _, event in world.hosts["alpha"].events.noted]


def test_a_primary_whose_disk_is_good_on_the_backup_only_stays_silent() -> None:
    """Its backup's agent is away for longer than clients shall wait: running on alone would void the only good copy."""
    disk = device("xvda")

    async def story(world: World) -> None:
        await lose_the_device(world, disk)
        world.kill_agent(world.hosts["beta"])
        await asyncio.sleep(60)
        assert standing(world) == ("alpha", 2, "protected", "beta")
        assert await status(world, "alpha") in ("silent", "reconnecting", "going-solo")

    play(story, disk=disk)


def test_a_guest_that_somebody_starts_anew_does_not_void_the_only_good_disk() -> None:
    """Its configuration has no uuid, so that Xen gave it another one."""
    disk = device("xvda")

    async def story(world: World) -> None:
        await lose_the_device(world, disk)
        world.kill_agent(world.hosts["beta"])
        await asyncio.sleep(5)
        xen = world.hosts["alpha"].xen
        del xen.guests[GUEST]
        xen.create(GUEST, f"{UUID[:-1]}f")
        await asyncio.sleep(60)
        assert await status(world, "alpha") == "stopping"
        assert standing(world) == ("alpha", 2, "protected", "beta")

    play(story, disk=disk)


def test_a_lone_guest_hears_that_its_writes_fail() -> None:
    """Its tap only tracks: what md tells the guest is written would be nowhere."""
    disk = device("xvda")

    async def story(world: World) -> None:
        world.power_off(world.hosts["beta"])
        await world_until(world, lambda: standing(world)[2] == "solo", 30)
        disk.write(0, b"kept")
        await lose_the_device(world, disk)
        await world_until(world, lambda: disk.refusing, 5)
        with pytest.raises(DiskError):
            disk.write(0, b"lost")

    play(story, disk=disk)


def test_the_failed_disk_of_a_guest_that_was_given_up_is_let_go() -> None:
    disk = device("xvda")

    async def story(world: World) -> None:
        await lose_the_device(world, disk)
        world.links.cut |= BOTH
        await world_until(world, lambda: standing(world)[0] == "beta", 20)
        world.links.heal(set(BOTH))
        await world_until(world, lambda: GUEST not in world.hosts["alpha"].xen.guests, 30)
        await world_until(world, lambda: disk.map_id is None, 10)

    play(story, disk=disk)
