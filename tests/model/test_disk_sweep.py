"""Taps that an earlier agent has left, on virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from remus_agent.adapters.sim.disk import SimVolume
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import JournalError
from remus_agent.store_ports import LoadedGuests
from tests.model.loop import run
from tests.model.pair import DISK_BYTES, Pair, on, until

DISKS = ("xvda", "xvdb")
TAKEN = ("?", "tap-of-unprotected-guest-removed")


async def without_an_agent() -> Pair:
    """web1 with two disks was protected when alpha's agent died."""
    pair = Pair(DISKS)
    await pair.protect()
    await pair.kill_agent(pair.alpha)
    return pair


def tapped(pair: Pair) -> list[bool]:
    return [pair.volume(vdev).map_id is not None for vdev in DISKS]


def test_disks_of_a_guest_that_is_gone_become_linear() -> None:
    async def story() -> None:
        pair = await without_an_agent()
        pair.volume("xvda").write(0, b"last")
        await pair.alpha.xen.destroy("web1")
        assert tapped(pair) == [True, True]
        await pair.boot(pair.alpha).resume()
        assert tapped(pair) == [False, False]
        assert not pair.volume("xvda").marked | pair.volume("xvda").missed
        assert pair.volume("xvda").content[:4] == b"last"
        assert pair.alpha.events.noted.count(TAKEN) == 2

    run(story())


def test_disks_of_a_guest_that_is_not_on_record_become_linear_under_it() -> None:
    async def story() -> None:
        pair = await without_an_agent()
        await pair.alpha.disk.remove("web1")
        await pair.boot(pair.alpha).resume()
        assert tapped(pair) == [False, False]
        assert pair.guest.running
        await pair.protect()
        assert tapped(pair) == [True, True]

    run(story())


def test_a_protected_guest_keeps_its_taps_and_goes_on_from_the_same_base() -> None:
    async def story() -> None:
        pair = await without_an_agent()
        maps = [pair.volume(vdev).map_id for vdev in DISKS]
        pair.alpha.volumes["old1"] = [SimVolume(DiskFacts("xvda", DISK_BYTES, 512), map_id="of an earlier agent")]
        await pair.boot(pair.alpha).resume()
        assert pair.alpha.volumes["old1"][0].map_id is None
        assert pair.alpha.events.noted.count(TAKEN) == 1
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "protected again")
        assert [pair.volume(vdev).map_id for vdev in DISKS] == maps
        disks = (await on(pair.alpha).status("web1")).disks
        assert sum(disk.total for disk in disks) < DISK_BYTES, "only what the maps name was copied"

    run(story())


def test_taps_stay_where_output_stays_held() -> None:
    async def story() -> None:
        pair = await without_an_agent()
        pair.boot(pair.alpha).peers.clear()
        await on(pair.alpha).resume()
        assert ("web1", "peer-unknown") in pair.alpha.events.noted
        assert tapped(pair) == [True, True]
        assert pair.output.installed
        agent = pair.boot(pair.alpha)
        damaged = JournalError("its record is damaged", domain="web1")

        async def load_all() -> LoadedGuests:
            return LoadedGuests((), (damaged,))

        pair.alpha.disk.load_all = load_all  # type: ignore[method-assign]
        await agent.resume()
        assert ("web1", "record-damaged") in pair.alpha.events.noted
        assert tapped(pair) == [True, True]

    run(story())


def test_a_tap_that_is_stuck_keeps_neither_the_others_nor_the_agent() -> None:
    async def story() -> None:
        pair = await without_an_agent()
        stuck = SimVolume(DiskFacts("xvda", DISK_BYTES, 512), map_id="of an earlier agent", stuck=True)
        pair.alpha.volumes = {"old1": [stuck, replace(stuck, stuck=False)], **pair.alpha.volumes}
        await pair.boot(pair.alpha).resume()
        assert [volume.map_id is None for volume in pair.alpha.volumes["old1"]] == [False, True]
        assert ("?", "sweep-failed") in pair.alpha.events.noted
        await asyncio.sleep(1)
        assert tapped(pair) == [True, True]
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "protected again")

    run(story())
