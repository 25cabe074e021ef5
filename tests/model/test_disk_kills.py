"""G2 with disks: whenever a primary dies, memory and all disks of the activated copy are of the same epoch, the newest
committed one, and every frame that has left the host is covered by it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from remus_agent.machines.backup import State
from remus_agent.machines.primary import State as PrimaryState
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, until

DISKS = ("xvda", "xvdb")
GROUPS, EACH = 12, 20


@dataclass
class Truth:
    """What the guest was at the end of each epoch of each session: memory and disks."""

    pair: Pair
    at: dict[tuple[str | None, int | None], tuple[bytes, dict[str, bytes]]] = field(default_factory=dict)

    def note(self) -> None:
        """In the suspended window."""
        service = on(self.pair.alpha)._primaries["web1"]
        disks = {vdev: bytes(self.pair.volume(vdev).content) for vdev in DISKS}
        self.at[service.session_id, service.commit.waiting] = (bytes(self.pair.guest.memory), disks)


async def work(pair: Pair, rng: random.Random) -> None:
    """The guest counts, in memory and on its disks in turn, and tells its clients each number that is everywhere."""
    count = 0
    steps = ["memory", *DISKS]
    if rng.random() < 0.5:
        steps = [*DISKS, "memory"]
    while True:
        count += 1
        mark = count.to_bytes(8, "big")
        for step in steps:
            if not pair.guest.running:
                return
            if step == "memory":
                pair.guest.write(1, mark)
            else:
                pair.volume(step).write(rng.randrange(128) * 512, mark)
                pair.volume(step).write(0, mark)
            await asyncio.sleep(rng.uniform(0, 0.004))
        if pair.guest.running:
            pair.guest.write(2, mark)
            pair.output.emit(str(count))


async def kill(pair: Pair, rng: random.Random) -> None:
    """alpha loses power: what is on its way still arrives, or not; its end is noticed at once, or by silence."""
    how = rng.choice(("noticed", "in flight", "unheard"))
    if how == "unheard":
        pair.network.cut()
    if how == "noticed":
        await pair.kill_host()
    else:
        await pair.kill_agent(pair.alpha)
        pair.guest.running = False


async def story(seed: int) -> None:
    rng = random.Random(seed)
    pair = Pair(DISKS, retry=0.3)
    for vdev in DISKS:
        pair.volume(vdev).write(0, rng.randbytes(20_000))
    truth = Truth(pair)
    pair.alpha.xen.in_window = truth.note
    pair.network.delay = lambda: rng.uniform(0, 0.004)
    pair.beta.disk.delay = lambda: rng.uniform(0, 0.006)
    pair.beta.stores.delay = lambda: rng.choice((0.0, rng.uniform(0, 0.006)))
    await pair.protect()
    guest = asyncio.create_task(work(pair, rng))
    for _ in range(rng.choice((0, 0, 1, 2))):
        await asyncio.sleep(rng.uniform(0, 0.4))
        await pair.network.drop_all()
    await asyncio.sleep(rng.uniform(0, 1.2))
    service = on(pair.alpha)._primaries["web1"]
    session = service.session_id
    acked = service.acked_epoch if service.state is PrimaryState.PROTECTED else 0
    await kill(pair, rng)
    await guest
    await asyncio.sleep(40)
    copy = on(pair.beta).backup.copy_of("web1")
    assert copy is not None
    await until(lambda: copy.state is State.ORPHANED, "orphaned")
    await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
    assert copy.state is State.ACTIVE
    last = pair.beta.disk.journals["web1"].records[-1]
    assert (copy.hello.session, copy.committed_epoch) == (last.session, last.epoch)
    assert session != last.session or last.epoch >= acked
    memory, disks = truth.at[last.session, last.epoch]
    survivor = pair.beta.xen.guests["web1"]
    assert bytes(survivor.memory) == memory
    assert {vdev: pair.copied(vdev) for vdev in DISKS} == disks
    begun, done = (int.from_bytes(survivor.read(page, 8), "big") for page in (1, 2))
    on_disks = [int.from_bytes(pair.copied(vdev)[:8], "big") for vdev in DISKS]
    if done:
        assert {begun, *on_disks} <= {done, done + 1}
    assert max(map(int, pair.output.out), default=0) <= done
    assert not pair.beta.stores.violations


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_primary_that_dies_at_any_moment(group: int) -> None:
    for seed in range(group * EACH, (group + 1) * EACH):
        try:
            run(story(seed))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
