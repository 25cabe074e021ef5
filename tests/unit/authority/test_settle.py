"""`Authority.settle` against a witness with faults: what is believed to be done is done."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.adapters.sim.local import LoopClock, SimEvents
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.errors import WitnessUnknown, WitnessUnreachable
from remus_agent.machines.authority import Ownership, Stake, Verdict, Want
from remus_agent.services.authority import Authority
from tests.model.loop import run

GUEST = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
OFFERED = Ownership("alpha", 2, "protected", "beta", "web1", "", "alpha")
TAKE = Stake(Want.TAKE, "beta", "web1", 2, "alpha", "test")
ALONE = Stake(Want.ALONE, "alpha", "web1", 0, "beta", "test")


def authority(witness: SimWitness, host: str = "beta") -> Authority:
    return Authority(witness.of(host), host, LoopClock(), SimEvents())


def noting(witness: SimWitness, events: SimEvents) -> Authority:
    return Authority(witness.of("beta"), "beta", LoopClock(), events)


def offered() -> SimWitness:
    witness = SimWitness()
    witness.write(GUEST, OFFERED)
    return witness


def test_a_change_that_another_one_has_overtaken_is_not_taken_for_made() -> None:
    witness = offered()
    travels = 0

    def overtake(_: str) -> float:
        """On the way of the change, after both ways of the reading."""
        nonlocal travels
        travels += 1
        if travels == 3:
            witness.write(GUEST, Ownership("alpha", 3, "solo", None, "web1", "", "alpha"))
        return 0.0

    witness.delay = overtake
    settled = run(authority(witness).settle(GUEST, TAKE, until_known=True))
    assert settled.verdict is Verdict.STAND_DOWN
    assert witness.records[GUEST].ownership.owner == "alpha"


def test_a_change_whose_answer_was_lost_is_found_to_be_made_and_not_made_twice() -> None:
    witness = offered()
    lost = [True]
    witness.lose_answer = lambda _: bool(lost and lost.pop())
    events = SimEvents()
    settled = run(noting(witness, events).settle(GUEST, TAKE))
    assert settled.verdict is Verdict.GO
    assert not lost, "the answer was lost"
    assert events.noted == [("web1", "ownership")]
    assert (witness.records[GUEST].ownership.owner, witness.records[GUEST].ownership.generation) == ("beta", 3)


@pytest.mark.parametrize("until_known", [True, False])
def test_a_conflict_may_be_the_answer_to_a_change_of_ours_that_was_asked_for_twice(until_known: bool) -> None:
    """It says that nothing was changed by what it answers. Until the record is read again nobody knows what came of the other."""

    async def story() -> None:
        witness = offered()
        again = [0.0]
        witness.twice = lambda _: again.pop() if again else None
        travels = 0

        def goes_away(_: str) -> float:
            """With the reading after the conflict: that of before, and the change, travel there and back."""
            nonlocal travels
            travels += 1
            witness.down = witness.down or travels == 5
            return 0.0

        witness.delay = goes_away
        asking = asyncio.create_task(authority(witness).settle(GUEST, TAKE, until_known=until_known))
        if not until_known:
            with pytest.raises(WitnessUnknown):
                await asking
            return
        await LoopClock().sleep(20)
        assert not asking.done()
        witness.down = False
        settled = await asking
        assert settled.verdict is Verdict.GO
        assert settled.record is not None
        assert (settled.record.owner, settled.record.generation) == ("beta", 3)

    run(story())


def test_a_request_that_is_still_under_way_is_made_void_by_running_on_alone() -> None:
    """The registration arrives after the primary has given it up: by then the record has another revision."""

    async def story() -> None:
        witness = SimWitness(timeout=0.1)
        witness.write(GUEST, Ownership("alpha", 1, "solo", None, "web1", "", "alpha"))
        late = [3.0]
        witness.late = lambda _: late.pop() if late else None
        register = Stake(Want.REGISTER, "alpha", "web1", 2, "beta", "test")
        there = witness.records[GUEST]
        named = register.change(Verdict.PROTECT, there.ownership)
        assert named is not None
        with pytest.raises(WitnessUnknown):
            await witness.of("alpha").change(GUEST, there, named)
        settled = await authority(witness, "alpha").settle(GUEST, ALONE)
        assert settled.verdict is Verdict.GO
        await LoopClock().sleep(5)
        assert (witness.records[GUEST].ownership.state, witness.records[GUEST].ownership.generation) == ("solo", 2)

    run(story())


def test_a_witness_that_is_not_reached_has_changed_nothing() -> None:
    witness = offered()
    witness.down = True
    with pytest.raises(WitnessUnreachable):
        run(authority(witness).settle(GUEST, TAKE, until_known=True))
    assert witness.records[GUEST].ownership == OFFERED
