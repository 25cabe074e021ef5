"""Whether what the code does in the simulation is something that the formal model can do: each run of `simulate.py` as a trace
(`recorder.py`) for the model of authority (`tests/formal/trace.py`).

python -m tests.model.traces --seeds 0:1000              many seeds
python -m tests.model.traces --seed 17                   the trace of one, and the model's word on it
python -m tests.model.traces --seed 17 --fault NAME      with a seeded fault of remus_agent/faults.py

A run that breaks a guarantee is compared up to there. What the model does not know is left out of the plans: `NOT_MODELLED`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from remus_agent.faults import FaultName
from tests.formal.trace import Event, TraceRejectedError, check
from tests.model.plans import PAUSE, Plan, plan_of
from tests.model.recorder import Recorder
from tests.model.simulate import add_draws, again, draw_of, quietly, seed_range, simulate

NOT_MODELLED: Final = {
    "override": "an operator's word activates a copy whatever the record says; in the model that is a mutation, which breaks"
    " a guarantee on purpose (adr/0006, 6)",
    PAUSE: "an operator ends the protection and begins it anew; the model's begins once, and ends only with the guest",
}
"""Kinds of faults, and why no run with one is compared. Before the first record in the witness nothing is recorded: there the
model begins, with the guest running, its output open."""


def modelled(plan: Plan) -> Plan:
    """The plan without what the model does not know."""
    return replace(plan, faults=tuple(fault for fault in plan.faults if fault.kind not in NOT_MODELLED))


def trace_of(plan: Plan) -> list[Event]:
    """What is seen in a run, up to the end or to the first guarantee that is broken."""
    recorder = Recorder()
    simulate(plan, recorder)
    return recorder.events


def rejection(plan: Plan) -> TraceRejectedError | None:
    """Why the model cannot do what the code does under this plan; None when it can."""
    try:
        check(trace_of(modelled(plan)), owner="alpha", backup="beta")
    except TraceRejectedError as error:
        return error
    return None


def first_rejection(seeds: range, draw: Callable[[int], Plan] = plan_of) -> str | None:
    """The report of the first seed whose run the model cannot do."""
    for seed in seeds:
        error = rejection(draw(seed))
        if error is not None:
            return report(draw(seed), error)
    return None


def report(plan: Plan, error: TraceRejectedError) -> str:
    """What a person needs to see it again."""
    return "\n".join([f"seed {plan.seed}: {error}", again("traces", plan), *map(str, modelled(plan).faults)])


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=seed_range, default=range(1000), metavar="FIRST:END")
    parser.add_argument("--fault", choices=[fault.value for fault in FaultName])
    add_draws(parser)
    options = parser.parse_args()
    quietly(options.fault)
    draw = draw_of(options)
    if options.seed is not None:
        plan = draw(options.seed)
        print(*trace_of(modelled(plan)), sep="\n")
        error = rejection(plan)
        print(f"seed {plan.seed}: accepted" if error is None else report(plan, error))
        return error is not None
    started, rejected = time.perf_counter(), []
    for seed in options.seeds:
        error = rejection(draw(seed))
        if error is not None:
            rejected.append(seed)
            print(report(draw(seed), error), flush=True)
    total = len(options.seeds)
    rate = total / (time.perf_counter() - started)
    print(f"{total - len(rejected)} of {total} runs are accepted by the model, {rate:.1f} a second")
    return bool(rejected)


if __name__ == "__main__":
    sys.exit(main())
