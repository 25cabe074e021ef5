"""What the guarantees promise, as checks that hold, and that turn red under the fault seeded against them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from remus_agent.faults import VARIABLE, FaultName
from remus_agent.ports import Vbd
from remus_agent.protocol.replication.frames import Frame, FrameType
from tests.model.loop import run
from tests.model.pair import DEAD, Pair, on, until

Check = Callable[[], Coroutine[Any, Any, None]]
LINE_QUIET = 40.0
"""Seconds after which a backup takes its primary for silent."""


async def protected(*disks: str) -> Pair:
    """A pair of which two epochs are committed, page 2 with known content."""
    pair = Pair(disks)
    await pair.protect()
    pair.guest.write(2, b"good")
    copy = on(pair.beta).backup.copy_of("web1")
    assert copy is not None
    reached = copy.committed_epoch + 2
    await until(lambda: copy.committed_epoch >= reached, "committed")
    return pair


async def failed_over(pair: Pair) -> bytes:
    """The guest's memory on beta after alpha has died."""
    await pair.kill_host()
    await asyncio.sleep(LINE_QUIET)
    await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
    return bytes(pair.beta.xen.guests["web1"].memory)


async def output_waits_for_the_acknowledgement() -> None:
    """G1."""
    pair = await protected()
    pair.network.cut()
    await asyncio.sleep(0.5)
    pair.output.emit("early")
    await asyncio.sleep(20)
    assert "early" not in pair.output.out


async def only_whole_epochs_are_activated() -> None:
    """G2: the pages of an epoch arrive, its end does not."""
    pair = await protected()
    before = bytes(pair.guest.memory)
    arrived = False

    def lose_the_end(frame: Frame, data: bytes) -> bytes:
        nonlocal arrived
        arrived = arrived or b"half an epoch" in data
        return b"" if frame.type is FrameType.EPOCH_END else data

    pair.guest.write(5, b"half an epoch")
    pair.network.mangler = lose_the_end
    await until(lambda: arrived, "the pages arrive")
    await asyncio.sleep(1)
    assert await failed_over(pair) == before


async def a_new_agent_lets_nothing_out_before_a_commit() -> None:
    """G4: output of the time without an agent, and of the time until its successor has committed."""
    pair = await protected()
    await pair.kill_agent(pair.alpha)
    pair.output.emit("without an agent")
    seeding = False

    def send_output_and_lose_the_end(frame: Frame, data: bytes) -> bytes:
        nonlocal seeding
        if frame.type is FrameType.STREAM:
            seeding = True
            pair.output.emit("while seeding")
        return b"" if frame.type is FrameType.EPOCH_END else data

    pair.network.mangler = send_output_and_lose_the_end
    await pair.boot(pair.alpha).resume()
    await until(lambda: seeding, "the new session sends memory")
    await asyncio.sleep(5)
    assert not {"without an agent", "while seeding"} & set(pair.output.out)


async def damage_is_never_activated() -> None:
    """G6: one bit of a page is wrong on its way, in every attempt."""
    pair = await protected()
    before = bytes(pair.guest.memory)
    damaged = 0

    def flip(frame: Frame, data: bytes) -> bytes:
        nonlocal damaged
        if frame.type is not FrameType.STREAM or b"later" not in data:
            return data
        damaged += 1
        return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]

    pair.guest.write(3, b"later")
    pair.network.mangler = flip
    await until(lambda: damaged > 1, "damaged, and sent again in a new session")
    after = bytes(pair.guest.memory)
    assert await failed_over(pair) in (before, after)


async def output_waits_for_the_disks() -> None:
    """G1: one disk's acknowledgements are lost, memory's come."""
    pair = await protected("xvda", "xvdb")
    acked = False

    def lose(frame: Frame, data: bytes) -> bytes:
        nonlocal acked
        acked = acked or frame.type is FrameType.MEMORY_ACK
        return b"" if frame.type is FrameType.DISK_ACK else data

    pair.network.mangler = lose
    pair.output.emit("early")
    await until(lambda: acked, "memory is acknowledged")
    await asyncio.sleep(20)
    assert "early" not in pair.output.out


async def disks_of_only_whole_epochs_are_activated() -> None:
    """G2: the writes of an epoch arrive, the end of its memory does not."""
    pair = await protected("xvda", "xvdb")
    before = [bytes(pair.volume(vdev).content) for vdev in ("xvda", "xvdb")]
    arrived = False

    def lose_the_end(frame: Frame, data: bytes) -> bytes:
        nonlocal arrived
        arrived = arrived or b"half an epoch" in data
        return b"" if frame.type is FrameType.EPOCH_END else data

    pair.volume("xvdb").write(512, b"half an epoch")
    pair.network.mangler = lose_the_end
    await until(lambda: arrived, "the writes arrive")
    await asyncio.sleep(1)
    await failed_over(pair)
    assert [pair.copied(vdev) for vdev in ("xvda", "xvdb")] == before


async def what_nobody_replicates_is_not_answered_for() -> None:
    """G1: the guest writes to a disk that was attached after its protection began, and answers a client."""
    pair = await protected("xvda")
    pair.guest.attach(Vbd("xvdz", "/dev/vg/scratch"))
    pair.output.emit("early")
    await asyncio.sleep(20)
    assert "early" not in pair.output.out


CHECKS: dict[FaultName, Check] = {
    FaultName.ACK_WAIT_REMOVED: output_waits_for_the_acknowledgement,
    FaultName.FEED_BEFORE_COMMIT: only_whole_epochs_are_activated,
    FaultName.RESTART_OPENS_OUTPUT: a_new_agent_lets_nothing_out_before_a_commit,
    FaultName.DIGEST_UNCHECKED: damage_is_never_activated,
    FaultName.DISK_ACK_IGNORED: output_waits_for_the_disks,
    FaultName.DEVICES_UNCOMPARED: what_nobody_replicates_is_not_answered_for,
    FaultName.DISK_APPLY_ON_RECEIPT: disks_of_only_whole_epochs_are_activated,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.__name__)
def test_the_guarantee_holds(check: Check) -> None:
    run(check())


@pytest.mark.parametrize("fault", CHECKS, ids=lambda fault: fault.value)
def test_its_fault_breaks_it(fault: FaultName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, fault.value)
    with pytest.raises(AssertionError) as caught:
        run(CHECKS[fault]())
    assert "never happened" not in str(caught.value), "the check itself has to be reached"
