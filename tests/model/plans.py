"""Plans of faults for the world of `world.py`, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from tests.model.storage import JOURNAL, NOTES
from tests.model.world import TIMES

KILL_STARTING: Final = "kill-starting"
"""A kind of fault that only `starting_plan_of` draws."""
LOSE_DATA: Final = "lose-data"
"""The witness is built anew, empty. A kind of fault that only `losing_plan_of` draws."""
PAUSE: Final = "pause"
"""An operator pauses the protection, on a host that may be its primary, for so many seconds."""
PAUSED: Final = 0.2
"""Of all plans."""
ASKED_AGAIN: Final = 0.3
"""Of all plans with switchovers."""
TOGETHER: Final = 0.1
"""Of all plans, in which both hosts ask the witness at the same time; by chance that is rarer than one in a thousand."""
TEAR_COMMIT: Final = "tear-commit"
"""The agent of a host, or (`both`) its power, is lost while it writes its next commit. amount: the share of that which is on the
disk then."""
TEAR_NOTE: Final = "tear-note"
"""The same of its next note."""
TEARS: Final = {TEAR_COMMIT: JOURNAL, TEAR_NOTE: NOTES}
REPEAT: Final = "repeat"
"""So many (`amount`) of the next frames of a host arrive twice. TCP rules that out; who is on a plain link does not."""
ASK_TWICE: Final = "ask-twice"
"""The host's next change of the record is asked for once more, so many seconds (`amount`) later; with 0 the host hears of that
one, which was in vain."""
RARER: Final = 0.25
"""Of all plans, in which one of the four kinds above is among the faults."""
WITH_DISKS: Final = 0.2
"""Of all plans, in which the guest has disks."""
KINDS: Final = (
    *("cut",) * 4,
    *("freeze",) * 3,
    *("power-off",) * 2,
    *("kill-agent",) * 2,
    "slow",
    "witness-down",
    "witness-cut",
    *("witness-slow",) * 3,
    "answer-lost",
    "answer-late",
    *("set-clock",) * 2,
    *("damage",) * 2,
    *("toolstack-fails",) * 2,
    "override",
)


@dataclass(frozen=True)
class Fault:
    """at: when, in true seconds. seconds: how long. paths, both: of cuts, and of what says so. amount: what the kind takes."""

    at: float
    kind: str
    host: str
    seconds: float
    paths: tuple[str, ...] = ()
    both: bool = True
    amount: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Everything that is drawn, but the order in which hosts run and the delays: these are drawn from the seed as well."""

    seed: int
    rates: tuple[float, float]
    faults: tuple[Fault, ...]
    solo: float = TIMES["solo"]
    """Seconds; near `detect` both hosts ask for the record at the same time."""
    switchovers: tuple[float, ...] = ()
    """When an operator moves the guest, from wherever it is protected then."""
    disks: tuple[str, ...] = ()
    """Names of those that the guest has."""


def _both_ask_at_once(at: float) -> list[Fault]:
    """Neither host hears the other, and the witness is slow: both have read the record before one of them changes it."""
    cut = Fault(at, "cut", "alpha", 12.0, ("channel", "second"))
    return [cut, Fault(at, "witness-slow", "alpha", 12.0)]


def _rarer(rng: random.Random) -> Fault:
    at, host = round(rng.uniform(0.5, 8.0), 3), rng.choice(["alpha", "beta"])
    kind = rng.choice([TEAR_NOTE, TEAR_NOTE, REPEAT, ASK_TWICE])
    if kind == REPEAT:
        return Fault(at, kind, host, 0.0, amount=rng.randint(1, 8))
    if kind == ASK_TWICE:
        return Fault(at, kind, host, 0.0, amount=rng.choice([0.0, 0.0, round(rng.uniform(0.1, 6.0), 3)]))
    kind, power = rng.choice([TEAR_COMMIT, TEAR_NOTE, TEAR_NOTE]), rng.random() < 0.5
    share = rng.choice([0.0, 1.0, round(rng.random(), 3)])
    seconds = round(rng.choice([0.5, 2.0, 6.0]) * rng.uniform(0.8, 1.2), 3)
    return Fault(at, kind, host, seconds, both=power, amount=share)


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(seed)
    faults = []
    for _ in range(rng.randint(1, 4)):
        at = rng.uniform(0.5, 8.0)
        kind = rng.choice(KINDS)
        lasts = kind not in ("answer-lost", "answer-late", "damage")
        paths = rng.choice([("channel",), ("second",), ("channel", "second"), ("channel", "second")])
        faults.append(
            Fault(
                at=round(at, 3),
                kind=kind,
                host=rng.choice(["alpha", "alpha", "beta"]),
                seconds=round(rng.choice([0.5, 2, 4, 6, 9, 12]) * rng.uniform(0.8, 1.2), 3) if lasts else 0.0,
                paths=paths,
                both=rng.random() < 0.6,
                amount=round(rng.choice([-1, 1]) * rng.choice([2.0, 30.0, 3600.0]), 1),
            )
        )
    rates = (round(rng.uniform(0.93, 1.07), 3), round(rng.uniform(0.93, 1.07), 3))
    solo = rng.choice([TIMES["detect"] + 0.5, TIMES["solo"]])
    if rng.random() < TOGETHER:
        faults += _both_ask_at_once(round(rng.uniform(0.5, 8.0), 3))
        solo = TIMES["detect"] + 0.5
    if rng.random() < PAUSED:
        at, seconds = round(rng.uniform(0.5, 8.0), 3), round(rng.choice([0.5, 4.0, 10.0]) * rng.uniform(0.8, 1.2), 3)
        faults.append(Fault(at, PAUSE, rng.choice(["alpha", "alpha", "beta"]), seconds))
    if rng.random() < RARER:
        faults.append(_rarer(rng))
    disks = rng.choice([("xvda",), ("xvda", "xvdb")]) if rng.random() < WITH_DISKS else ()
    return Plan(seed, rates, tuple(sorted(faults, key=lambda fault: fault.at)), solo, disks=disks)


def moved_plan_of(seed: int) -> Plan:
    """The same faults, and switchovers among them, one of them right before or after a fault and perhaps asked for twice."""
    plan = plan_of(seed)
    rng = random.Random(seed + 1_000_003)
    near = rng.choice(plan.faults).at + rng.choice([-0.4, -0.2, -0.1, -0.05, 0.05])
    times = [max(0.6, near), *(rng.uniform(1.0, 9.0) for _ in range(rng.randint(0, 2)))]
    if rng.random() < ASKED_AGAIN:
        times.append(times[0] + rng.uniform(0.0, 0.5))
    return replace(plan, switchovers=tuple(round(at, 3) for at in sorted(times)))


def starting_plan_of(seed: int) -> Plan:
    """One of the same faults, and a takeover whose new owner's agent is killed within it."""
    plan = plan_of(seed)
    rng = random.Random(seed + 2_000_003)
    at = round(rng.uniform(1.0, 4.0), 3)
    causes = (
        Fault(at, "power-off", "alpha", 15.0),
        Fault(at, "cut", "alpha", 12.0, ("channel", "second")),
        Fault(at, "freeze", "alpha", 12.0),
    )
    kill = Fault(0.5, KILL_STARTING, "beta", rng.choice([0.5, 2.0, 6.0]), amount=round(rng.uniform(0.0, 0.8), 3))
    switchovers = (at,) if rng.random() < 0.3 else ()
    cause = () if switchovers else (rng.choice(causes),)
    more = tuple(fault for fault in rng.sample(plan.faults, 1) if rng.random() < 0.5)
    faults = tuple(sorted((*cause, *more, kill), key=lambda fault: fault.at))
    return replace(plan, faults=faults, switchovers=switchovers)


def losing_plan_of(seed: int) -> Plan:
    """One of the same faults, or with switchovers, and among or after them the witness loses its data."""
    plan = plan_of(seed) if seed % 3 else moved_plan_of(seed)
    rng = random.Random(seed + 3_000_003)
    loss = Fault(round(rng.uniform(1.0, 15.0), 3), LOSE_DATA, "alpha", 0.0)
    return replace(plan, faults=tuple(sorted((*plan.faults, loss), key=lambda fault: fault.at)))
