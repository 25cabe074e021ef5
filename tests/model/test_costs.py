"""What two whole agents say of the cost of a protection, by what a simulated kernel counts."""

from __future__ import annotations

from typing import Any

from remus_agent.adapters.sim.local import LoopClock
from remus_agent.cost_ports import Cost
from remus_agent.observe.status import PartCost, ProtectionCost, Status
from remus_agent.services.monitoring import Monitoring, Probes
from tests.model.group_pair import APP, DB, GROUP, GroupPair
from tests.model.loop import run
from tests.model.pair import Host, Pair, on, quiet, until


async def status(host: Host) -> Status:
    return await on(host).status("web1")


def test_each_host_says_what_it_spends() -> None:
    async def story() -> None:
        pair = Pair()
        alpha, beta = pair.alpha.costs, pair.beta.costs
        await pair.protect()
        alpha.by_guest["web1"] = {"checkpoints": Cost(3.0, 8192), "disks": Cost(1.25, 4096)}
        beta.by_guest["web1"] = {"copy": Cost(2.0, 1000)}
        alpha.by_guest["web2"] = {"disks": Cost(99.0, 99)}
        parts = (PartCost("checkpoints", 3.0, 8192), PartCost("disks", 1.25, 4096))
        assert (await status(pair.alpha)).cost == ProtectionCost(4.25, 12288, parts)
        copy = (await status(pair.beta)).cost
        assert copy is not None
        assert copy.cpu_seconds == 2.0
        assert [part.part for part in copy.parts] == ["copy"]
        assert copy.memory_bytes > 1000, "the state that an activation needs is kept, too"
        assert [one.cost for one in await on(pair.alpha).overview()] == [(await status(pair.alpha)).cost]

    run(story())


def test_an_epoch_counts_until_it_is_applied() -> None:
    """On the backup its pages are in memory from when they arrive until the paused domain has been given them."""
    seen: list[int] = []

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        (target,) = copy._image.targets._targets.values()
        feed = target.feed

        async def fed(buffers: Any) -> None:
            seen.append(copy.held["copy"])
            await feed(buffers)

        target.feed = fed  # type: ignore[method-assign]
        before = copy.committed_epoch
        pair.guest.write(1, b"changed")
        await until(lambda: copy.committed_epoch > before + 2, "some epochs")
        kept = copy.held["copy"]
        assert max(seen) > kept + 4096
        await on(pair.alpha).unprotect("web1", force=False, timeout=60, progress=quiet)
        assert copy.held == {"copy": 0, "disks": 0}

    run(story())


def test_no_protection_has_no_cost() -> None:
    async def story() -> None:
        pair = Pair()
        pair.alpha.costs.by_guest["web1"] = {"checkpoints": Cost(3.0, 0)}
        assert (await status(pair.alpha)).cost is None
        await pair.protect()
        assert (await status(pair.alpha)).cost is not None
        await on(pair.alpha).unprotect("web1", force=False, timeout=60, progress=quiet)
        assert (await status(pair.alpha)).cost is None

    run(story())


def test_what_is_not_known_is_null_and_the_rest_goes_on() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.alpha.costs.readable = False
        found = await status(pair.alpha)
        assert (found.state, found.cost) == ("protected", None)
        assert (await on(pair.alpha).agent())["shared_cost"] is None
        view = await Monitoring(on(pair.alpha), pair.alpha.xen, LoopClock(), Probes(lambda: True)).view()
        assert (view.shared_cpu_seconds, view.shared_memory_bytes) == (None, None)

    run(story())


def test_what_is_shared() -> None:
    """What the backup's services hold of an epoch is a guest's, so it is not said twice."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.alpha.costs.rest = pair.beta.costs.rest = Cost(7.0, 1 << 20)
        assert (await on(pair.alpha).agent())["shared_cost"] == {"cpu_seconds": 7.0, "memory_bytes": 1 << 20}
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        found = await on(pair.beta).shared_cost()
        assert found == Cost(7.0, (1 << 20) - sum(copy.held.values()))
        view = await Monitoring(on(pair.alpha), pair.alpha.xen, LoopClock(), Probes(lambda: True)).view()
        assert (view.shared_cpu_seconds, view.shared_memory_bytes) == (7.0, 1 << 20)

    run(story())


def test_each_member_of_a_group_has_its_own_and_the_group_all_of_it() -> None:
    """On the backup the epochs that were not applied yet are the group's, and no member's alone."""

    async def story() -> None:
        pair = GroupPair()
        pair.alpha.costs.by_guest = {APP: {"checkpoints": Cost(3.0, 8192)}, DB: {"disks": Cost(1.25, 4096)}}
        pair.beta.costs.by_guest = {APP: {"copy": Cost(2.0, 1000)}}
        found = await pair.protect()
        assert found.cost is not None
        assert (found.cost.cpu_seconds, found.cost.memory_bytes) == (4.25, 12288)
        assert [(one.domain, one.cost) for one in found.members] == [
            (APP, ProtectionCost(3.0, 8192, (PartCost("checkpoints", 3.0, 8192),))),
            (DB, ProtectionCost(1.25, 4096, (PartCost("disks", 1.25, 4096),))),
        ]
        copy, of_group = await pair.status(pair.beta), on(pair.beta).backup.copy_of(GROUP)
        assert copy.cost is not None
        assert of_group is not None
        assert [one.cost and one.cost.memory_bytes for one in copy.members] == [1000, 0]
        assert copy.cost.memory_bytes == 1000 + sum(of_group.held.values()) > 1000
        pair.alpha.costs.readable = False
        assert [one.cost for one in (await pair.status()).members] == [None, None]

    run(story())


def test_one_moment_is_one_look_however_many_guests() -> None:
    """What is a guest's, and what is nobody's alone, are of one reading, so they add up."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        costs = pair.alpha.costs
        monitoring = Monitoring(on(pair.alpha), pair.alpha.xen, LoopClock(), Probes(lambda: True))
        costs.read_times = 0
        await monitoring.view()
        assert costs.read_times == 1
        await on(pair.alpha).overview()
        assert costs.read_times == 2

    run(story())


def test_a_disks_epoch_counts_until_it_is_applied() -> None:
    seen: list[int] = []

    async def story() -> None:
        pair = Pair(("xvda",))
        await pair.protect()
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        (feed,) = copy._disks._feeds.values()
        apply = feed._replica.apply

        async def applied(epoch: int) -> None:
            seen.append(copy.held["disks"])
            await apply(epoch)

        feed._replica.apply = applied  # type: ignore[method-assign]
        pair.volume("xvda").write(512, b"x" * 1024)
        reached = copy.committed_epoch + 3
        await until(lambda: copy.committed_epoch >= reached, "some epochs")
        assert max(seen) >= 1024
        assert seen[-1] < 1024, "it was applied, and another epoch was without a write"

    run(story())
