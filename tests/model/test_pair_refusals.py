"""What two agents refuse, and that nothing has happened then."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from remus_agent.errors import (
    AlreadyProtected,
    AuthorityError,
    DomainNotFound,
    JournalError,
    PeerRefused,
)
from remus_agent.ports import GuestType
from remus_agent.store_ports import LoadedGuests
from tests.model.loop import run
from tests.model.pair import DEAD, UUID, Pair, committed, on, quiet, until


def test_a_peer_speaks_for_itself_only() -> None:
    async def story() -> None:
        pair = Pair()
        pair.network.identity = "gamma"
        with pytest.raises(PeerRefused, match="has proven to be gamma and speaks for alpha"):
            await pair.protect()
        assert on(pair.beta).backup.names() == []
        pair.network.identity = "alpha"
        assert (await pair.protect()).state == "protected"

    run(story())


def test_a_backup_that_runs_a_guest_of_that_name_itself_says_what_to_do() -> None:
    async def story() -> None:
        pair = Pair()
        stale = pair.beta.xen.create("web1", UUID)
        (reason,) = (await on(pair.alpha).probe("web1", "beta"))["reasons"]
        assert (reason["code"], reason["hint"]) == (
            "runs-here",
            "if that is the same guest after a failover, destroy the stale one first",
        )
        other = UUID.replace("0001", "0002")
        stale.domain = replace(stale.domain, uuid=other)
        (reason,) = (await on(pair.alpha).probe("web1", "beta"))["reasons"]
        assert reason["hint"] == f"that is another guest (UUID {other}) with the same name: rename one of the two"

    run(story())


def test_a_pv_guest_needs_the_policy_of_pv_guests() -> None:
    async def story() -> None:
        pair = Pair()
        pair.beta.xen.host = replace(pair.beta.xen.host, pv_cpu_policy="other")
        assert (await on(pair.alpha).probe("web1", "beta"))["ok"]
        pair.alpha.xen.create("pv1", UUID.replace("0001", "0002"), guest_type=GuestType.PV)
        probed = await on(pair.alpha).probe("pv1", "beta")
        assert [reason["code"] for reason in probed["reasons"]] == ["cpu-policy"]

    run(story())


def test_a_backup_without_a_device_model_refuses_hvm_guests() -> None:
    async def story() -> None:
        pair = Pair()
        pair.beta.xen.host = replace(pair.beta.xen.host, device_model=False)
        assert (await on(pair.alpha).probe("web1", "beta"))["ok"]
        pair.alpha.xen.create("hvm1", UUID.replace("0001", "0002"), guest_type=GuestType.HVM)
        (reason,) = (await on(pair.alpha).probe("hvm1", "beta"))["reasons"]
        assert (reason["code"], reason["hint"]) == ("device-model", "install qemu-system-xen on the backup")

    run(story())


@pytest.mark.parametrize(
    ("fenced", "generation", "message"),
    [
        ({}, None, "no proof"),
        ({**DEAD, "host": "gamma"}, None, "the primary runs on alpha"),
        (DEAD, 7, "generation 1"),
    ],
)
def test_failover_without_the_right_proof_is_refused(
    fenced: dict[str, str], generation: int | None, message: str
) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.kill_host()
        await asyncio.sleep(40)
        with pytest.raises(AuthorityError, match=message):
            await on(pair.beta).failover("web1", generation=generation, session=None, fenced=fenced)
        assert [guest.paused_copy for guest in pair.beta.xen.guests.values()] == [True]

    run(story())


def test_failover_against_a_living_primary_is_refused_and_protection_goes_on() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        with pytest.raises(AuthorityError, match="the primary is alive"):
            await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        reached = committed(pair) + 3
        await until(lambda: committed(pair) >= reached, "epochs go on")

    run(story())


def test_no_session_begins_while_a_copy_is_activated_although_its_primary_lives() -> None:
    """An operator has taken a lost link for a dead host. The primary that comes back at that moment must not be let in: what its
    guest has sent since would get out, and the copy that runs knows nothing of it."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        load_all, reading, read = pair.beta.disk.load_all, asyncio.Event(), asyncio.Event()

        async def slowly() -> LoadedGuests:
            reading.set()
            await read.wait()
            return await load_all()

        pair.beta.disk.load_all = slowly  # type: ignore[method-assign]
        await pair.network.drop_all()
        async with asyncio.timeout(60):
            await reading.wait()  # beta is about to take the new session in, and looks what it has noted of the guest
        status = await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert status.state == "active"
        pair.output.emit("unknown to beta")
        read.set()
        await asyncio.sleep(60)
        assert pair.output.out == []
        assert (await on(pair.alpha).status("web1")).state != "protected"
        assert pair.beta.disk.guests["web1"].role == "active"  # it is not what an earlier activation has left

    run(story())


def test_reasons_against_a_protection_are_named_and_nothing_is_touched() -> None:
    async def story() -> None:
        pair = Pair()
        pair.beta.xen.host = type(pair.beta.xen.host)("4.17.5", "0ther", 1024)
        probe = await on(pair.alpha).probe("web1", "beta")
        assert [reason["code"] for reason in probe["reasons"]] == ["xen-version", "cpu-policy", "memory"]
        with pytest.raises(PeerRefused, match=r"Xen 4\.20\.0.*features.*memory"):
            await pair.protect()
        status = await on(pair.alpha).status("web1")
        assert status.state == "failed"
        assert not pair.beta.xen.guests
        assert not pair.alpha.disk.guests
        assert not pair.guest.in_log_dirty

    run(story())


def test_bad_requests() -> None:
    async def story() -> None:
        pair = Pair()
        with pytest.raises(DomainNotFound, match="web1"):
            await on(pair.alpha).protect(
                "wbe1",
                "beta",
                interval_ms=0,
                output_limit_bytes=1 << 20,
                wait=True,
                timeout=9,
                progress=quiet,
            )
        await pair.protect()
        with pytest.raises(AlreadyProtected, match="to beta"):
            await pair.protect()

    run(story())


def test_a_full_disk_on_the_primary_refuses_before_anything_happens() -> None:
    async def story() -> None:
        pair = Pair()
        pair.alpha.disk.full = True
        with pytest.raises(JournalError):
            await pair.protect()
        assert "web1" not in pair.alpha.outputs.by_name
        assert not pair.beta.xen.guests

    run(story())
