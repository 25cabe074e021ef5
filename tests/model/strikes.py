"""What a plan does to the world of `world.py`: its faults, and what its operators ask for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from remus_agent.errors import RemusError
from remus_agent.machines.primary import State
from remus_agent.services.agent import AgentService
from tests.model.hosts import Machine
from tests.model.plans import ASK_TWICE, KILL_STARTING, LOSE_DATA, PAUSE, REPEAT, TEARS, Fault
from tests.model.world import GUEST, TIMES, World

MOVING: Final = (State.SWITCHING, State.HANDED, State.IN_DOUBT, State.DEPARTING)
PATIENCE: Final = 40.0
"""Seconds after which an operator takes his request back."""
LONGEST_WAIT: Final = 20.0
"""Seconds for which a fault waits for what it is to hit: a host that makes a guest run, or a write."""
WRITING: Final = 1.0
"""Seconds that a write takes which a host, or its agent, is lost in."""


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


async def _tear(world: World, fault: Fault) -> None:
    """Lose the host's agent, or its power, in the next write of this kind; start it again."""
    host = world.hosts[fault.host]
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def takes(kind: str) -> float:
        if kind != TEARS[fault.kind] or begun.done():
            return 0.0
        begun.set_result(None)
        return WRITING

    host.disk.takes, host.disk.reached = takes, fault.amount
    await asyncio.wait({begun}, timeout=LONGEST_WAIT)
    if not begun.done():
        begun.cancel()
        return
    await asyncio.sleep(world.rng.random() * WRITING)
    if fault.both:
        world.power_off(host)
    else:
        world.kill_agent(host)
    await asyncio.sleep(fault.seconds)
    world.power_on(host)
    world.start_agent(host)


async def move(world: World, at: float) -> None:
    """An operator moves the guest from wherever it is protected then, or is being moved from already."""
    await asyncio.sleep(at)
    for host in world.hosts.values():
        service = host.agent._primaries.get(GUEST) if host.agent is not None else None
        if host.agent is not None and service is not None and service.state in (State.PROTECTED, *MOVING):
            host.node.spawn(_switchover(host.agent))


async def _switchover(agent: AgentService) -> None:
    with contextlib.suppress(RemusError):
        await agent.switchover(GUEST, timeout=3, dry_run=False, generation=None, progress=lambda *_, **__: None)


async def _pause(agent: AgentService, seconds: float) -> None:
    with contextlib.suppress(RemusError):
        await agent.pause(GUEST, seconds=seconds, reason="upgrade", timeout=3, progress=lambda *_, **__: None)


async def strike(world: World, fault: Fault) -> None:  # noqa: PLR0912 - one branch a kind
    """One fault, from its begin to its end."""
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
            world.links.cut |= directions
            await asyncio.sleep(fault.seconds)
            world.links.heal(directions)
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
                world.links.delay[path, fault.host] = 3.0
            await asyncio.sleep(fault.seconds)
            for path in fault.paths:
                world.links.delay.pop((path, fault.host), None)
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
        case kind if kind == ASK_TWICE:
            world.witness.twice = lambda name: fault.amount if first(name) else None
        case kind if kind in TEARS:
            await _tear(world, fault)
        case kind if kind == REPEAT:
            world.links.twice[fault.host] = round(fault.amount)
        case kind if kind == LOSE_DATA:
            world.lose_data()
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
            world.links.damage += 3
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
