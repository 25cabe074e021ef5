"""Runs the world of `world.py` under a plan of faults that is drawn from a seed; replays and shrinks plans that fail.

python -m tests.model.simulate --seeds 0:1000              many seeds, how many a second
python -m tests.model.simulate --seeds 0:8000 --moved 0:2000 --jobs 2      in two processes, and as many with switchovers
python -m tests.model.simulate --seed 17                   one seed again, exactly as it was
python -m tests.model.simulate --seed 17 --switchovers     one of those with switchovers
python -m tests.model.simulate --seed 17 --starting        one of those whose new owner's agent is killed as it starts the guest
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
from dataclasses import dataclass, replace
from typing import Final

from remus_agent.errors import RemusError
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.machines.primary import State
from remus_agent.services.agent import AgentService
from tests.model.recorder import Recorder
from tests.model.scheduler import Scheduler, run_scheduled
from tests.model.world import GUEST, TIMES, Machine, Violated, World

SERVED_WITHIN: Final = 25.0
"""Seconds after the last fault within which the guest has to be served again."""
PATIENCE: Final = 40.0
"""Seconds after which an operator takes his request back."""
PORTION: Final = 20
"""Seeds that a process takes at a time."""
PROGRESS: Final = 15.0
"""Seconds between two lines of progress."""
KILL_STARTING: Final = "kill-starting"
"""A kind of fault that only `starting_plan_of` draws."""
PAUSE: Final = "pause"
"""An operator pauses the protection, on a host that may be its primary, for so many seconds."""
PAUSED: Final = 0.2
"""Of all plans."""
LONGEST_WAIT: Final = 20.0
"""Seconds for which that waits for a host that makes a guest run."""
TICK: Final = 0.3
"""Seconds between two frames of the guest to its clients."""
TOGETHER: Final = 0.1
"""Of all plans, in which both hosts ask the witness at the same time; by chance that is rarer than one in a thousand."""
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
    """at: when, in true seconds. seconds: how long. paths, both: for cuts. amount: what the kind takes."""

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


def _both_ask_at_once(at: float) -> list[Fault]:
    """Neither host hears the other, and the witness is slow: both have read the record before one of them changes it."""
    cut = Fault(at, "cut", "alpha", 12.0, ("channel", "second"))
    return [cut, Fault(at, "witness-slow", "alpha", 12.0)]


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
    return Plan(seed, rates, tuple(sorted(faults, key=lambda fault: fault.at)), solo)


def moved_plan_of(seed: int) -> Plan:
    """The same faults, and switchovers among them, one of them right before or after a fault."""
    plan = plan_of(seed)
    rng = random.Random(seed + 1_000_003)
    near = rng.choice(plan.faults).at + rng.choice([-0.4, -0.2, -0.1, -0.05, 0.05])
    times = [max(0.6, near), *(rng.uniform(1.0, 9.0) for _ in range(rng.randint(0, 2)))]
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


async def _kill_starting(world: World, fault: Fault) -> None:
    """Kill the agent of the next host that makes a guest run, so many seconds after it has begun; start it again."""
    begun: asyncio.Future[Machine] = asyncio.get_running_loop().create_future()

    def watched(host: Machine, step: Callable[[], float]) -> Callable[[], float]:
        def taken() -> float:
            if not begun.done():
                begun.set_result(host)
            return step()

        return taken

    for host in world.hosts.values():
        host.xen.step = watched(host, host.xen.step)
    await asyncio.wait({begun}, timeout=LONGEST_WAIT)
    if begun.done():
        await asyncio.sleep(fault.amount)
        world.kill_agent(begun.result())
        await asyncio.sleep(fault.seconds)
        world.start_agent(begun.result())


async def _move(world: World, at: float) -> None:
    await asyncio.sleep(at)
    for host in world.hosts.values():
        service = host.agent._primaries.get(GUEST) if host.agent is not None else None
        if host.agent is not None and service is not None and service.state is State.PROTECTED:
            host.node.spawn(_switchover(host.agent))


async def _switchover(agent: AgentService) -> None:
    with contextlib.suppress(RemusError):
        await agent.switchover(GUEST, timeout=3, dry_run=False, generation=None, progress=lambda *_, **__: None)


async def _pause(agent: AgentService, seconds: float) -> None:
    with contextlib.suppress(RemusError):
        await agent.pause(GUEST, seconds=seconds, reason="upgrade", timeout=3, progress=lambda *_, **__: None)


async def _strike(world: World, fault: Fault) -> None:  # noqa: PLR0912 - one branch a kind
    await asyncio.sleep(fault.at)
    host = world.hosts[fault.host]
    once = [True]

    def first(name: str) -> bool:
        return bool(name == fault.host and once and once.pop())

    match fault.kind:
        case "cut":
            directions = {(path, fault.host) for path in fault.paths}
            if fault.both:
                directions |= {(path, host.peer) for path in fault.paths}
            world.cut |= directions
            await asyncio.sleep(fault.seconds)
            world.heal(directions)
        case "freeze":
            node = host.node
            node.stopped = True
            await asyncio.sleep(fault.seconds)
            if host.node is node and host.agent is not None:
                node.stopped = False
        case "power-off":
            world.power_off(host)
            await asyncio.sleep(fault.seconds)
            world.power_on(host)
        case "kill-agent":
            world.kill_agent(host)
            await asyncio.sleep(fault.seconds)
            world.start_agent(host)
        case "slow":
            for path in fault.paths:
                world.delay[path, fault.host] = 3.0
            await asyncio.sleep(fault.seconds)
            for path in fault.paths:
                world.delay.pop((path, fault.host), None)
        case "witness-down":
            world.witness.down = True
            await asyncio.sleep(fault.seconds)
            world.witness.down = False
        case "witness-cut":
            world.witness.cut.add(fault.host)
            await asyncio.sleep(fault.seconds)
            world.witness.cut.discard(fault.host)
        case "witness-slow":
            world.witness_delay = 2.0
            await asyncio.sleep(fault.seconds)
            world.witness_delay = 0.1
        case "answer-lost":
            world.witness.lose_answer = first
        case "answer-late":
            world.witness.late = lambda name: 4.0 if first(name) else None
        case kind if kind == PAUSE:
            if host.agent is not None:
                world.paused.add(host.name)
                host.node.spawn(_pause(host.agent, fault.seconds))
            await asyncio.sleep(fault.seconds)
        case kind if kind == KILL_STARTING:
            await _kill_starting(world, fault)
        case "set-clock":
            # One step, and then a time service that makes the clock run fast.
            host.clock.set_by += fault.amount
            for _ in range(round(fault.seconds / 0.1)):
                host.clock.set_by += 0.23
                await asyncio.sleep(0.1)
        case "toolstack-fails":
            host.xen.toolstack_fails = True
            await asyncio.sleep(fault.seconds)
            host.xen.toolstack_fails = False
        case "override":
            await _override(world, host, fault.seconds)
        case "damage":
            world.damage += 3
        case _:
            raise ValueError(fault.kind)


async def _override(world: World, dead: Machine, seconds: float) -> None:
    """An operator, rightly sure that a host is off, has the other one run the guest, though the witness can't be asked."""
    there = world.hosts[dead.peer]
    world.witness.down = True
    world.power_off(dead)
    await asyncio.sleep(TIMES["detect"])
    agent = there.agent
    if agent is not None:
        fenced = {"host": dead.name, "method": "power", "evidence": "the socket is switched off"}
        failover = agent.failover(GUEST, generation=None, session=None, fenced=fenced, accept_loss=True)
        world.overriding = there.name
        asking = there.node.spawn(failover)
        # As long as it may still be done (its host may be frozen) the word has to be true: the other host stays off.
        gives_up = world.loop.time() + PATIENCE
        while not asking.done() and there.agent is agent:
            if world.loop.time() > gives_up:
                asking.cancel()
            await asyncio.wait({asking}, timeout=1)
        world.overriding = None
        if asking.done() and not asking.cancelled() and not isinstance(asking.exception(), RemusError | None):
            asking.result()  # a defect
    await asyncio.sleep(seconds)
    world.witness.down = False
    world.power_on(dead)


async def _work(world: World) -> None:
    while True:
        await asyncio.sleep(TICK)
        world.tick()


async def _story(loop: Scheduler, plan: Plan, rng: random.Random, recorder: Recorder) -> World:
    world = World(loop, rng, plan.rates, plan.solo, recorder)
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
    strikes = [loop.create_task(_strike(world, fault)) for fault in plan.faults]
    strikes += [loop.create_task(_move(world, at)) for at in plan.switchovers]

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
            if Violated.noted:
                raise Violated.noted[0]

    await until(max((fault.at + fault.seconds for fault in plan.faults), default=0.0) + 1)
    while not all(strike.done() for strike in strikes):
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


def _served_again(world: World, before: dict[int, int]) -> None:
    """G5: when all faults are over, one host runs the guest and its clients are answered, unless it was lost with its host."""
    running = world.running()
    if len(running) > 1:
        raise Violated(f"G5: {len(running)} hosts still run the guest")
    if not running:
        if not world.lost_with_power:
            raise Violated("G5: nobody runs the guest any more, and no host with it lost power")
        return
    (inc,) = running
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
    """Leave faults out while it still fails."""
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
    return "\n".join(
        [f"seed {plan.seed}: {what}", again("simulate", plan), "the least that fails:", *map(str, least.faults)]
    )


def again(module: str, plan: Plan) -> str:
    """The command line that runs a plan again, by this module or another one of this folder that takes the same options."""
    fault = os.environ.get(VARIABLE)
    command = f"python -m tests.model.{module} --seed {plan.seed}" + (f" --fault {fault}" if fault else "")
    if any(each.kind == KILL_STARTING for each in plan.faults):
        command += " --starting"
    elif plan.switchovers:
        command += " --switchovers"
    return f"again: {command}"


def add_draws(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a kind of plan, for `draw_of`."""
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--switchovers", action="store_true", help="an operator moves the guest meanwhile")
    kinds.add_argument("--starting", action="store_true", help="the new owner's agent is killed")


def draw_of(options: argparse.Namespace) -> Callable[[int], Plan]:
    """The plan of a seed, as the arguments name it."""
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


def _portion(work: tuple[range, bool]) -> tuple[int, str | None]:
    seeds, moved = work
    return len(seeds), first_failure(seeds, moved_plan_of if moved else plan_of)


def _portions(seeds: range, *, moved: bool) -> list[tuple[range, bool]]:
    return [(seeds[at : at + PORTION], moved) for at in range(0, len(seeds), PORTION)]


def many(plain: range, moved: range, jobs: int, fault: str | None) -> int:
    """Run all of these in so many processes, with progress; 1 when one fails, which ends it."""
    work = [*_portions(plain, moved=False), *_portions(moved, moved=True)]
    total, done, started, said = len(plain) + len(moved), 0, time.perf_counter(), 0.0
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
    print(
        f"{total} seeds hold, {len(moved)} of them with switchovers; {total / seconds:.1f} a second in {jobs} processes"
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
        return many(options.seeds, options.moved, options.jobs, options.fault)
    quietly(options.fault, verbose=options.verbose)
    plan = draw_of(options)(options.seed)
    what = simulate(plan)
    print(f"seed {options.seed}: {what or 'holds'}", *plan.faults, sep="\n  ")
    return what is not None


if __name__ == "__main__":
    sys.exit(main())
