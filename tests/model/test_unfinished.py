"""Without a witness: an agent that dies right when a guest is about to run here, and the next one that finds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from remus_agent.errors import HypervisorError, JournalError
from remus_agent.ports import Domain
from remus_agent.services.sweep import TOOLSTACK_SECONDS
from remus_agent.store_ports import GuestRecord
from tests.model.loop import run
from tests.model.pair import DEAD, Host, Pair, on, until
from tests.model.test_switchover import Service, goes_on, switch, working

Hook = Callable[..., Any]
Stops = Callable[[Host, pytest.MonkeyPatch, list[str]], None]
"""Puts the point at which beta's agent does nothing more; it says in the list that it is there."""


def at(step: str, *, before: bool) -> Stops:
    """At one of the steps of the hypervisor."""

    def arm(host: Host, patch: pytest.MonkeyPatch, reached: list[str]) -> None:
        patch.setattr(host.xen, step, _stops(getattr(host.xen, step), reached, before=before))

    return arm


def at_note(which: Callable[[GuestRecord], bool], *, before: bool) -> Stops:
    """At one of its notes."""

    def arm(host: Host, patch: pytest.MonkeyPatch, reached: list[str]) -> None:
        patch.setattr(host.disk, "save", _stops(host.disk.save, reached, before=before, when=which))

    return arm


def _stops(work: Hook, reached: list[str], *, before: bool, when: Callable[..., bool] = lambda *_: True) -> Hook:
    async def done(*args: Any) -> Any:
        if not when(*args):
            return await work(*args)
        if not before:
            await work(*args)
        reached.append("there")
        return await asyncio.get_running_loop().create_future()

    return done


def starts(record: GuestRecord) -> bool:
    return bool(record.starting)


BUILT = at_note(starts, before=True)
ABOUT_TO_RUN = {
    "noted": at_note(starts, before=False),
    "before its name": at("rename", before=True),
    "named": at("rename", before=False),
    "before it is unpaused": at("unpause", before=True),
}
RUNS = at("unpause", before=False)


async def dies_and_is_started_again(pair: Pair, patch: pytest.MonkeyPatch, reached: list[str]) -> None:
    """beta's agent, at its point."""
    await until(lambda: bool(reached), "the point at which it dies")
    await pair.crash_backup()
    patch.undo()
    await asyncio.sleep(1)
    await pair.boot(pair.beta).resume()


@asynccontextmanager
async def ended_switchover(stops: Stops, patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Pair, Service]]:
    """A switchover in which beta's agent dies at its point; the next one has started."""
    pair, service, living = await working()
    reached: list[str] = []
    stops(pair.beta, patch, reached)
    asking = asyncio.create_task(switch(pair.alpha))
    await dies_and_is_started_again(pair, patch, reached)
    yield pair, service
    asking.cancel()
    living.cancel()


@pytest.mark.parametrize("stops", ABOUT_TO_RUN.values(), ids=ABOUT_TO_RUN)
def test_what_was_handed_over_and_never_ran_goes_on_at_its_primary(
    stops: Stops, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with ended_switchover(stops, monkeypatch) as (pair, service):
            await goes_on(service, pair.alpha)
            assert "web1" not in pair.beta.xen.guests
            assert ("web1", "start-undone") in pair.beta.events.noted
            assert "web1" not in pair.beta.disk.guests

    run(story())


def test_what_was_handed_over_and_runs_goes_on_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with ended_switchover(RUNS, monkeypatch) as (pair, service):
            await until(lambda: "web1" not in pair.alpha.xen.guests, "the old one is destroyed")
            await goes_on(service, pair.beta)
            assert pair.beta.disk.guests["web1"].starting == ""

    run(story())


def test_a_guest_that_cannot_be_destroyed_keeps_the_switchover_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never said to run, though it is there under its name."""

    async def story() -> None:
        pair, service, living = await working()
        reached: list[str] = []
        ABOUT_TO_RUN["before it is unpaused"](pair.beta, monkeypatch, reached)
        asking = asyncio.create_task(switch(pair.alpha))
        await until(lambda: bool(reached), "the point at which it dies")
        await pair.crash_backup()
        monkeypatch.undo()

        async def stuck(_: str) -> bool:
            raise HypervisorError("xl destroy failed")

        with monkeypatch.context() as patch:
            patch.setattr(pair.beta.xen, "destroy", stuck)
            await pair.boot(pair.beta).resume()
        assert ("web1", "start-unfinished") in pair.beta.events.noted
        await asyncio.sleep(60)
        assert service.running() == []
        assert on(pair.alpha)._primaries["web1"].record.handed is not None
        await pair.crash_backup()
        await pair.boot(pair.beta).resume()
        await goes_on(service, pair.alpha)
        asking.cancel()
        living.cancel()

    run(story())


@pytest.mark.parametrize("stops", [*ABOUT_TO_RUN.values(), RUNS], ids=[*ABOUT_TO_RUN, "runs"])
def test_what_an_operator_has_failed_over_runs(stops: Stops, monkeypatch: pytest.MonkeyPatch) -> None:
    """He has proven that the old host is off: this is the only image of the guest."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()
        reached: list[str] = []
        stops(pair.beta, monkeypatch, reached)
        asking = asyncio.create_task(
            on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD),
        )
        await dies_and_is_started_again(pair, monkeypatch, reached)
        assert list(pair.beta.xen.guests) == ["web1"]
        assert pair.beta.xen.guests["web1"].running
        record = pair.beta.disk.guests["web1"]
        assert (record.role, record.starting, record.override) == ("active", "", "")
        if stops is not RUNS:
            await until(lambda: pair.beta.announcer.announced == ["web1"], "announced")
        asking.cancel()

    run(story())


def test_a_copy_that_was_built_and_not_noted_is_destroyed_and_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with ended_switchover(BUILT, monkeypatch) as (pair, service):
            (left,) = [name for name, guest in pair.beta.xen.guests.items() if guest.built]
            await goes_on(service, pair.alpha)
            await asyncio.sleep(TOOLSTACK_SECONDS + 1)
            assert left not in pair.beta.xen.guests
            assert ("?", "left-copy-destroyed") in pair.beta.events.noted
            await goes_on(service, pair.alpha)

    run(story())


def test_a_failover_that_fails_leaves_no_note_of_a_guest_that_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()

        async def taken(*_: object) -> Domain:
            raise HypervisorError("another domain is called web1")

        monkeypatch.setattr(pair.beta.xen, "rename", taken)
        with pytest.raises(HypervisorError, match="another domain"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert not pair.beta.xen.guests
        assert not pair.beta.disk.guests

    run(story())


def test_a_failover_is_not_kept_from_running_by_a_full_disk() -> None:
    """Without the note it runs as well; only the next agent could not finish it."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.orphan()
        pair.beta.disk.full = True
        with pytest.raises(JournalError, match="no space left"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert pair.beta.xen.guests["web1"].running

    run(story())


def test_a_built_copy_with_disks_gives_way_to_the_next_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the disks; its primary has declined to leave it the guest, and protects it anew."""

    async def story() -> None:
        pair, service, living = await working(("xvda",))

        async def full(_: GuestRecord) -> None:
            raise JournalError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(pair.beta.disk, "save", full)
            asking = asyncio.create_task(switch(pair.alpha))
            await asyncio.gather(asking, return_exceptions=True)
        await goes_on(service, pair.alpha)
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "protected again")
        assert ("web1", "older-copy-given-up") in pair.beta.events.noted
        assert len(pair.beta.xen.guests) == 1
        living.cancel()

    run(story())
