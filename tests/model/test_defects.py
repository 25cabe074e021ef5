"""An error that nobody has foreseen ends one protection: its output stays held, and it goes on as after an agent's restart."""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable

import pytest

from remus_agent.services.defects import LONGEST
from remus_agent.services.disks import DiskSet
from remus_agent.services.session import PrimarySession
from tests.model.loop import run
from tests.model.pair import Pair, on, quiet, until


def failing(times: int) -> Callable[[], None]:
    """A checkpoint that fails so many times in a way that nobody expects."""
    left = [None] * times

    def fail() -> None:
        if left:
            left.pop()
            raise OSError(errno.EINVAL, "Invalid argument")

    return fail


def defects(pair: Pair) -> int:
    return sum(kind == "defect" for _, kind in pair.alpha.events.noted)


def test_it_is_protected_again_by_itself_and_nothing_gets_out_meanwhile() -> None:
    async def story() -> None:
        pair = Pair()
        before = await pair.protect()
        pair.alpha.xen.in_window = failing(1)
        await until(lambda: defects(pair) == 1, "the defect")
        pair.output.emit("told too early")
        status = await on(pair.alpha).status("web1")
        assert (status.role, status.state) == ("primary", "silent")
        assert status.reason is not None
        assert status.reason.startswith("its protection ended by a defect of the agent, and is tried again: OSError(22")
        assert pair.output.out == []
        assert not pair.guest.suspended
        await until(lambda: "told too early" in pair.output.out, "output flows again", 60)
        status = await on(pair.alpha).status("web1")
        assert (status.state, status.reason) == ("protected", None)
        assert status.session != before.session

    run(story())


def test_it_waits_longer_each_time_and_not_for_ever() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        times: list[float] = []

        def fail() -> None:
            times.append(asyncio.get_running_loop().time())
            raise OSError(errno.EINVAL, "Invalid argument")

        pair.alpha.xen.in_window = fail
        await asyncio.sleep(20 * LONGEST)
        waits = [round(after - before) for before, after in itertools.pairwise(times)]
        assert waits == sorted(waits)
        assert len(set(waits)) > 2
        assert waits[-1] == LONGEST
        pair.alpha.xen.in_window = lambda: None
        pair.output.emit("held")
        assert pair.output.out == []
        await until(lambda: "held" in pair.output.out, "protected again", 2 * LONGEST)

    run(story())


def test_an_agent_that_stops_meanwhile_leaves_it_to_the_next() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.alpha.xen.in_window = failing(1)
        await until(lambda: defects(pair) == 1, "the defect")
        await on(pair.alpha).close()
        await asyncio.sleep(2 * LONGEST)
        assert defects(pair) == 1
        await pair.kill_agent(pair.alpha)
        await pair.boot(pair.alpha).resume()
        pair.output.emit("held")
        await until(lambda: "held" in pair.output.out, "protected by the next agent", 60)

    run(story())


def test_an_operator_can_end_it_once_it_goes_on() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.alpha.xen.in_window = failing(1)
        await until(lambda: defects(pair) == 1, "the defect")
        await asyncio.sleep(LONGEST)
        status = await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert status.state == "unprotected"

    run(story())


@pytest.mark.parametrize(("kind", "method", "times"), [(DiskSet, "end", 2), (PrimarySession, "close", 1)])
def test_what_a_session_leaves_is_cleared_up_though_one_part_of_it_does_not_end(
    kind: type, method: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = getattr(kind, method)
    armed: list[None] = []

    async def perhaps(self: DiskSet | PrimarySession) -> None:
        if armed:
            armed.pop()
            raise OSError(errno.EIO, "Input/output error")
        await ends(self)

    monkeypatch.setattr(kind, method, perhaps)

    async def story() -> None:
        pair = Pair(("xvda",))
        await pair.protect()
        parts = on(pair.alpha)._primaries["web1"]._parts
        armed.extend([None] * times)  # as the session ends, and when the protection's task does
        pair.network.cut()
        await until(lambda: defects(pair) == 1, "the defect")
        assert not pair.guest.in_log_dirty, "its source is still open"
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "look at local disks"]
        assert parts.session is None
        pair.network.heal()
        pair.output.emit("held")
        await until(lambda: "held" in pair.output.out, "output flows again", 2 * LONGEST)

    run(story())
