"""What an operator asks while something is under way: it is done or done later, never forgotten."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from remus_agent.errors import ConnectionLost
from remus_agent.machines.primary import Event
from remus_agent.services.asking import Asked, Lull
from tests import deadline
from tests.model.loop import run as virtual
from tests.model.pair import Pair, on

ASKED = Event.STOP_ASKED


def run(story: Callable[[Asked], Awaitable[None]]) -> None:
    async def told() -> None:
        await story(Asked())

    deadline.run(told())


def test_what_is_asked_ends_the_work() -> None:
    async def story(asked: Asked) -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        waiting = asyncio.create_task(asked.interrupts(work()))
        await asyncio.sleep(0)
        asked.put(ASKED)
        assert await waiting is ASKED
        assert ended.is_set()
        assert asked.next() is None

    run(story)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_asked_while_the_work_ends_is_asked_still(fails: bool) -> None:
    async def story(asked: Asked) -> None:
        async def work() -> None:
            asked.put(ASKED)
            if fails:
                raise ConnectionLost("the session has ended")

        if fails:
            with pytest.raises(ConnectionLost):
                await asked.interrupts(work())
        else:
            assert await asked.interrupts(work()) is None
        assert asked.next() is ASKED

    run(story)


def test_what_is_asked_while_the_wait_is_cancelled_is_asked_still() -> None:
    async def story(asked: Asked) -> None:
        waiting = asyncio.create_task(asked.interrupts(asyncio.sleep(1000)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.put(ASKED)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asked.next() is ASKED

    run(story)


def test_a_lull_says_whether_somebody_has_ended_it() -> None:
    async def story(_: Asked) -> None:
        lull = Lull()
        lull.end()
        await lull.wait(None)
        assert lull.ended
        await lull.wait(lambda: asyncio.sleep(0))
        assert not lull.ended, "it was over by itself"

    run(story)


@pytest.mark.filterwarnings("error")
def test_a_guarded_work_that_never_begins_leaves_nothing_unawaited(recwarn: pytest.WarningsRecorder) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        session, _, disks = on(pair.alpha)._primaries["web1"]._parts.in_session()
        task = asyncio.ensure_future(session.guard(disks.copy))
        task.cancel()  # before its first step
        await asyncio.gather(task, return_exceptions=True)
        del task
        gc.collect()

    virtual(story())
    assert not [str(each.message) for each in recwarn if "never awaited" in str(each.message)]
