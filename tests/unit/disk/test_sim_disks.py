"""The simulated disks refuse what the real ones refuse."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.adapters.sim.disk import SimTap, SimVolume
from remus_agent.adapters.sim.local import SimDisk
from remus_agent.adapters.sim.replica import SimReplicas, SimStores
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError
from remus_agent.protocol.disk.operations import Extent, Op

FACTS = DiskFacts("xvda", 16384, 512)
MAP, SESSION = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


def test_a_tap_begins_only_when_open_and_commits_only_what_was_sent() -> None:
    async def story() -> None:
        tap = SimTap(SimVolume(FACTS))
        with pytest.raises(DiskError, match="not open"):
            await tap.begin(same_base=True)
        await tap.open()
        await tap.begin(same_base=True)
        tap.barrier(1)
        with pytest.raises(DiskError, match="before it was sent"):
            tap.committed(1)
        await tap.next()
        tap.committed(1)

    asyncio.run(story())


def test_a_replica_keeps_its_order() -> None:
    async def story() -> None:
        stores = SimStores(SimDisk(), capacity=1024)
        replica = await SimReplicas(stores).open("web1", FACTS, None)
        with pytest.raises(DiskError, match="no session"):
            await replica.stage(1, [])
        await replica.begin(MAP, SESSION)
        with pytest.raises(DiskError, match="does not fit"):
            await replica.seed([Extent(Op.ZERO, 16384, 512)])
        with pytest.raises(DiskError, match="no room"):
            await replica.stage(1, [Extent(Op.WRITE, 0, 1024, bytes(1024))])
        await replica.stage(1, [])
        with pytest.raises(DiskError, match="still has epoch 1 staged"):
            await replica.begin(MAP, SESSION)
        await replica.drop()
        with pytest.raises(DiskError, match="has dropped"):
            await replica.begin(MAP, SESSION)

    asyncio.run(story())


def test_a_replica_that_failed_refuses_until_it_is_opened_again() -> None:
    async def story() -> None:
        stores = SimStores(SimDisk())
        replica = await SimReplicas(stores).open("web1", FACTS, None)
        stores.fails.add("begin")
        with pytest.raises(DiskError, match="has failed"):
            await replica.begin(MAP, SESSION)
        stores.fails.clear()
        with pytest.raises(DiskError, match="not opened again"):
            await replica.begin(MAP, SESSION)

    asyncio.run(story())
