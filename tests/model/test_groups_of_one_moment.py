"""The host of a group is killed at any time: its members go on from one moment, and none knows more of the other than that one.

Under the seeded fault `members-apart` the same checks must fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterator

import pytest

from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.machines.authority import Ownership
from remus_agent.protocol.groups import Groups, group_uuid
from tests.model.group_pair import ANSWERS, APP, DB, GROUP, MEMBERS, OTHERS, OWN, REQUESTS, GroupPair, number
from tests.model.loop import run
from tests.model.pair import DEAD, on, until

SEEDS = range(40)
ALPHAS = ("receive ", "work ")
"""Names of tasks that a primary's session has."""
UUID = group_uuid(GROUP, MEMBERS)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def killed_at_any_time(seed: int) -> str | None:
    """What is wrong with the members after the host has died and the group went on; None: nothing."""
    rng = random.Random(seed)
    pair = GroupPair({DB: ["xvda"]} if seed % 3 == 0 else None)
    pair.network.delay = lambda: rng.random() * 0.004
    pair.alpha.xen.suspends = lambda _: rng.random() * 0.03
    pair.beta.disk.delay = lambda: rng.random() * 0.003
    moments = _watch_barriers(pair)
    working = asyncio.create_task(pair.run(1000.0, 0.001))
    await pair.protect()
    await asyncio.sleep(0.3 + rng.random() * 0.5)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    left = {name: pair.left(name) for name in MEMBERS}
    await pair.orphan()
    copy = on(pair.beta).backup.copy_of(GROUP)
    assert copy is not None
    await on(pair.beta).failover(GROUP, generation=None, session=None, fenced=DEAD)
    return _judge(pair, moments[copy.committed_epoch], left)


def _watch_barriers(pair: GroupPair) -> dict[int, dict[str, bytes]]:
    """The memory of both at the moment at which each epoch ends, as it is filled."""
    moments: dict[int, dict[str, bytes]] = {}
    host = on(pair.alpha)

    def look() -> None:
        epoch = host._primaries[GROUP].commit.waiting
        if epoch is not None and epoch not in moments:
            moments[epoch] = {name: bytes(guest.memory) for name, guest in pair.guests.items()}

    pair.alpha.xen.in_window = look
    return moments


def _judge(pair: GroupPair, moment: dict[str, bytes], left: dict[str, list[str]]) -> str | None:
    moved = pair.moved()
    if sorted(moved) != sorted(MEMBERS):
        return f"{sorted(moved)} went on"
    for name in MEMBERS:
        if bytes(moved[name].memory) != moment[name]:
            return f"{name} is of another moment than the end of the committed epoch"
    app, db = moved[APP], moved[DB]
    if number(app, OTHERS) > number(db, OWN) or number(db, OTHERS) > number(app, OWN):
        return "one knows more of the other than that one does"
    if number(app, ANSWERS) > number(db, REQUESTS) or number(db, REQUESTS) > number(app, REQUESTS):
        return "a request was carried out or answered that nobody knows of"
    for name, page in ((APP, REQUESTS), (DB, REQUESTS)):
        told = [int(frame.split()[1]) for frame in left[name]]
        if told and told[-1] > number(moved[name], page):
            return f"what {name} sent is not known to it"
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_members_are_of_one_moment_whenever_their_host_dies(seed: int) -> None:
    assert run(killed_at_any_time(seed)) is None


def test_members_that_do_not_meet_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.MEMBERS_APART.value)
    wrong = [found for seed in range(10) if (found := run(killed_at_any_time(seed))) is not None]
    assert len(wrong) > 5, wrong


def _witnessed() -> tuple[SimWitness, GroupPair]:
    witness = SimWitness()
    pair = GroupPair(
        witnesses={name: witness.of(name) for name in ("alpha", "beta")},
        connect=1.0,
        suspend=1.0,
        ack=4.0,
        silence=3.0,
        heartbeat=1.0,
        activate=5.0,
        retry=1.0,
        detect=3.0,
        solo=8.0,
    )
    return witness, pair


async def _protected() -> tuple[SimWitness, GroupPair]:
    """The group has been protected for a second."""
    witness, pair = _witnessed()
    for host in (pair.alpha, pair.beta):
        await on(host).resume()
    await pair.protect()
    await pair.run(1.0)
    return witness, pair


def _record(witness: SimWitness) -> Ownership:
    return witness.records[UUID].ownership


def test_one_record_decides_for_all_members() -> None:
    """The witness gives the group to the backup, or to nobody: both members go over together, by themselves."""

    async def story() -> None:
        witness, pair = await _protected()
        await until(lambda: _record(witness).state == "protected", "the record names the backup")
        assert [*witness.records] == [UUID]
        assert _record(witness).name == GROUP
        await pair.kill_host()
        await until(lambda: sorted(pair.moved()) == sorted(MEMBERS), "both run on beta")
        assert _record(witness).owner == "beta"
        assert (await pair.status(pair.beta)).state == "solo"

    run(story())


def test_a_host_that_is_cut_off_gives_all_members_up() -> None:
    async def story() -> None:
        witness, pair = await _protected()
        witness.cut.add("alpha")
        pair.network.cut()
        await until(lambda: sorted(pair.moved()) == sorted(MEMBERS), "both run on beta")
        for name in MEMBERS:
            pair.emit(name, "stale 9999")
        witness.cut.clear()
        await until(lambda: not any(guest.running for guest in pair.guests.values()), "both are paused on alpha")
        pair.network.heal()
        await until(lambda: on(pair.beta)._primaries[GROUP].state.value == "protected", "protected the other way", 600)
        assert [name for name in pair.alpha.xen.guests if name in MEMBERS] == []
        assert all("stale 9999" not in output.out for output in pair.alpha.outputs.by_name.values())

    run(story())


def test_a_member_that_is_started_by_hand_while_the_group_is_stood_down_is_paused() -> None:
    """As a guest alone is. Until then what it sends is held."""

    async def story() -> None:
        witness, pair = _witnessed()
        for host in (pair.alpha, pair.beta):
            await on(host).resume()
        await pair.protect()
        await until(lambda: _record(witness).state == "protected", "the record names the backup")
        witness.cut.add("alpha")
        pair.network.cut()
        await until(lambda: sorted(pair.moved()) == sorted(MEMBERS), "both run on beta")
        witness.cut.clear()
        await until(lambda: on(pair.alpha)._primaries[GROUP].state.value == "stood-down", "stood down")
        await pair.alpha.xen.destroy(APP)
        anew = pair.alpha.xen.create(APP, "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00a2")
        await until(lambda: not anew.running, "paused")
        assert anew.domain.vifs[0].device in pair.alpha.outputs.by_name[APP].plugged
        pair.alpha.xen.guests[DB].running = True
        await until(lambda: not pair.alpha.xen.guests[DB].running, "paused as well")
        await until(lambda: on(pair.alpha)._primaries[GROUP].state.value == "stood-down", "stood down")
        pair.network.heal()
        await until(lambda: on(pair.beta)._primaries[GROUP].state.value == "protected", "protected the other way", 600)
        assert [name for name in pair.alpha.xen.guests if name in MEMBERS] == []

    run(story())


async def _lose_agent_of_beta(pair: GroupPair) -> None:
    """SIGKILL, and another one is started. What of alpha runs goes on."""
    alive = set(on(pair.alpha)._primaries.tasks.values()) if pair.alpha.agent is not None else set()
    for task in asyncio.all_tasks() - {asyncio.current_task(), *alive}:
        if not task.get_name().startswith(ALPHAS):
            task.cancel()
    await asyncio.sleep(0)
    await pair.network.drop_all()
    pair.beta.xen.lose_agent()
    for journal in pair.beta.disk.journals.values():
        journal.is_open = False
    await pair.boot(pair.beta).resume()


@pytest.mark.parametrize("moment", range(24))
def test_a_new_owner_whose_agent_dies_runs_all_members_or_none(moment: int) -> None:
    """Each step of each member's activation takes its time, and beta's agent is killed in between."""

    async def story() -> None:
        witness, pair = await _protected()
        rng = random.Random(moment)
        pair.beta.xen.step = rng.random
        await pair.kill_host()
        await until(lambda: _record(witness).owner == "beta", "taken over")
        await asyncio.sleep(rng.random() * 3.5)
        noted = pair.beta.disk.guests[GROUP]
        await _lose_agent_of_beta(pair)
        if noted.role == "primary":
            await until(lambda: sorted(pair.moved()) == sorted(MEMBERS), "both run")
        else:
            await asyncio.sleep(30)
            assert pair.moved() == {}

    run(story())


def test_members_that_were_about_to_run_wait_for_the_right_configuration() -> None:
    """They may be all there is of the group: an agent that does not know it leaves them as they are."""

    async def story() -> None:
        _, pair = await _protected()
        pair.beta.xen.step = lambda: 1.0
        await pair.kill_host()
        await until(lambda: bool(pair.beta.disk.guests.get(GROUP) and pair.beta.disk.guests[GROUP].starting), "noted")
        pair.beta.groups = Groups()
        await _lose_agent_of_beta(pair)
        await asyncio.sleep(60)
        assert len(pair.beta.xen.guests) == 2
        assert pair.moved() == {}
        pair.beta.groups = Groups({GROUP: MEMBERS})
        await _lose_agent_of_beta(pair)
        await until(lambda: sorted(pair.moved()) == sorted(MEMBERS), "both run")

    run(story())


@pytest.mark.parametrize("moment", range(24))
def test_a_hand_over_whose_receiver_dies_leaves_all_members_on_one_host(moment: int) -> None:
    """Without a witness: the primary hears from the next agent what has become of them."""

    async def story() -> None:
        pair = GroupPair(connect=1.0, ack=4.0, silence=3.0, heartbeat=1.0, activate=5.0, retry=1.0)
        await pair.protect()
        await pair.run(1.0)
        rng = random.Random(moment)
        pair.beta.xen.step = rng.random
        primary = on(pair.alpha)._primaries[GROUP]
        primary.switchover.ask(30)
        await until(lambda: primary.state.value == "handed-over", "handed over")
        await asyncio.sleep(rng.random() * 3.5)
        await _lose_agent_of_beta(pair)
        await until(lambda: primary.state.value in ("departed", "protected"), "settled", 100)
        here = sorted(name for name in pair.alpha.xen.guests if name in MEMBERS)
        there = sorted(name for name, guest in pair.beta.xen.guests.items() if guest.running)
        assert (here, there) in (([], sorted(MEMBERS)), (sorted(MEMBERS), []))

    run(story())
