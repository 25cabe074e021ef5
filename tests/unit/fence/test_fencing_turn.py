"""Two hosts that want to switch each other off: one may."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from remus_agent.adapters.sim.fencing import SimFencing
from remus_agent.adapters.sim.local import LoopClock, SimEvents
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.adapters.witness.record import decode, encode
from remus_agent.errors import FenceYielded, WitnessUnknown
from remus_agent.fence_config import MAX_TIMEOUT
from remus_agent.machines.authority import Ownership
from remus_agent.services.fencing import Fencer
from remus_agent.services.fencing_turn import BEGINS, LINGERS, FencingTurn, pair
from remus_agent.services.settings import Settings
from tests.model.loop import run

PAIR = pair("beta", "alpha")


def of(host: str) -> Settings:
    return Settings(host=host, retry=1.0)


class Side:
    """A host that owns a guest of the other one, which has to be fenced."""

    def __init__(self, witness: SimWitness, host: str, peer: str) -> None:
        self.host, self.peer = host, peer
        self.fencing = SimFencing(must={peer})
        self.events = SimEvents()
        clock = LoopClock()
        settings = of(host)
        turn = FencingTurn(witness.of(host), settings, clock)
        self.fencer = Fencer(self.fencing, turn, settings, clock, self.events)
        self.waits: asyncio.Task[None] | None = None
        self.on = True

    def begin(self) -> None:
        if not self.on:
            return
        copy: Any = SimpleNamespace(hello=SimpleNamespace(host=self.peer, domain="web1"), reason=None)
        self.waits = asyncio.create_task(self.fencer.before_activation(copy, {}))

    async def goes_off(self) -> None:
        """Whatever it was about to do."""
        self.on = False
        if self.waits is not None:
            self.waits.cancel()
        await self.fencer.close()

    @property
    def activates(self) -> bool:
        return self.waits is not None and self.waits.done() and not self.waits.cancelled()


def both(witness: SimWitness) -> tuple[Side, Side]:
    alpha, beta = Side(witness, "alpha", "beta"), Side(witness, "beta", "alpha")
    offs: set[asyncio.Task[None]] = set()
    for one, other in ((alpha, beta), (beta, alpha)):
        one.fencing.switch = lambda _, other=other: offs.add(asyncio.ensure_future(other.goes_off()))  # type: ignore[misc]
    return alpha, beta


@pytest.mark.parametrize("later", [-0.3, -0.1, 0.0, 0.1, 0.3])
@pytest.mark.parametrize("slow", [0.0, 0.1, 0.5])
def test_at_most_one_of_two_is_switched_off(later: float, slow: float) -> None:
    async def story() -> None:
        witness = SimWitness(delay=lambda host: slow if host == "alpha" else 0.1)
        alpha, beta = both(witness)
        first, second = (alpha, beta) if later >= 0 else (beta, alpha)
        first.begin()
        await asyncio.sleep(abs(later))
        second.begin()
        await asyncio.sleep(30)
        off = alpha.fencing.off | beta.fencing.off
        assert len(off) == 1
        assert [alpha.activates, beta.activates].count(True) == 1
        assert PAIR not in witness.records, "the turn is left when the other host was seen off"

    run(story())


def test_who_yields_says_so_and_tries_again() -> None:
    async def story() -> None:
        witness = SimWitness()
        alpha, beta = both(witness)
        alpha.fencing.hangs = True
        alpha.begin()
        await asyncio.sleep(0.1)
        beta.begin()
        await asyncio.sleep(10)
        assert not beta.fencing.asked
        assert "alpha is about to switch this host off" in str(beta.events.details("web1")[0][1]["reason"])
        assert alpha.waits is not None
        await alpha.goes_off()  # for another reason, and without a word
        await asyncio.sleep(LINGERS)
        assert not beta.fencing.asked, "what it has asked for may still be done"
        await asyncio.sleep(600)
        assert beta.activates
        assert PAIR not in witness.records

    run(story())


def test_a_turn_that_does_not_say_when_it_is_over_is_never_taken_over() -> None:
    async def story() -> None:
        witness = SimWitness()
        older = Ownership("alpha", 1, "solo", None, "beta", "it switches beta off", "alpha")
        witness.write(PAIR, older)
        _, beta = both(witness)
        beta.begin()
        await asyncio.sleep(4000)
        assert not beta.fencing.asked
        assert witness.records[PAIR].ownership == older

    run(story())


def test_a_turn_is_over_when_that_is_so_by_the_slower_clock_too() -> None:
    """Both are wrong by a tenth at most: 90 s of the other host are 110 s of this one at most."""

    async def story() -> None:
        witness = SimWitness()
        witness.write(
            PAIR, Ownership("alpha", 1, "solo", None, "beta", "it switches beta off, over after 90 s", "alpha")
        )
        turn = FencingTurn(witness.of("beta"), of("beta"), LoopClock())
        for pause in (0, 91, 18):
            await asyncio.sleep(pause)
            with pytest.raises(FenceYielded):
                await turn.take("alpha", 60.0)
        await asyncio.sleep(2)
        await turn.take("alpha", 60.0)
        assert witness.records[PAIR].ownership.owner == "beta"

    run(story())


def test_a_turn_that_came_late_is_not_used() -> None:
    async def story() -> None:
        witness = SimWitness(delay=lambda host: BEGINS if host == "alpha" else 0.1)
        alpha, _ = both(witness)
        alpha.begin()
        await asyncio.sleep(10 * BEGINS)
        assert not alpha.fencing.asked
        witness.delay = lambda _: 0.1
        await asyncio.sleep(600)
        assert alpha.activates

    run(story())


def test_a_host_that_cannot_fence_lets_the_other_one_do_it() -> None:
    async def story() -> None:
        witness = SimWitness()
        alpha, beta = both(witness)
        alpha.fencing.broken = True
        alpha.begin()
        await asyncio.sleep(0.1)
        beta.begin()
        await asyncio.sleep(LINGERS / 2)
        assert not beta.fencing.asked, "what it has asked for may still be done"
        await asyncio.sleep(1200)
        assert (alpha.fencing.off, beta.fencing.off, beta.activates) == (set(), {"alpha"}, True)

    run(story())


def test_a_turn_that_an_earlier_agent_has_left_is_cleared_up() -> None:
    async def story() -> None:
        witness = SimWitness()
        witness.write(PAIR, Ownership("alpha", 1, "solo", None, "beta", "", "alpha"))
        alpha, beta = both(witness)
        beta.fencer.start(["alpha"])
        await asyncio.sleep(2 * LINGERS)
        assert PAIR in witness.records, "it is the other one's"
        alpha.fencer.start(["beta"])
        await asyncio.sleep(2 * LINGERS)
        assert PAIR not in witness.records

    run(story())


def test_a_turn_that_was_taken_unheard_is_left() -> None:
    async def story() -> None:
        witness = SimWitness(lose_answer=lambda _: True)
        turn = FencingTurn(witness.of("alpha"), of("alpha"), LoopClock())
        with pytest.raises(WitnessUnknown):
            await turn.take("beta", 60.0)
        assert PAIR in witness.records
        witness.lose_answer = lambda _: False
        await asyncio.sleep(2 * LINGERS)
        assert PAIR not in witness.records

    run(story())


def test_its_record_is_one_that_etcd_takes() -> None:
    async def story() -> None:
        witness, host = SimWitness(), "xen-1.rack2.example.com"
        await FencingTurn(witness.of(host), of(host), LoopClock()).take("xen2.example.com", MAX_TIMEOUT)
        (found,) = witness.records.values()
        assert decode(encode(found.ownership)) == found.ownership

    run(story())


def test_without_an_answer_of_the_witness_nobody_is_switched_off() -> None:
    async def story() -> None:
        witness = SimWitness(lose_answer=lambda _: True)
        alpha, _ = both(witness)
        alpha.begin()
        await asyncio.sleep(10)
        assert not alpha.fencing.asked
        assert witness.records[PAIR].ownership.owner == "alpha", "the change was made, and nobody knew"
        witness.lose_answer = lambda _: False
        await asyncio.sleep(30)
        assert alpha.activates

    run(story())
