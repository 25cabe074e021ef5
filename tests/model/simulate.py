"""Runs the world of `world.py` under a plan of faults that is drawn from a seed; replays and shrinks plans that fail.

python -m tests.model.simulate --seeds 0:1000              many seeds, how many a second
python -m tests.model.simulate --seeds 0:8000 --moved 0:2000 --jobs 2      in two processes, and as many with switchovers
python -m tests.model.simulate --seeds 0:1000 --losing     many of those whose witness loses its data; so with the next two
python -m tests.model.simulate --seed 17                   one seed again, exactly as it was
python -m tests.model.simulate --seed 17 --switchovers     one of those with switchovers
python -m tests.model.simulate --seed 17 --starting        one of those whose new owner's agent is killed as it starts the guest
python -m tests.model.simulate --seed 17 --losing          one of those whose witness loses its data
python -m tests.model.simulate --seed 17 --fault NAME      with a seeded fault of remus_agent/faults.py

Exit code: 0 all seeds hold, 1 one does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from remus_agent.faults import VARIABLE, FaultName
from tests.model.plans import KILL_STARTING, LOSE_DATA, Plan, losing_plan_of, moved_plan_of, plan_of, starting_plan_of
from tests.model.recorder import Recorder
from tests.model.scheduler import Scheduler, run_scheduled
from tests.model.strikes import move, strike
from tests.model.violated import Violated
from tests.model.world import GUEST, TIMES, World

SERVED_WITHIN: Final = 25.0
"""Seconds after the last fault within which the guest has to be served again."""
PORTION: Final = 20
"""Seeds that a process takes at a time."""
PROGRESS: Final = 15.0
"""Seconds between two lines of progress."""
TICK: Final = 0.3
"""Seconds between two frames of the guest to its clients."""


async def _work(world: World) -> None:
    while True:
        await asyncio.sleep(TICK)
        world.tick()


async def _story(loop: Scheduler, plan: Plan, rng: random.Random, recorder: Recorder) -> World:
    world = World(loop, rng, plan.rates, plan.solo, recorder, plan.disks)
    try:
        await _play(loop, plan, world)
    finally:
        recorder.stop()
    return world


async def _play(loop: Scheduler, plan: Plan, world: World) -> None:
    failed: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: failed.append(context.get("exception") or RuntimeError(str(context))))
    working = loop.create_task(_work(world))
    await world.begin()
    strikes = [loop.create_task(strike(world, fault)) for fault in plan.faults]
    strikes += [loop.create_task(move(world, at)) for at in plan.switchovers]

    async def until(when: float) -> None:
        while loop.time() < when:
            await asyncio.sleep(0.5)
            for task in (working, *strikes):
                if task.done():
                    task.result()
            for host in world.hosts.values():
                if host.starting is not None and host.starting.done():
                    host.starting.result()  # a defect there leaves an agent that does nothing
                for task in host.agent._primaries.tasks.values() if host.agent is not None else ():
                    if task.done() and not task.cancelled() and task.exception() is not None:
                        raise task.exception() or RuntimeError
                broken = world.platters.broken_contract(host)
                if broken is not None:
                    raise Violated(f"G2: {host.name} treats a copy as nobody may: {broken}")
            if Violated.noted:
                raise Violated.noted[0]

    await until(max((fault.at + fault.seconds for fault in plan.faults), default=0.0) + 1)
    while not all(each.done() for each in strikes):
        await until(loop.time() + 1)
    before = {inc.number: inc.seen for inc in world.incarnations}
    deadline = loop.time() + SERVED_WITHIN
    while not _settled(world, before):
        await until(loop.time() + 0.5)
        if loop.time() > deadline:
            _served_again(world, before)
            break


def _settled(world: World, before: dict[int, int]) -> bool:
    """Whether nothing is going to happen any more: it is protected and its clients are answered, or it is lost for good."""
    owner = world.owner
    if owner is None:
        return False
    running = world.running()
    if not running:
        there = world.hosts[owner.owner]
        lost = owner.state == "solo" and there.agent is not None and not there.agent.backup.names()
        return lost and world.lost_with_power
    (inc, *others) = running
    served = inc.seen > before.get(inc.number, 0)
    return not others and owner.owner == inc.host and owner.state == "protected" and served


def _paused_aloud(world: World) -> bool:
    """Whether the guest is paused somewhere because the record is lost, and that is said."""
    return any(
        GUEST in host.xen.guests and (GUEST, "record-lost") in host.events.noted for host in world.hosts.values()
    )


def _served_again(world: World, before: dict[int, int]) -> None:
    """G5: when all faults are over, one host runs the guest and its clients are answered, unless it was lost with its host."""
    running = world.running()
    if len(running) > 1:
        raise Violated(f"G5: {len(running)} hosts still run the guest")
    if not running:
        if not world.lost_with_power and not _paused_aloud(world):
            raise Violated("G5: nobody runs the guest any more, and no host with it lost power")
        return
    (inc,) = running
    if any((GUEST, "record-lost") in host.events.noted for host in world.hosts.values()):
        return  # it may wait for an operator to look
    if world.owner is not None and world.owner.owner != inc.host:
        raise Violated(f"G3: {inc.host} runs the guest for good, and the record says {world.owner.owner}")
    if inc.seen <= before.get(inc.number, 0):
        raise Violated("G5: the guest runs, and its clients hear nothing")


def simulate(plan: Plan, recorder: Recorder | None = None) -> str | None:
    """Run one plan; what was violated, or None. recorder: gets the run's trace. Raises what is no guarantee: a defect."""
    Violated.noted.clear()
    rng = random.Random(plan.seed)
    with contextlib.suppress(Violated):  # it is noted
        run_scheduled(rng, lambda loop: _story(loop, plan, rng, recorder or Recorder()))
    return str(Violated.noted[0]) if Violated.noted else None


def shrink(plan: Plan) -> Plan:
    """Leave disks and faults out while it still fails."""
    bare = replace(plan, disks=())
    if plan.disks and simulate(bare) is not None:
        plan = bare
    smaller = True
    while smaller:
        smaller = False
        for fault in plan.faults:
            without = replace(plan, faults=tuple(other for other in plan.faults if other is not fault))
            if simulate(without) is not None:
                plan, smaller = without, True
                break
    return plan


def report(plan: Plan, what: str) -> str:
    """What a person needs to see a failure again."""
    least = shrink(plan)
    return "\n".join([f"seed {plan.seed}: {what}", again("simulate", plan), "the least that fails:", *_told(least)])


def _told(plan: Plan) -> list[str]:
    """What happens in it, for people."""
    disks = [f"disks: {', '.join(plan.disks)}"] if plan.disks else []
    moves = [f"switchover at {at}" for at in plan.switchovers]
    return [*disks, *moves, *map(str, plan.faults)]


def again(module: str, plan: Plan) -> str:
    """The command line that runs a plan again, by this module or another one of this folder that takes the same options."""
    fault = os.environ.get(VARIABLE)
    command = f"python -m tests.model.{module} --seed {plan.seed}" + (f" --fault {fault}" if fault else "")
    if any(each.kind == KILL_STARTING for each in plan.faults):
        command += " --starting"
    elif any(each.kind == LOSE_DATA for each in plan.faults):
        command += " --losing"
    elif plan.switchovers:
        command += " --switchovers"
    return f"again: {command}"


def add_draws(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a kind of plan, for `draw_of`."""
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--switchovers", action="store_true", help="an operator moves the guest meanwhile")
    kinds.add_argument("--starting", action="store_true", help="the new owner's agent is killed")
    kinds.add_argument("--losing", action="store_true", help="the witness loses its data")


def draw_of(options: argparse.Namespace) -> Callable[[int], Plan]:
    """The plan of a seed, as the arguments name it."""
    if options.losing:
        return losing_plan_of
    return starting_plan_of if options.starting else moved_plan_of if options.switchovers else plan_of


def first_failure(seeds: range, draw: Callable[[int], Plan] = plan_of) -> str | None:
    """The report of the first seed that fails."""
    for seed in seeds:
        plan = draw(seed)
        what = simulate(plan)
        if what is not None:
            return report(plan, what)
    return None


def quietly(fault: str | None, *, verbose: bool = False) -> None:
    """Of each process: thousands of failures are provoked, and each would be logged."""
    if fault:
        os.environ[VARIABLE] = fault
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.disable(logging.NOTSET if verbose else logging.CRITICAL)


Portion = tuple[range, Callable[[int], Plan]]


def _portion(work: Portion) -> tuple[int, str | None]:
    seeds, draw = work
    return len(seeds), first_failure(seeds, draw)


def _portions(seeds: range, draw: Callable[[int], Plan]) -> list[Portion]:
    return [(seeds[at : at + PORTION], draw) for at in range(0, len(seeds), PORTION)]


def many(drawn: range, draw: Callable[[int], Plan], moved: range, jobs: int, fault: str | None) -> int:
    """Run all of these in so many processes, with progress; 1 when one fails, which ends it. moved: with switchovers, beside
    those that are drawn so."""
    work = [*_portions(drawn, draw), *_portions(moved, moved_plan_of)]
    total, done, started, said = len(drawn) + len(moved), 0, time.perf_counter(), 0.0
    with multiprocessing.get_context("spawn").Pool(jobs, quietly, (fault,)) as pool:
        for count, failure in pool.imap_unordered(_portion, work):
            if failure is not None:
                print(failure, flush=True)
                return 1
            done += count
            seconds = time.perf_counter() - started
            if seconds > said + PROGRESS:
                said = seconds
                print(f"  [{seconds:6.1f} s] {done} of {total} seeds hold", flush=True)
    seconds = time.perf_counter() - started
    switched = len(moved) + (len(drawn) if draw is moved_plan_of else 0)
    print(
        f"{total} seeds hold, {switched} of them with switchovers; {total / seconds:.1f} a second in {jobs} processes"
        f" ({TIMES['detect']:g} s to detect)",
        flush=True,
    )
    return 0


def seed_range(text: str) -> range:
    """FIRST:END of a command line."""
    low, separator, high = text.partition(":")
    if not separator or not low.isdecimal() or not high.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:END, as in 0:1000")
    return range(int(low), int(high))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=seed_range, default=range(0), metavar="FIRST:END", help="many")
    parser.add_argument(
        "--moved", type=seed_range, default=range(0), metavar="FIRST:END", help="many, with switchovers"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--fault", choices=[fault.value for fault in FaultName], help="seeded")
    add_draws(parser)
    parser.add_argument("--verbose", action="store_true", help="with --seed: what the agents log")
    options = parser.parse_args()
    if options.seed is None:
        if not options.seeds and not options.moved:
            parser.error("nothing to do: name --seed, --seeds or --moved")
        if options.verbose:
            parser.error("--verbose is for --seed")
        draw = draw_of(options)
        if draw is not plan_of and not options.seeds:
            parser.error(
                "--switchovers, --starting and --losing say what --seed or --seeds are; --moved are what they are"
            )
        return many(options.seeds, draw, options.moved, options.jobs, options.fault)
    if options.seeds or options.moved:
        parser.error("--seed is one alone")
    quietly(options.fault, verbose=options.verbose)
    plan = draw_of(options)(options.seed)
    what = simulate(plan)
    print(f"seed {options.seed}: {what or 'holds'}", *_told(plan), sep="\n  ")
    return what is not None


if __name__ == "__main__":
    sys.exit(main())
