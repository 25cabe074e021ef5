"""An agent that starts and cannot look at one of its guests: every other guest goes on, and that one as soon as it can."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.errors import HypervisorError, RefusedError
from remus_agent.ports import Domain
from remus_agent.services.defects import LONGEST
from tests.model.disk_pair import DISKS
from tests.model.loop import run
from tests.model.pair import UUID, Pair, on, quiet, until

FAILED = HypervisorError("xenstore does not answer", operation="look", domain="web1")


class Unseen:
    """web1 cannot be looked at on alpha until `over`."""

    def __init__(self, pair: Pair, error: Exception) -> None:
        self.over = False
        self.looks = 0
        self._error = error
        self._domain = pair.alpha.xen.domain
        pair.alpha.xen.domain = self  # type: ignore[method-assign]

    async def __call__(self, name: str) -> Domain:
        if name == "web1" and not self.over:
            self.looks += 1
            raise self._error
        return await self._domain(name)


async def two_guests_without_an_agent() -> Pair:
    """web1, with disks, and app1 were protected when alpha's agent died."""
    pair = Pair(DISKS)
    pair.alpha.xen.create("app1", UUID.replace("0001", "0002"))
    pair.alpha.volumes["app1"] = []
    for name in ("app1", "web1"):
        await pair._protect(name, pair.alpha)
    await pair.kill_agent(pair.alpha)
    for name in ("app1", "web1"):
        pair.alpha.outputs.by_name[name].emit("while dead")
    return pair


@pytest.mark.parametrize(
    ("error", "event"), [(FAILED, "resume-put-off"), (OSError("nobody has foreseen this"), "defect")]
)
def test_a_guest_that_cannot_be_looked_at_keeps_no_other_from_being_protected_and_follows(
    error: Exception, event: str
) -> None:
    async def story() -> None:
        pair = await two_guests_without_an_agent()
        unseen = Unseen(pair, error)
        await pair.boot(pair.alpha).resume()
        other = pair.alpha.outputs.by_name["app1"]
        await until(lambda: "while dead" in other.out, "the other one is protected again")
        await until(lambda: unseen.looks > 2, "it is looked at again")
        assert ("web1", event) in pair.alpha.events.noted
        assert pair.output.installed
        assert "while dead" not in pair.output.out
        assert all(volume.map_id is not None for volume in pair.alpha.volumes["web1"]), "its taps stay"
        for status in (await on(pair.alpha).status("web1"), (await on(pair.alpha).overview())[-1]):
            assert (status.domain, status.role, status.state, status.peer) == ("web1", "primary", "silent", "beta")
            assert str(error) in str(status.reason)
        unseen.over = True
        await until(lambda: "while dead" in pair.output.out, "protected again", 2 * LONGEST)
        status = await on(pair.alpha).status("web1")
        assert (status.state, status.reason) == ("protected", None)

    run(story())


def test_until_then_nobody_begins_or_ends_anything_for_it() -> None:
    async def story() -> None:
        pair = await two_guests_without_an_agent()
        unseen = Unseen(pair, FAILED)
        await pair.boot(pair.alpha).resume()
        unseen.over = True  # and it has not been looked at again yet
        with pytest.raises(RefusedError, match="xenstore does not answer"):
            await pair.protect()
        with pytest.raises(RefusedError, match="xenstore does not answer"):
            await on(pair.alpha).unprotect("web1", force=True, timeout=10, progress=quiet)
        with pytest.raises(RefusedError, match="xenstore does not answer"):
            await on(pair.alpha).reserve("web1", 60)
        await until(lambda: "while dead" in pair.output.out, "protected again", 2 * LONGEST)
        assert (await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)).state == "unprotected"

    run(story())


def test_one_that_is_gone_when_it_is_looked_at_again_is_forgotten() -> None:
    async def story() -> None:
        pair = await two_guests_without_an_agent()
        unseen = Unseen(pair, FAILED)
        await pair.boot(pair.alpha).resume()
        del pair.alpha.xen.guests["web1"]
        unseen.over = True
        await until(lambda: ("web1", "guest-gone") in pair.alpha.events.noted, "it is noticed", 2 * LONGEST)
        await asyncio.sleep(2 * LONGEST)
        assert [status.domain for status in await on(pair.alpha).overview()] == ["app1"]
        assert pair.alpha.events.noted.count(("web1", "guest-gone")) == 1

    run(story())
