"""Two hosts that want to switch each other off, under seeded faults: never are both switched off, and one that dies, is frozen or
is cut off while it is its turn does not keep the other one waiting for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from remus_agent.adapters.sim.local import SimEvents
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.errors import FenceTimeout, FencingError
from remus_agent.fence_ports import Fenced
from remus_agent.machines.authority import Ownership
from remus_agent.services import fencing_turn
from remus_agent.services.fencing import LONGEST_PAUSE, Fencer
from remus_agent.services.fencing_turn import LINGERS, FencingTurn
from remus_agent.services.settings import Settings
from tests.model.hosts import HostClock
from tests.model.scheduler import OUTSIDE, Node, Scheduler, run_scheduled

SEEDS = 300
FOUND_WITHIN = 10000
TROUBLE = 400.0
"""Seconds in which faults happen; afterwards every fence agent and the witness work."""
END = TROUBLE + 1000.0
"""Until when a host that is left waits at most: for a turn to be over, and for two pauses between its attempts."""
TIMEOUT = 60.0
"""Of a fence agent, in seconds."""


class Pair:
    """Two hosts, each of which owns a guest of the other one that may run when that is off."""

    def __init__(self, loop: Scheduler, rng: random.Random) -> None:
        self.loop, self.rng = loop, rng
        self.witness = SimWitness(
            delay=lambda _: rng.random() * 0.3,
            lose_answer=lambda _: self.trouble and rng.random() < 0.1,
            late=lambda _: rng.random() * 30 if self.trouble and rng.random() < 0.1 else None,
        )
        # A clock may be wrong by the tenth of itself that `Settings.drift` allows; both are, against each other, at times.
        rates = rng.choice(((1.0, 1.0), (0.9, 1.1), (1.1, 0.9)))
        self.sides = {
            name: Side(self, name, other, rate)
            for (name, other), rate in zip((("alpha", "beta"), ("beta", "alpha")), rates, strict=True)
        }

    @property
    def trouble(self) -> bool:
        """Whether things still go wrong."""
        return self.loop.time() < TROUBLE


class Side:
    """One of them, with its fence agent. fenced: the other one has switched it off."""

    def __init__(self, pair: Pair, name: str, other: str, rate: float) -> None:
        self.pair, self.name, self.other = pair, name, other
        self.node = pair.loop.add(Node(name))
        self.dead = self.fenced = False
        settings = Settings(host=name, retry=pair.rng.uniform(1.0, 6.0))
        self.clock = HostClock(pair.loop, rate)
        turn = FencingTurn(pair.witness.of(name), settings, self.clock)
        self.fencer = Fencer(self, turn, settings, self.clock, SimEvents())  # type: ignore[arg-type]
        self.waits: asyncio.Task[None] | None = None

    def begin(self) -> None:
        copy: Any = SimpleNamespace(hello=SimpleNamespace(host=self.other, domain="web1"), reason=None)
        self.waits = self.node.spawn(self.fencer.before_activation(copy, {}))

    def thaw(self) -> None:
        self.node.stopped = self.dead

    def die(self) -> None:
        self.node.stopped = self.dead = True

    # Its fence agent

    def covers(self, _: str) -> bool:
        return True

    required = covers

    def longest(self, _: str) -> float:
        return TIMEOUT

    async def fence(self, host: str) -> Fenced:
        """What is done is done by another machine: also after the agent has been killed, or this host has died."""
        rng = self.pair.rng
        if not self.pair.trouble:
            self._switch(host)
            return Fenced(host, "fence_sim", 0.0, confirmed=True)
        done = rng.uniform(0, 2 * TIMEOUT)  # by this host's clock, as its timeout is
        if rng.random() < 0.5 and done < TIMEOUT + LINGERS:
            after = done / self.clock.rate
            asyncio.get_running_loop().call_later(after, self._switch, host, context=OUTSIDE.copy())
            if done < TIMEOUT:
                await self.clock.sleep(done + 0.1)
                return Fenced(host, "fence_sim", 0.0, confirmed=True)
        elif rng.random() < 0.5:
            raise FencingError("it does not answer", operation="fence")
        await self.clock.sleep(TIMEOUT)
        raise FenceTimeout("it was killed", operation="fence")

    def _switch(self, host: str) -> None:
        other = self.pair.sides[host]
        if not other.dead:
            other.fenced = True
            other.die()


def outcome(seed: int) -> str | None:
    """What is wrong with the run of this seed."""
    rng = random.Random(seed)

    async def main(loop: Scheduler) -> str | None:
        pair = Pair(loop, rng)
        alpha, beta = pair.sides.values()

        def outside(at: float, call: Callable[..., object], *given: object) -> None:
            loop.call_later(at, call, *given, context=OUTSIDE.copy())

        for side in (alpha, beta):
            outside(rng.uniform(0, 20), side.begin)
        fault, at = (
            rng.choice(("none", "dies", "frozen", "frozen over the answer", "cut off")),
            rng.uniform(0, TROUBLE / 4),
        )
        if fault == "dies":
            outside(at, alpha.die)
        elif fault == "cut off":
            outside(at, pair.witness.cut.add, "alpha")
            outside(TROUBLE, pair.witness.cut.clear)
        elif fault == "frozen":
            outside(at, setattr, alpha.node, "stopped", True)
            outside(rng.uniform(at, TROUBLE), alpha.thaw)
        elif fault == "frozen over the answer":

            def freeze(_: str, now: Ownership | None) -> None:
                if now is not None and now.owner == "alpha" and loop.time() >= at:
                    pair.witness.changed = lambda *_: None
                    alpha.node.stopped = True
                    outside(rng.uniform(0, TROUBLE - loop.time()), alpha.thaw)

            pair.witness.changed = freeze
        await asyncio.sleep(END)
        if alpha.fenced and beta.fenced:
            return f"{fault}: both were switched off"
        left = [side for side in (alpha, beta) if not side.dead]
        if len(left) == 2 or (not left and fault != "dies"):
            return f"{fault}: {len(left)} hosts are left"
        waits = [side.name for side in left if side.waits is None or not side.waits.done()]
        return f"{fault}: {waits[0]} is left and waits" if waits else None

    found: str | None = run_scheduled(rng, main)
    return found


def failures(seeds: range) -> dict[int, str]:
    return {seed: found for seed in seeds if (found := outcome(seed)) is not None}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_one_is_switched_off_and_the_other_one_does_not_wait_for_ever() -> None:
    assert LONGEST_PAUSE * 2 + 1.3 * (fencing_turn.BEGINS + TIMEOUT + LINGERS) < END - TROUBLE
    assert failures(range(SEEDS)) == {}


def both_go_off() -> bool:
    """Whether some seed finds that; the faults that a test takes a rule away for are rare."""
    return any("both were switched off" in (outcome(seed) or "") for seed in range(FOUND_WITHIN))


def test_a_turn_that_is_used_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlimited(float):
        """What a turn says is as before, and nothing is later than this."""

        def __lt__(self, other: float) -> bool:
            return False

    monkeypatch.setattr(fencing_turn, "BEGINS", Unlimited(fencing_turn.BEGINS))
    assert both_go_off()


def test_a_turn_that_is_taken_over_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FencingTurn, "_is_over", lambda *_: True)
    assert both_go_off()


def test_a_turn_that_is_never_taken_over_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FencingTurn, "_is_over", lambda *_: False)
    assert "dies: beta is left and waits" in failures(range(SEEDS)).values()
