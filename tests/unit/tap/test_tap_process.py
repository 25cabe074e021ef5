"""A tap in a process of its own, which dies, hangs, or is left behind by its agent."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kernel import FakeKernel
from tap_steps import ROOT, SIZE, Make

from remus_agent.adapters.disk import tap_process
from remus_agent.adapters.disk.map_file import open_map
from remus_agent.adapters.disk.tap import NbdTap
from remus_agent.disk_ports import DiskData
from remus_agent.errors import DiskError
from remus_agent.protocol.disk import tap_messages as say
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.operations import Extent
from remus_agent.protocol.disk.tap_log import TapLog
from tests import deadline

REGION = 64 * 1024


@pytest.fixture
def real(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tap_process.Process]]:
    """Taps get processes; those that were started."""
    started: list[tap_process.Process] = []

    async def spawn(name: str, ends: tuple[object, ...]) -> tap_process.Process:
        started.append(await tap_process.spawn(name, ends))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(kernel, "spawn", spawn)
    yield started
    for process in started:
        if alive(process.pid):
            os.kill(process.pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Also when it is stopped; not when it only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone, or reaped between opening and reading
        return False


def marked(tap: NbdTap) -> list[int]:
    return [int(region) for region in open_map(tap._map_path, SIZE, keep=True).marked]


async def begun(tap: NbdTap) -> NbdTap:
    """Open, in a session that has nothing to copy."""
    await tap.open()
    regions = open_map(tap._map_path, SIZE, keep=True)
    regions.clear(regions.marked)
    await tap.begin(same_base=True)
    return tap


async def epoch(tap: NbdTap) -> list[Extent]:
    """The next epoch that was ended."""
    extents: list[Extent] = []
    while isinstance(piece := await tap.next(), DiskData):
        extents += wire.parse(b"".join(piece.payload), size=SIZE, block=512)
    return extents


async def test_an_epoch_while_the_agent_does_something_else(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process]
) -> None:
    tap = await begun(make())
    for number in range(200):
        kernel.client.write(number * 4096, bytes([number]) * 4096)  # this thread is that of the agent's loop
    tap.barrier(1)
    kernel.client.write(0, b"n" * 512)
    found = await epoch(tap)
    assert b"".join(bytes(extent.data) for extent in found) == b"".join(bytes([n]) * 4096 for n in range(200))
    assert marked(tap) == list(range(13))
    tap.committed(1)
    await deadline.until(lambda: marked(tap) == [0])
    tap.barrier(2)
    assert [bytes(extent.data) for extent in await epoch(tap)] == [b"n" * 512]
    await tap.close()
    assert not alive(real[0].pid)
    assert len(real) == 1


async def test_the_copier_reads_the_device(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process], tmp_path: Path
) -> None:
    device = tmp_path / "device"
    content = os.urandom(SIZE)
    device.write_bytes(content)
    tap = make()
    tap._disk = tap._disk.__class__("db1", "xvda", device, tmp_path / "x.md", tmp_path / "x.journal")
    await tap.open()
    await tap.begin(same_base=False)
    assert (tap.progress.done, tap.progress.total) == (0, SIZE)
    copying = asyncio.create_task(tap.copy(None))
    pieces = asyncio.create_task(epoch(tap))
    await copying
    assert (tap.progress.done, tap.progress.sent) == (SIZE, SIZE)
    tap.barrier(1)
    assert b"".join(bytes(extent.data) for extent in await pieces) == content
    await deadline.until(
        lambda: str(device) not in {str(fd.readlink()) for fd in Path(f"/proc/{real[0].pid}/fd").iterdir()}
    )
    tap.end()
    with pytest.raises(DiskError, match="no session"):
        await tap.next()  # waits for the end
    with pytest.raises(DiskError, match="no session"):
        await tap.copy(None)


async def test_a_tap_that_is_killed_ends_the_session_and_comes_back(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process]
) -> None:
    tap = await begun(make())
    name = tap.map_id
    kernel.client.write(5 * REGION, b"k" * 512)
    waiting = asyncio.create_task(tap.next())
    await asyncio.sleep(0)
    os.kill(real[0].pid, signal.SIGKILL)
    with pytest.raises(DiskError, match="the process of the tap of xvda is gone"):
        await waiting
    with pytest.raises(DiskError, match="the process of the tap of xvda is gone"):
        tap.barrier(1)
    tap.committed(1)
    tap.end()
    assert kernel.client.ended()
    await tap.open()
    assert (tap.map_id, marked(tap), len(real)) == (name, [5], 2)
    kernel.client.write(0, b"n" * 512)


async def test_a_tap_that_hangs_is_not_waited_for_and_is_replaced(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest is down at the barrier: it must not stay so."""
    monkeypatch.setattr(tap_process, "_EXIT", 0.1)
    tap = await begun(make(stall_seconds=1))
    os.kill(real[0].pid, signal.SIGSTOP)
    with pytest.raises(DiskError, match="has not ended an epoch within"):
        await asyncio.to_thread(tap.barrier, 1)
    tap.end()
    await tap.open()
    assert (alive(real[0].pid), len(real)) == (False, 2)
    await tap.begin(same_base=True)
    kernel.client.write(0, b"n" * 512)
    tap.barrier(1)
    assert [bytes(extent.data) for extent in await epoch(tap)] == [b"n" * 512]


async def test_a_tap_that_hangs_without_a_session_is_replaced(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_process, "_EXIT", 0.1)
    tap = make(stall_seconds=1)
    await tap.open()
    os.kill(real[0].pid, signal.SIGSTOP)
    await tap.open()
    assert (alive(real[0].pid), len(real)) == (False, 2)


async def test_signals_for_the_agent_do_not_end_it_and_the_agents_death_does(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process]
) -> None:
    tap = await begun(make())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(real[0].pid, number)
    kernel.client.write(0, b"n" * 512)
    assert tap._process is not None
    for conversation in (tap._process._commands, tap._process._pieces, tap._process._copies):
        conversation._end.close()  # as the kernel does it for an agent that was killed
    assert kernel.client.ended()
    await deadline.until(lambda: not alive(real[0].pid))
    assert tap._socket.exists(), "the next agent's tap may listen there already"


async def test_nobody_takes_an_answer_that_was_not_for_them(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process]
) -> None:
    tap = await begun(make(early_bytes=512))
    waiting = asyncio.create_task(tap.next())
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for number in range(3):
        kernel.client.write(number * 4096, bytes([number]) * 4096)
    tap.barrier(1)
    assert b"".join(bytes(extent.data) for extent in await epoch(tap)) == b"".join(bytes([n]) * 4096 for n in range(3))
    waiting = asyncio.create_task(tap.next())
    await asyncio.sleep(0.02)
    waiting.cancel()
    tap.end()
    await tap.begin(same_base=True)  # the answer to the old session's question comes first
    kernel.client.write(0, b"n" * 512)
    tap.barrier(1)
    assert [bytes(extent.data) for extent in await epoch(tap)] == [b"n" * 512]


async def test_a_tap_of_another_release_is_refused(
    make: Make, kernel: FakeKernel, real: list[tap_process.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remus_agent.adapters.disk.tap.__version__", "0.0.1")
    tap = make()
    with pytest.raises(DiskError, match="the tap is of release"):
        await tap.open()
    assert (kernel.kind, tap.is_open, alive(real[0].pid)) == ("linear", False, False)


async def test_a_tap_that_cannot_be_started_leaves_the_disk_as_it_was(make: Make, kernel: FakeKernel) -> None:
    tap = make()
    kernel.fails = {"spawn"}
    with pytest.raises(DiskError, match="spawn has failed"):
        await tap.open()
    assert (kernel.kind, tap.is_open) == ("linear", False)


@pytest.mark.parametrize("conversation", ["barrier", "take", "next_copy"])
async def test_a_defect_in_the_tap_ends_all_of_it(
    make: Make,
    kernel: FakeKernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    conversation: str,
) -> None:
    """Threads in the place of a process, so that a defect can be put into it."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("a defect")

    tap = make()
    await tap.open()
    await tap.begin(same_base=False)
    with monkeypatch.context() as patched:
        patched.setattr(TapLog, conversation, fail)
        with pytest.raises(DiskError, match="is gone"):
            if conversation == "barrier":
                tap.barrier(1)
            elif conversation == "take":
                await tap.next()
            else:
                await tap.copy(None)
    assert "a defect" in caplog.text
    assert kernel.client.ended()
    await tap.open()
    kernel.client.write(0, b"n" * 512)


async def test_what_was_committed_before_it_was_sent_ends_the_session(make: Make, kernel: FakeKernel) -> None:
    tap = await begun(make())
    tap.committed(1)
    with pytest.raises(DiskError, match="committed before it was sent"):
        await tap.next()
    kernel.client.write(0, b"n" * 512)
    await tap.begin(same_base=True)
    tap.barrier(1)
    assert await epoch(tap) == []


@pytest.mark.parametrize(
    "message",
    [
        say.Begin(same_base=True),
        say.Barrier(7),
        say.Next(3),
        say.CopyRun(1, 65536, 512, b"x" * 16),
        say.CopyRun(1, 0, 1, None),
        say.Ended(4, 5, 6, b"d" * 16),
        say.Failed(message="no", epoch=3),
        say.Begun(2, say.Progress(1, 2, 3)),
    ],
)
def test_messages_are_what_they_were(message: say.Request | say.Answer) -> None:
    packed = say.encode(message, 17)
    length, data = say.lengths(packed[: say.HEAD.size])
    assert (length, data) == (len(packed) - say.HEAD.size, 17)
    decode = say.request if isinstance(message, say.Request) else say.answer
    assert decode(packed[say.HEAD.size :]) == message


@pytest.mark.parametrize("head", [(0, 0), (say.MOST_MESSAGE + 1, 0), (1, say.MOST_DATA + 1)])
def test_a_head_out_of_bounds_is_refused(head: tuple[int, int]) -> None:
    with pytest.raises(Exception, match="were announced"):
        say.lengths(say.HEAD.pack(*head))
    for decode in (say.request, say.answer):
        with pytest.raises(Exception, match="cannot be read"):
            decode(b"nonsense")
