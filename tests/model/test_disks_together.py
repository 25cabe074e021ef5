"""What is done to all disks of a guest at the same time, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.adapters.sim.local import LoopClock
from remus_agent.adapters.sim.replica import SimReplica, SimReplicas, SimStore, SimStores
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import ConnectionLost, DiskError, RefusedError
from remus_agent.services.disks import DiskSet
from remus_agent.services.replica_set import DomainReplicas
from remus_agent.services.settings import Settings
from remus_agent.services.together import all_done
from remus_agent.store_ports import CommitRecord
from tests.model.loop import run
from tests.model.pair import Pair, on, until

DISKS = ("xvda", "xvdb", "xvdc")


def now() -> float:
    return asyncio.get_running_loop().time()


async def set_of(pair: Pair) -> DiskSet:
    assert pair.alpha.taps is not None
    taps = await pair.alpha.taps.of(pair.guest.domain)
    settings, clock = Settings(host="alpha"), LoopClock()
    return DiskSet(taps, settings, clock, left_open=False, on_failure=lambda vdev, error: None, alone=lambda: False)


def test_a_new_agent_serves_all_taps_in_the_time_of_one() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        await pair.protect()
        await pair.kill_agent(pair.alpha)
        for vdev in DISKS:
            pair.volume(vdev).takes = 1.0
        began = now()
        await pair.boot(pair.alpha).resume()
        await until(lambda: all(pair.volume(vdev).tap is not None for vdev in DISKS), "served")
        assert now() - began < 1.1

    run(story())


def test_taps_are_closed_at_the_same_time_and_all_of_them() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        disks = await set_of(pair)
        await disks.open()
        for vdev in DISKS:
            pair.volume(vdev).takes = 1.0
        pair.volume("xvda").stuck = True
        began = now()
        with pytest.raises(DiskError, match="xvda is stuck"):
            await disks.close()
        assert now() - began < 1.1
        assert [pair.volume(vdev).map_id is None for vdev in DISKS] == [False, True, True]

    run(story())


def test_a_session_is_left_in_the_time_of_one_disk() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        await pair.protect()
        disks = on(pair.alpha)._primaries["web1"]._parts.disks
        assert disks is not None
        for channel in disks._channels:
            close = channel._connection.close

            async def slowly(close=close) -> None:  # type: ignore[no-untyped-def]
                await asyncio.sleep(1)
                await close()

            channel._connection.close = slowly  # type: ignore[method-assign]
        began = now()
        await disks.end()
        assert now() - began < 1.1

    run(story())


def test_a_backup_stops_its_disks_in_the_time_of_one() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        await pair.protect()
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        feeds = copy._disks._feeds.values()
        for feed in feeds:
            stop = feed.stop

            async def slowly(error, stop=stop, vdev=feed.facts.vdev) -> None:  # type: ignore[no-untyped-def]
                await asyncio.sleep(1)
                await stop(error)
                if vdev == "xvda":
                    raise ConnectionLost("xvda did not end well")

            feed.stop = slowly  # type: ignore[method-assign]
        began = now()
        with pytest.raises(ConnectionLost, match="xvda"):
            await copy._disks.stop()
        assert now() - began < 1.1
        assert all(feed._stopped is not None for feed in feeds)

    run(story())


class SlowReplicas(SimReplicas):
    """Each takes a second to open. fails: those that cannot be."""

    def __init__(self, stores: SimStores, *fails: str) -> None:
        super().__init__(stores)
        self.fails = fails

    async def open(self, domain: str, disk: DiskFacts, committed: CommitRecord | None) -> SimReplica:
        await asyncio.sleep(1)
        if disk.vdev in self.fails:
            raise DiskError(f"{disk.vdev} cannot be opened")
        return await super().open(domain, disk, committed)


def slow(pair: Pair, *fails: str) -> tuple[DomainReplicas, list[DiskFacts], dict[str, SimStore]]:
    """Replicas of a domain, its disks, and what stands on the backup by disk."""
    stores: SimStores = pair.beta.stores
    replicas = DomainReplicas("web1", SlowReplicas(stores, *fails))
    for vdev in DISKS:
        stores.by_disk["web1", vdev] = SimStore(bytearray(pair.volume(vdev).facts.size))
    return replicas, [pair.volume(vdev).facts for vdev in DISKS], {vdev: stores.by_disk["web1", vdev] for vdev in DISKS}


def test_a_backup_opens_its_disks_in_the_time_of_one() -> None:
    async def story() -> None:
        replicas, facts, stores = slow(Pair(DISKS))
        began = now()
        await replicas.open("session", facts, None, replicas.turn)
        assert now() - began < 1.1
        assert all(stores[vdev].user is replicas.of(vdev) for vdev in DISKS)
        await replicas.leave("session")
        assert [store.user for store in stores.values()] == [None] * 3

    run(story())


@pytest.mark.parametrize("fails", [["xvdb"], ["xvdc", "xvda"]])
def test_one_that_cannot_be_opened_leaves_none_open(fails: list[str]) -> None:
    async def story() -> None:
        replicas, facts, stores = slow(Pair(DISKS), *fails)
        with pytest.raises(DiskError, match="cannot be opened") as caught:
            await replicas.open("session", facts, None, replicas.turn)
        said = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
        assert [vdev for vdev in DISKS if vdev in said] == sorted(fails)
        assert [store.user for store in stores.values()] == [None] * 3

    run(story())


def test_opening_that_is_given_up_leaves_none_open() -> None:
    async def story() -> None:
        replicas, facts, stores = slow(Pair(DISKS))
        opening = asyncio.create_task(replicas.open("session", facts, None, replicas.turn))
        await asyncio.sleep(0.5)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert [store.user for store in stores.values()] == [None] * 3
        await replicas.open("session", facts, None, replicas.turn)

    run(story())


def test_the_first_error_is_raised_when_all_is_done() -> None:
    async def story() -> None:
        done: list[int] = []

        async def work(number: int, fails: bool) -> None:
            await asyncio.sleep(number)
            done.append(number)
            if fails:
                raise DiskError(f"number {number}")

        with pytest.raises(DiskError, match="number 1") as caught:
            await all_done([work(3, True), work(1, True), work(2, False)])
        assert done == [1, 2, 3]
        assert caught.value.__notes__ == ["number 3"]

    run(story())


def test_a_copy_that_fails_ends_the_others_at_once() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        await pair.protect()
        disks = on(pair.alpha)._primaries["web1"]._parts.disks
        assert disks is not None
        for channel in disks._channels:

            async def copy(vdev: str = channel.vdev) -> None:
                await asyncio.sleep(1 if vdev == "xvdc" else 1000)
                raise DiskError(f"{vdev} failed")

            channel.copy = copy  # type: ignore[method-assign]
        began = now()
        with pytest.raises(DiskError, match="xvdc failed"):
            await disks.copy()
        assert now() - began < 1.1

    run(story())


def test_a_failover_that_ends_does_not_let_sessions_in_while_another_goes_on() -> None:
    async def story() -> None:
        pair = Pair(DISKS)
        stores: SimStores = pair.beta.stores
        assert pair.beta.replicas is not None
        replicas = DomainReplicas("web1", pair.beta.replicas)
        facts = [pair.volume("xvda").facts]
        with replicas.failing_over():
            with replicas.failing_over():
                pass
            with pytest.raises(RefusedError, match="being activated"):
                await replicas.open("session", facts, None, replicas.turn)
        await replicas.open("session", facts, None, replicas.turn)
        assert stores.by_disk["web1", "xvda"].user is not None

    run(story())
