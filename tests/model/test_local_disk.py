"""A primary's own disk fails below the tap: md goes on with the backup's alone, so the copy there is the only good one."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.errors import DiskError
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, quiet, until


async def failed() -> Pair:
    """web1 protected, and then its local disk fails."""
    pair = Pair(("xvda",))
    await pair.protect()
    pair.volume("xvda").failed = True
    return pair


def told(pair: Pair) -> list[str]:
    return [event for _, event in pair.alpha.events.noted if event == "local-disk-failed"]


def test_it_is_reported_once_and_the_guest_goes_on() -> None:
    async def story() -> None:
        pair = await failed()
        await until(lambda: told(pair), "reported")
        await asyncio.sleep(60)
        assert told(pair) == ["local-disk-failed"]
        (disk,) = (await on(pair.alpha).status("web1")).as_dict()["disks"]  # type: ignore[misc]
        assert "has failed" in disk["problem"]
        pair.output.emit("reply")
        await until(lambda: "reply" in pair.output.out, "the guest serves on")

    run(story())


def test_its_protection_is_not_ended_and_its_copy_can_be_activated() -> None:
    async def story() -> None:
        pair = await failed()
        with pytest.raises(DiskError):
            await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert on(pair.alpha)._primaries["web1"].state.value == "protected"
        await pair.kill_host()
        await asyncio.sleep(120)
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert "web1" in pair.beta.xen.guests

    run(story())


def test_a_guest_that_powers_off_keeps_its_copy() -> None:
    async def story() -> None:
        pair = await failed()
        pair.guest.ended = True
        await asyncio.sleep(120)
        copy = on(pair.beta).backup.copy_of("web1")
        assert copy is not None
        assert copy.state.value == "orphaned"

    run(story())
