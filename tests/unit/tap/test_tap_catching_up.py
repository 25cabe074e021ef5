"""How long md is waited for that writes through a tap what changed without it. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from remus_agent.adapters.disk.catching_up import STALLED_SECONDS, legs_at_rest
from remus_agent.adapters.disk.mapper import RaidStatus
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError
from tests.model.loop import run

DISK = Disk("db1", "xvda", Path("/dev/vg0/db1"), Path("/x.md"), Path("/x.journal"))
TIB = 1 << 40
LONG = 3 * STALLED_SECONDS


def waited(status: Callable[[float], RaidStatus]) -> tuple[str, float]:
    """The legs and the time at the end. status: by time."""

    async def wait() -> tuple[str, float]:
        clock = asyncio.get_running_loop()

        async def look() -> RaidStatus:
            return status(clock.time())

        return await legs_at_rest(look, DISK), clock.time()

    return run(wait())


def recovering(done: float) -> RaidStatus:
    return RaidStatus("Aa", "recover", int(done), TIB)


IDLE_BEFORE = RaidStatus("Aa", "idle", TIB, TIB)
WHOLE = RaidStatus("AA", "idle", TIB, TIB)


def test_a_raid_that_is_whole_is_not_waited_for() -> None:
    assert waited(lambda _: WHOLE) == ("AA", 0.0)


@pytest.mark.parametrize("every", [0.1, 300.0])
def test_md_that_gets_on_is_waited_for_however_slow_the_disk_is(every: float) -> None:
    """Every five minutes is how seldom md says so at least."""

    def status(now: float) -> RaidStatus:
        return recovering(now // every * every * 4096) if now < LONG else WHOLE

    legs, end = waited(status)
    assert legs == "AA"
    assert end == pytest.approx(LONG, abs=1)


def test_md_that_stands_still_is_an_error_with_what_it_reached() -> None:
    at = LONG / 2
    with pytest.raises(DiskError) as raised:
        waited(lambda now: recovering(min(now, at) * 4096))
    error = raised.value
    assert f"{int(at * 4096)} of {TIB} bytes" in error.message
    assert "xvda" in error.message
    assert "`recover`, its legs are Aa" in error.message
    assert (error.domain, error.operation) == ("db1", "take the tap back")
    assert "output is held" in str(error.left)
    assert "dmsetup status remus-db1-xvda" in str(error.hint)


def test_an_idle_raid_that_counts_as_complete_has_reached_nothing() -> None:
    """It says so before it begins; from the beginning on it counts from zero."""

    def status(now: float) -> RaidStatus:
        if now < 1:
            return IDLE_BEFORE
        return recovering((now - 1) * 4096) if now < LONG else WHOLE

    assert waited(status)[0] == "AA"
    with pytest.raises(DiskError, match=r"than 0 of .*`idle`"):
        waited(lambda _: IDLE_BEFORE)


def test_md_that_begins_again_and_again_gets_nowhere() -> None:
    with pytest.raises(DiskError, match="got no further"):
        waited(lambda now: recovering(now % 60 * 4096))


@pytest.mark.parametrize("legs", ["AD", "DA", "Da"])
def test_a_leg_that_fails_meanwhile_ends_the_wait(legs: str) -> None:
    end = STALLED_SECONDS / 2
    found, at = waited(lambda now: recovering(4096) if now < end else RaidStatus(legs, "idle", 0, TIB))
    assert found == legs
    assert at == pytest.approx(end, abs=1)
