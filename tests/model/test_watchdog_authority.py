"""The watchdog of each host in the simulated world: armed while it owns the guest, and what happens when it runs out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest

from remus_agent.errors import HypervisorError, JournalError
from remus_agent.machines.watchdog import AUTHORITY
from remus_agent.ports import Domain
from remus_agent.services.watchdog import LOOK
from remus_agent.store_ports import LoadedGuests
from tests.model.test_authority import BOTH, ask, play, standing, status, until
from tests.model.world import BOOT, GUEST, UUID, World

SECONDS = 40
Story = Callable[[World], Awaitable[None]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def armed(world: World) -> list[str]:
    """Hosts whose watchdog is armed."""
    return [name for name, host in world.hosts.items() if host.watchdog.armed]


def noted(world: World, host: str, event: str) -> int:
    """How often a host has noted an event of the guest."""
    return world.hosts[host].events.noted.count((GUEST, event))


def runs_on(world: World) -> list[str]:
    return [inc.host for inc in world.running()]


def guarded(story: Story) -> None:
    play(story, watchdog_seconds=SECONDS)


def protect(agent: object) -> Awaitable[object]:
    """What `remusctl protect` asks for, and no waiting."""
    return agent.protect(  # type: ignore[attr-defined,no-any-return]
        "web2", "beta", interval_ms=700, output_limit_bytes=1 << 20, wait=False, timeout=5, progress=lambda *_, **__: None
    )  # fmt: skip


def test_it_is_armed_where_the_guest_is_owned_and_petted_in_time() -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        await asyncio.sleep(3 * SECONDS)
        alpha = world.hosts["alpha"]
        assert (armed(world), alpha.up, noted(world, "alpha", "watchdog-armed")) == (["alpha"], True, 1)
        times = [at for act, at in alpha.watchdog.acts if act == "pet"]
        assert 8 <= len(times) <= 10, "at a third of its time"
        shown = await ask(world, "alpha", lambda agent: agent.agent())
        assert shown["watchdog"] == {"seconds": SECONDS, "armed": True, "guests": [GUEST], "problem": None}
        shown = await ask(world, "beta", lambda agent: agent.agent())
        assert shown["watchdog"] == {"seconds": SECONDS, "armed": False, "guests": [], "problem": None}

    guarded(story)


def test_it_goes_with_the_guest_from_host_to_host() -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: runs_on(world) == ["beta"], 10)
        await asyncio.sleep(2 * LOOK)
        assert await status(world, "beta") == "solo"
        assert armed(world) == [], "a reset would only lose the guest"
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world)[2:] == ("protected", "alpha"), 15)
        await asyncio.sleep(2 * SECONDS)
        assert armed(world) == ["beta"]

    guarded(story)


def test_who_stands_down_disarms_and_is_not_reset() -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.links.cut |= BOTH
        await until(world, lambda: armed(world) == [], 20)
        await until(world, lambda: runs_on(world) == ["beta"], 10)
        assert await status(world, "alpha") == "stood-down"
        assert noted(world, "alpha", "watchdog-disarmed") == 1
        await asyncio.sleep(2 * SECONDS)
        assert world.hosts["alpha"].up
        assert armed(world) == []

    guarded(story)


def test_silence_takes_no_authority_away() -> None:
    """Neither host knows more than that it cannot be told: the record says what it said."""

    async def story(world: World) -> None:
        world.witness.down = True
        world.links.cut |= BOTH
        await asyncio.sleep(2 * SECONDS)
        assert await status(world, "alpha") == "silent"
        assert armed(world) == ["alpha"]
        assert world.hosts["alpha"].up

    guarded(story)


def test_it_is_disarmed_when_protection_of_the_last_guest_ends() -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        quiet = lambda *_, **__: None  # noqa: E731
        await ask(world, "alpha", lambda agent: agent.unprotect(GUEST, force=False, timeout=20, progress=quiet))
        await until(world, lambda: armed(world) == [], 2 * LOOK)
        await asyncio.sleep(2 * SECONDS)
        assert runs_on(world) == ["alpha"]

    guarded(story)


def test_it_is_disarmed_when_the_agent_stops_in_order() -> None:
    """And armed again by the next one, as after an upgrade."""

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        await ask(world, "alpha", lambda agent: agent.close())
        assert armed(world) == []
        world.kill_agent(alpha)
        world.start_agent(alpha)
        await until(world, lambda: "alpha" in armed(world), 2 * LOOK)
        assert noted(world, "alpha", "watchdog-armed") == 2

    guarded(story)


def test_a_restarted_agent_takes_it_over() -> None:
    """It is the same one: nothing was armed anew."""

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        before = alpha.watchdog.count("arm")
        for _ in range(3):
            world.kill_agent(alpha)
            await asyncio.sleep(1)
            assert armed(world) == ["alpha"], "it outlives the agent"
            pets = alpha.watchdog.count("pet")
            world.start_agent(alpha)
            await until(world, lambda pets=pets: alpha.watchdog.count("pet") > pets, 2 * LOOK)  # type: ignore[misc]
            await asyncio.sleep(10)
        await asyncio.sleep(2 * SECONDS)
        assert alpha.up
        assert (alpha.watchdog.count("arm"), armed(world)) == (before, ["alpha"])

    guarded(story)


def test_a_restarted_agent_that_owns_nothing_any_more_disarms_it() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.kill_agent(alpha)
        await until(world, lambda: standing(world)[0] == "beta", 10)
        assert "alpha" in armed(world)
        world.start_agent(alpha)
        await until(world, lambda: armed(world) == ["beta"], 10)
        assert alpha.up
        await until(world, lambda: standing(world)[2:] == ("protected", "alpha"), 20)

    guarded(story)


def test_a_restarted_agent_for_which_it_is_off_disarms_it() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.kill_agent(alpha)
        world.watchdog_seconds = 0
        world.start_agent(alpha)
        await until(world, lambda: "alpha" not in armed(world), 2 * LOOK)
        await asyncio.sleep(2 * SECONDS)
        assert "alpha" not in armed(world)
        assert (await ask(world, "alpha", lambda agent: agent.agent()))["watchdog"] is None

    guarded(story)


async def _resets_and_returns(world: World) -> None:
    """Nobody pets alpha's: it resets its host, which comes back as the backup of the guest that beta runs by then."""
    alpha = world.hosts["alpha"]
    start = world.loop.time()
    await until(world, lambda: runs_on(world) == ["alpha", "beta"] or runs_on(world) == ["beta"], 15)
    assert alpha.up, "the record decides, not the reset: beta has not waited for it"
    await until(world, lambda: not alpha.up, SECONDS)
    assert world.loop.time() - start > SECONDS / 2
    await until(world, lambda: alpha.up, 2 * BOOT)
    await until(world, lambda: standing(world)[2:] == ("protected", "alpha"), 20)
    assert runs_on(world) == ["beta"]
    await until(world, lambda: armed(world) == ["beta"], 2 * LOOK)


def test_a_loop_that_hangs_lets_it_run_out() -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.hosts["alpha"].node.stopped = True
        await _resets_and_returns(world)

    guarded(story)


def test_an_agent_that_does_not_come_back_lets_it_run_out() -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.kill_agent(world.hosts["alpha"])
        await _resets_and_returns(world)

    guarded(story)


def test_agents_that_never_get_to_know_their_guests_let_it_run_out() -> None:
    """Being started again and again is not coming back."""

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)

        async def damaged() -> LoadedGuests:
            raise JournalError("input/output error")

        alpha.disk.load_all = damaged  # type: ignore[method-assign]
        pets = alpha.watchdog.count("pet")
        for _ in range(SECONDS):
            world.kill_agent(alpha)
            world.start_agent(alpha)
            starting = alpha.starting
            await asyncio.sleep(1)
            assert starting is not None
            assert isinstance(starting.exception(), JournalError)
            if not alpha.up:
                break
            await ask(world, "alpha", lambda agent: agent.close())
        assert not alpha.up
        assert alpha.watchdog.count("pet") == pets
        assert runs_on(world) == ["beta"]

    guarded(story)


def test_it_stays_armed_for_a_guest_with_which_a_new_agent_cannot_go_on_yet() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        world.kill_agent(alpha)
        domain, disarmed = alpha.xen.domain, alpha.watchdog.count("disarm")

        async def unseen(name: str) -> Domain:
            raise HypervisorError("xenstore does not answer", domain=name)

        alpha.xen.domain = unseen  # type: ignore[method-assign]
        world.start_agent(alpha)
        await until(world, lambda: noted(world, "alpha", "resume-put-off") == 1, 5)
        await asyncio.sleep(2 * SECONDS)
        assert noted(world, "beta", "suspect") == 0
        assert (alpha.up, alpha.watchdog.armed, alpha.watchdog.count("disarm")) == (True, True, disarmed)
        alpha.xen.domain = domain  # type: ignore[method-assign]
        assert standing(world) == ("alpha", 2, "protected", "beta"), "a host that lives is not taken for dead"
        await until(world, lambda: noted(world, "alpha", "protected") == 2, 2 * SECONDS)

    guarded(story)


def test_a_loop_that_hangs_for_a_while_is_borne() -> None:
    """For two thirds of its time, less a look."""

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        for _ in range(3):
            alpha.node.stopped = True
            await asyncio.sleep(SECONDS * 2 / 3 - 2 * LOOK)
            alpha.node.stopped = False
            await asyncio.sleep(5)
        assert alpha.up

    guarded(story)


def test_without_it_a_loop_that_hangs_resets_nothing() -> None:
    async def story(world: World) -> None:
        world.hosts["alpha"].node.stopped = True
        await asyncio.sleep(4 * SECONDS)
        assert (world.hosts["alpha"].up, armed(world)) == (True, [])
        assert not world.hosts["alpha"].watchdog.acts

    play(story)


def test_where_it_cannot_be_armed_nothing_is_protected_anew() -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        alpha.xen.create("web2", UUID.replace("1", "2"), 4)
        await ask(world, "alpha", lambda agent: agent.close())
        world.kill_agent(alpha)
        alpha.watchdog.broken = True
        world.start_agent(alpha)
        await until(world, lambda: noted(world, "alpha", "watchdog-failed") > 0, 10)
        with pytest.raises(HypervisorError, match="watchdog cannot be armed: xc_watchdog failed") as caught:
            await ask(world, "alpha", protect)
        assert (caught.value.domain, caught.value.left) == ("web2", "nothing was changed")
        assert "web2" not in alpha.disk.guests
        found = await ask(world, "alpha", lambda agent: agent.probe("web2", "beta"))
        assert [reason["code"] for reason in found["reasons"]] == ["hypervisor"]

    guarded(story)


def test_where_it_cannot_be_armed_a_takeover_goes_on_and_says_so() -> None:
    async def story(world: World) -> None:
        beta = world.hosts["beta"]
        beta.watchdog.broken = True
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: runs_on(world) == ["beta"], 10)
        world.power_on(world.hosts["alpha"])
        await until(world, lambda: standing(world)[2:] == ("protected", "alpha"), 15)
        await asyncio.sleep(SECONDS)
        shown = await ask(world, "beta", lambda agent: agent.status(GUEST))
        assert shown.state == "protected"
        assert "no watchdog looks after this host: " in shown.reason
        shown = await ask(world, "beta", lambda agent: agent.agent())
        assert "No space left" in shown["watchdog"]["problem"]
        assert noted(world, "beta", "watchdog-failed") == 1, "once for each reason"
        beta.watchdog.broken = False
        await until(world, lambda: armed(world) == ["beta"], 2 * LOOK)
        shown = await ask(world, "beta", lambda agent: agent.status(GUEST))
        assert "watchdog" not in (shown.reason or "")

    guarded(story)


def test_a_defect_in_what_looks_after_it_disarms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await until(world, lambda: armed(world) == ["alpha"], 2 * LOOK)
        monkeypatch.setattr("remus_agent.services.primaries.AUTHORITY", {})
        await until(world, lambda: armed(world) == [], 2 * LOOK)
        monkeypatch.setattr("remus_agent.services.primaries.AUTHORITY", AUTHORITY)
        shown = await ask(world, "alpha", lambda agent: agent.agent())
        assert "nothing looks after it any more" in shown["watchdog"]["problem"]
        await asyncio.sleep(2 * SECONDS)
        assert world.hosts["alpha"].up

    guarded(story)
