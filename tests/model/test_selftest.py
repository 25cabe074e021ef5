"""What an agent finds when it tests itself and all that it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from remus_agent.errors import HypervisorError, JournalError
from remus_agent.ports import HostFacts
from tests.model.loop import run
from tests.model.pair import Pair, on
from tests.model.test_authority import ask, play
from tests.model.world import GUEST, World


async def well() -> None:
    """A disk that takes everything."""


async def full() -> None:
    """One that does not."""
    raise JournalError("no space left", hint="free space")


def of_days(days: float) -> Any:
    """What is said of a certificate."""

    async def describe() -> Mapping[str, Any]:
        return {"expires": "2027-01-02T03:04:05Z", "days_left": days}

    return describe


async def failing_tls() -> Mapping[str, Any]:
    return {"error": "the key does not fit the certificate"}


def by_name(found: dict[str, Any]) -> dict[str, tuple[str, str, str | None]]:
    return {one["name"]: (one["result"], one["message"], one["next"]) for one in found["checks"]}


def test_a_pair_that_is_well() -> None:
    async def story(world: World) -> None:
        found = by_name(await ask(world, "alpha", lambda agent: agent.selftest(well, of_days(200)).run()))
        assert {name: result for name, (result, _, _) in found.items()} == dict.fromkeys(
            ["Xen", "journal", "certificate", "beta, replication", "beta, second path", "witness", GUEST], "ok"
        ) | {name: "ok" for name in found if "fence" in name or name == "watchdog"}
        assert all(hint is None for _, _, hint in found.values())

    play(story)


def test_what_does_not_answer_fails_with_the_next_step() -> None:
    async def story(world: World) -> None:
        world.witness.cut.add("alpha")
        world.power_off(world.hosts["beta"])
        found = by_name(await ask(world, "alpha", lambda agent: agent.selftest(full, failing_tls).run()))
        for name in ("journal", "certificate", "witness", "beta, replication", "beta, second path"):
            result, message, hint = found[name]
            assert result == "fail", name
            assert message, name
            assert hint, name
        assert found["journal"][1:] == ("no space left", "free space")

    play(story)


@pytest.mark.parametrize("how", ["hangs", "fails", "has a defect"])
def test_a_xen_that_is_silent_hides_nothing_else(how: str) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        agent = on(pair.alpha)

        async def facts() -> HostFacts:
            if how == "fails":
                raise HypervisorError("xenstored has not answered within 30 s", hint="look what it waits for")
            if how == "hangs":
                await asyncio.Event().wait()
            raise KeyError("xen_version")

        pair.alpha.xen.facts = facts  # type: ignore[method-assign]
        before = asyncio.get_running_loop().time()
        found = by_name(await agent.selftest(full, of_days(200)).run())
        assert found["Xen"][0] == "fail"
        said = {
            "hangs": "no answer within",
            "fails": "xenstored has not",
            "has a defect": "this should not happen: KeyError",
        }
        assert found["Xen"][1].startswith(said[how])
        assert found["Xen"][2]
        assert found["journal"][:2] == ("fail", "no space left")
        assert found["web1"][0] == "ok"
        assert asyncio.get_running_loop().time() - before < 100, "all checks are made at once"

    run(story())


def test_what_works_and_should_not_stay_so() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        agent = on(pair.alpha)
        found = by_name(await agent.selftest(well, None).run())
        assert found["certificate"][0] == "warn"
        assert found["witness"][:2] == ("ok", "none is configured: roles change on an operator's word alone")
        assert found["beta, second path"][0] == "ok"
        for days, result in ((29.0, "warn"), (-1.0, "fail"), (31.0, "ok")):
            assert by_name(await agent.selftest(well, of_days(days)).run())["certificate"][0] == result
        await pair.crash_backup()
        found = by_name(await agent.selftest(well, None).run())
        assert found["web1"][0] == "warn"
        assert found["web1"][2] == "see docs/runbook.md#a-guest-is-silent"
        result, message, hint = found["beta, replication"]
        assert result == "fail"
        assert "beta" in message
        assert hint

    run(story())
