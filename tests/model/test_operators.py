"""Operators who ask at the same time, or for the wrong thing; and a host whose disk was restored from an old state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remus_agent.errors import AuthorityError, RefusedError, RemusError
from remus_agent.ports import Domain
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary import PrimaryService
from remus_agent.store_ports import GuestRecord
from tests.model.test_authority import ask, play, protect, standing, status, until
from tests.model.world import GUEST, World

Request = Callable[[Any], Awaitable[Any]]


def failover(agent: Any, generation: int | None = None) -> Any:
    return agent.failover(GUEST, generation=generation, session=None, fenced={})


def switchover(agent: Any, generation: int | None = None) -> Any:
    return agent.switchover(GUEST, timeout=5, dry_run=False, generation=generation, progress=lambda *_, **__: None)


async def both(world: World, *requests: tuple[str, Request]) -> list[Any]:
    """What each of two operators is told."""
    told = await asyncio.gather(*(ask(world, *request) for request in requests), return_exceptions=True)
    for each in told:
        assert not isinstance(each, BaseException) or isinstance(each, RemusError), each
    return told


async def one_runs(world: World, host: str) -> None:
    await until(world, lambda: [inc.host for inc in world.running()] == [host], 20)
    await until(world, lambda: standing(world)[0] == host and standing(world)[2] == "protected", 40)


def test_two_who_ask_for_the_same_failover() -> None:
    """It is done once, and nobody is told otherwise."""

    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        told = await both(world, ("beta", failover), ("beta", failover))
        assert any(not isinstance(each, RemusError) for each in told), told
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 20)
        assert [inc.host for inc in world.incarnations] == ["alpha", "beta"]
        world.power_on(world.hosts["alpha"])
        await one_runs(world, "beta")

    play(story)


def test_two_who_move_it_at_once() -> None:
    async def story(world: World) -> None:
        told = await both(world, ("alpha", switchover), ("alpha", switchover))
        refused = [each for each in told if isinstance(each, RemusError)]
        assert len(refused) == 1, told
        assert refused[0].hint or refused[0].left
        await one_runs(world, "beta")

    play(story)


def test_one_moves_it_while_another_takes_it_over() -> None:
    """Whoever comes first; the guest runs once, and goes on being protected."""

    async def story(world: World) -> None:
        await both(world, ("alpha", switchover), ("beta", failover))
        await until(world, lambda: len(world.running()) == 1, 20)
        await one_runs(world, world.running()[0].host)

    play(story)


def test_a_healthy_pair_is_not_failed_over() -> None:
    async def story(world: World) -> None:
        with pytest.raises(AuthorityError) as caught:
            await ask(world, "beta", failover)
        assert "alpha" in str(caught.value), "the one that lives is named"
        assert standing(world) == ("alpha", 2, "protected", "beta")
        await asyncio.sleep(3)
        assert await status(world, "alpha") == "protected"

    play(story)


@pytest.mark.parametrize(
    ("host", "request_"), [("beta", failover), ("alpha", switchover)], ids=["failover", "switchover"]
)
def test_a_wrong_generation_is_refused(host: str, request_: Any) -> None:
    """Whoever asks looked at an older state; a second run of the same playbook does nothing."""

    async def story(world: World) -> None:
        if host == "beta":
            world.power_off(world.hosts["alpha"])
        with pytest.raises((RefusedError, AuthorityError)) as caught:
            await ask(world, host, lambda agent: request_(agent, 7))
        assert "generation" in str(caught.value)
        assert caught.value.left and caught.value.hint

    play(story)


@pytest.mark.parametrize("witness", [True, False], ids=["the witness answers", "the witness is away"])
def test_a_former_primary_restored_from_an_old_state_stands_down(*, witness: bool) -> None:
    """alpha was the primary, beta took over, alpha is its backup. Then alpha's disk, and its guest, are those of before."""

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        old_records, old_memory = dict(alpha.disk.guests), bytes(alpha.xen.guests[GUEST].memory)
        domain = alpha.xen.guests[GUEST].domain
        world.power_off(alpha)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 20)
        world.power_on(alpha)
        await one_runs(world, "beta")
        world.power_off(alpha)
        alpha.disk.guests = old_records
        back = alpha.xen.create(GUEST, domain.uuid, len(old_memory) // 4096)
        back.write(0, old_memory)
        plug = alpha.outputs.of(back.domain, 1 << 20)
        await plug.install(closed=True)
        world.witness.down = not witness
        world.power_on(alpha)
        await asyncio.sleep(15)
        plug.emit("old")
        assert "old" not in plug.out
        assert not back.running or back.suspended or await status(world, "alpha") != "protected"
        world.witness.down = False
        await one_runs(world, "beta")

    play(story)


def test_a_backup_restored_from_an_old_state_owns_nothing() -> None:
    """beta's disk is that of a time at which it owned the guest; it runs on alpha by now."""

    async def story(world: World) -> None:
        await ask(world, "alpha", switchover)
        await one_runs(world, "beta")
        beta = world.hosts["beta"]
        old = dict(beta.disk.guests)
        assert GUEST in old
        await ask(world, "beta", switchover)
        await one_runs(world, "alpha")
        world.power_off(beta)
        beta.disk.guests = old
        await until(world, lambda: standing(world)[2] == "solo", 30)
        world.power_on(beta)
        await one_runs(world, "alpha")
        assert [inc.host for inc in world.running()] == ["alpha"]

    play(story)


def test_who_protects_a_guest_that_was_taken_over_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs, and the agent is about to look after it: nobody else begins to take its checkpoints."""

    async def story(world: World) -> None:
        beta = world.hosts["beta"]
        noting = asyncio.Event()
        save = beta.disk.save

        async def slow(record: GuestRecord) -> None:
            if record.role == "primary" and not record.starting and not noting.is_set():
                noting.set()
                await asyncio.sleep(2)
            await save(record)

        monkeypatch.setattr(beta.disk, "save", slow)
        begun: list[str] = []
        start = Primaries.start

        def counted(self: Primaries, domain: Domain, record: GuestRecord, **kind: bool) -> PrimaryService:
            begun.append(record.name)
            return start(self, domain, record, **kind)

        monkeypatch.setattr(Primaries, "start", counted)
        world.power_off(world.hosts["alpha"])
        await until(world, noting.is_set, 20)
        with pytest.raises(RefusedError, match="taken over here"):
            await ask(world, "beta", lambda agent: protect(agent, wait=False))
        await until(world, lambda: bool(begun), 10)
        world.power_on(world.hosts["alpha"])
        await one_runs(world, "beta")
        assert begun == [GUEST]

    play(story)
