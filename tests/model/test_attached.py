"""Disks and interfaces that come and go under a protected guest, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import pytest

from remus_agent.ports import Vbd, Vif
from tests.model.loop import run
from tests.model.pair import Pair, on, until
from tests.model.timeouts import Timeouts

NEW_DISK = Vbd("xvdz", "/dev/vg/scratch")
NEW_VIF = Vif(1, "vif1.1", "00:16:3e:00:00:02", "br0", index=9)


async def protected(**timeouts: Unpack[Timeouts]) -> Pair:
    pair = Pair(("xvda", "xvdb"), **timeouts)
    await pair.protect()
    return pair


def is_state(pair: Pair, *names: str) -> Callable[[], bool]:
    return lambda: on(pair.alpha)._primaries["web1"].state.value in names


async def reason(pair: Pair) -> str:
    return (await on(pair.alpha).status("web1")).reason or ""


def test_what_is_written_to_a_disk_attached_later_is_never_acknowledged_to_a_client() -> None:
    async def story() -> None:
        pair = await protected()
        await asyncio.sleep(0.5)
        pair.guest.attach(NEW_DISK)
        pair.output.emit("it is written to xvdz")
        await asyncio.sleep(60)
        assert "it is written to xvdz" not in pair.output.out
        assert (await on(pair.alpha).status("web1")).state == "silent"
        text = await reason(pair)
        assert "xvdz: /dev/vg/scratch was attached, and nobody replicates it" in text
        assert "xl block-detach web1 xvdz" in text
        pair.guest.detach(NEW_DISK)
        await until(lambda: "it is written to xvdz" in pair.output.out, "protected again", 30)
        assert is_state(pair, "protected")()
        assert not await reason(pair)

    run(story())


def test_a_disk_attached_while_the_backup_is_lost_keeps_output_held_when_it_is_back() -> None:
    async def story() -> None:
        pair = await protected()
        pair.network.cut()
        await until(is_state(pair, "silent"), "silent")
        pair.guest.attach(NEW_DISK)
        pair.output.emit("held")
        pair.network.heal()
        await asyncio.sleep(60)
        assert "held" not in pair.output.out
        assert "xvdz" in await reason(pair)
        pair.guest.detach(NEW_DISK)
        await until(lambda: "held" in pair.output.out, "protected again", 60)

    run(story())


def test_a_disk_that_is_detached_ends_the_session_until_it_is_back() -> None:
    async def story() -> None:
        pair = await protected()
        vbd = pair.guest.domain.disks[1]
        pair.guest.detach(vbd)
        await until(is_state(pair, "silent"), "noticed", 3)
        assert "was detached" in await reason(pair)
        assert "attach xvdb: /dev/mapper/remus-web1-xvdb again" in await reason(pair)
        await asyncio.sleep(30)
        assert is_state(pair, "silent", "reconnecting")()
        pair.guest.attach(vbd)
        await until(is_state(pair, "protected"), "protected again", 30)

    run(story())


def test_a_disk_that_leads_elsewhere_is_another_disk() -> None:
    async def story() -> None:
        pair = await protected()
        vbd = pair.guest.domain.disks[0]
        pair.guest.detach(vbd)
        pair.guest.attach(replace(vbd, path="/dev/vg/other"))
        await until(is_state(pair, "silent"), "noticed", 3)
        assert "/dev/vg/other was attached" in await reason(pair)

    run(story())


@pytest.mark.parametrize("disk", [replace(NEW_DISK, writable=False), replace(NEW_DISK, cdrom=True)])
def test_what_passes_through_may_come_and_go(disk: Vbd) -> None:
    async def story() -> None:
        pair = await protected()
        pair.guest.attach(disk)
        pair.output.emit("reply")
        await until(lambda: "reply" in pair.output.out, "released", 3)
        await asyncio.sleep(10)
        assert is_state(pair, "protected")()

    run(story())


def test_a_disk_attached_while_the_agent_is_dead_keeps_output_held() -> None:
    async def story() -> None:
        pair = await protected()
        await pair.kill_agent(pair.alpha)
        pair.guest.attach(NEW_DISK)
        await pair.boot(pair.alpha).resume()
        pair.output.emit("held")
        await asyncio.sleep(60)
        assert "held" not in pair.output.out
        assert "xvdz" in await reason(pair)
        pair.guest.detach(NEW_DISK)
        await until(lambda: "held" in pair.output.out, "protected again", 60)

    run(story())


def test_an_interface_attached_later_is_held_and_taken_in() -> None:
    async def story() -> None:
        pair = await protected()
        sessions = on(pair.alpha)._primaries["web1"].session_id
        pair.guest.attach(NEW_VIF)
        await asyncio.sleep(2)
        assert NEW_VIF.device in pair.output.plugged
        pair.network.cut()
        pair.output.emit("by the new one", NEW_VIF.device)
        await asyncio.sleep(100)
        assert "by the new one" not in pair.output.out
        pair.network.heal()
        await until(lambda: "by the new one" in pair.output.out, "a new session takes it in", 60)
        assert on(pair.alpha)._primaries["web1"].session_id != sessions

    run(story())


def test_an_interface_made_anew_under_its_old_name_is_noticed() -> None:
    async def story() -> None:
        pair = await protected()
        vif = pair.guest.domain.vifs[0]
        session = on(pair.alpha)._primaries["web1"].session_id
        pair.guest.detach(vif)
        pair.guest.attach(replace(vif, index=vif.index + 1))
        await until(is_state(pair, "silent"), "noticed", 3)
        assert "its interfaces are others now" in await reason(pair)
        await until(is_state(pair, "protected"), "protected again", 30)
        assert on(pair.alpha)._primaries["web1"].session_id != session

    run(story())


def test_an_interface_attached_while_the_backup_is_lost_is_held_at_once() -> None:
    async def story() -> None:
        pair = await protected()
        pair.network.cut()
        await until(is_state(pair, "silent"), "silent")
        pair.guest.attach(NEW_VIF)
        await asyncio.sleep(3)
        pair.output.emit("by the new one", NEW_VIF.device)
        await asyncio.sleep(60)
        assert "by the new one" not in pair.output.out
        pair.network.heal()
        await until(lambda: "by the new one" in pair.output.out, "released by the next session", 100)

    run(story())


def test_an_interface_attached_while_the_agent_is_dead_is_held_before_the_backup_answers() -> None:
    async def story() -> None:
        pair = await protected()
        await pair.kill_agent(pair.alpha)
        pair.network.cut()
        pair.guest.attach(NEW_VIF)
        await pair.boot(pair.alpha).resume()
        await asyncio.sleep(1)
        pair.output.emit("by the new one", NEW_VIF.device)
        await asyncio.sleep(60)
        assert "by the new one" not in pair.output.out

    run(story())


def test_a_guest_that_ends_while_its_devices_go_is_a_guest_that_ended() -> None:
    async def story() -> None:
        pair = await protected()
        pair.guest.ended = True
        for vbd in pair.guest.domain.disks:
            pair.guest.detach(vbd)
        await until(is_state(pair, "stopped"), "its protection ends", 30)

    run(story())
