"""What a primary's silence is worth when this host was away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remus_agent.adapters.sim.net import SimConnection, SimNetwork
from remus_agent.services.hearing import Hearing
from tests.model.loop import run

HEARTBEAT = 2.0


class Clock:
    """Stands still unless a test moves it."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def time_of_day(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def while_listening(check: Callable[[Hearing, Clock], None]) -> None:
    """Check it while a frame is waited for in vain."""

    async def story() -> None:
        clock = Clock()
        hearing = Hearing("web1", clock, 30, HEARTBEAT)
        task = asyncio.ensure_future(hearing.receive(SimConnection(SimNetwork(), "alpha"), None))
        await asyncio.sleep(0)
        check(hearing, clock)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(story())


def test_silence_counts_while_this_host_is_awake() -> None:
    def check(hearing: Hearing, clock: Clock) -> None:
        for _ in range(4):
            clock.time += HEARTBEAT
            hearing.look()
        assert hearing.silent_for == 4 * HEARTBEAT

    while_listening(check)


def test_what_was_not_heard_while_it_was_frozen_is_no_silence() -> None:
    def check(hearing: Hearing, clock: Clock) -> None:
        clock.time += 1000
        assert hearing.silent_for == 0.0, "what came meanwhile has not been read yet"
        clock.time += 1
        assert hearing.silent_for == 1

    while_listening(check)


def test_the_longest_freeze_that_nobody_notices_is_no_silence_of_three_heartbeats() -> None:
    def check(hearing: Hearing, clock: Clock) -> None:
        clock.time += HEARTBEAT  # the next frame is due right now
        hearing.look()
        clock.time += 1.5 * HEARTBEAT
        assert 0 < hearing.silent_for < 3 * HEARTBEAT

    while_listening(check)
