"""Checkpoints of a PV guest through a save helper that is faked: complete, and the guest runs again whatever goes
wrong."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_xen import DOMID, NAME, UUID
from helper_setting import CONFIG, Setting
from watcher import Watcher

from remus_agent.adapters.ledger import Ledger
from remus_agent.adapters.xen import helper_source, helper_stream, save_helper
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.helper_source import HelperSource
from remus_agent.errors import GuestEnded, HypervisorError, RefusedError, StreamError
from remus_agent.ports import Domain, GuestType
from remus_agent.protocol.stream.constants import DomainType
from remus_agent.protocol.stream.epoch import parse_epoch
from remus_agent.protocol.stream.preamble import parse_preamble
from remus_agent.protocol.stream.reader import StreamReader
from remus_agent.source_ports import Checkpoint
from tests.spent import spent


@pytest.fixture
def setting(tmp_path: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(tmp_path, watcher, monkeypatch)


async def take(source: HelperSource, epoch: int = 1, at_barrier: Callable[[], None] = lambda: None) -> Checkpoint:
    return await source.checkpoint(epoch, at_barrier, 0.2)


def appears(path: Path) -> None:
    deadline, tick = time.monotonic() + 10, threading.Event()
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        tick.wait(0.01)


def raw(checkpoint: Checkpoint) -> bytes:
    return b"".join(part for group in checkpoint.records for part in group)


async def test_the_stream_is_what_a_reader_of_pv_streams_accepts(setting: Setting) -> None:
    setting.plan(pages=40, dirty=20)
    async with setting.begun(seeded=False) as source:
        stream = source.preamble
        preamble = parse_preamble(stream)
        assert (preamble.name, preamble.guest, preamble.xen) == (NAME, DomainType.PV, (4, 17))
        seeded = 0
        memory = b""
        async for piece in source.seed():
            seeded += piece.pages
            memory += b"".join(piece.records)
        assert (seeded, piece.done, piece.total) == (40, 40, setting.xen.tot_pages)
        first = raw(await take(source))
        second = raw(await take(source, 2))
        assert parse_epoch([memory + first], 39, GuestType.PV).pages == 40 + 20
        epoch = parse_epoch([second], 39, GuestType.PV)
        assert (epoch.pages, len(epoch.tail)) == (20, 3)
        reader = StreamReader()
        reader.feed(stream + memory + first + second)
        assert reader.checkpoints == 2
    assert setting.started.read_text().split()[2:] == ["-1", str(DOMID), "1", "184", "1"]


async def test_each_epoch_has_its_own_content_and_the_guest_was_down_for_it(setting: Setting) -> None:
    down: list[int | None] = []
    async with setting.begun() as source:
        for epoch in range(1, 5):
            checkpoint = await take(source, epoch, lambda: down.append(setting.xen.shutdown))
            assert setting.xen.shutdown is None
            assert (checkpoint.epoch, checkpoint.pages) == (epoch, 3)
            assert bytes([100 + epoch]) * 4096 in raw(checkpoint)
            timing = checkpoint.timing
            assert timing.down == timing.barrier + timing.clean + timing.copy + timing.context + timing.resume
            assert timing.copy > 0
    assert down == [s.Shutdown.SUSPEND] * 4
    assert setting.xen.count("xc_domain_resume") == 4
    assert setting.xen.count("xs_resume_domain") == 4


async def test_nobody_reads_along_while_the_guest_is_down(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    read_while_down: list[int | None] = []
    receive = helper_stream.HelperStream.receive

    def noted(self: helper_stream.HelperStream, most: int = helper_stream.PIECE) -> bool:
        read_while_down.append(setting.xen.shutdown)
        return receive(self, most)

    setting.plan(dirty=200)
    async with setting.begun() as source:
        if not source._stream.deferred:
            pytest.skip("enlarging the buffer of a socket needs CAP_NET_ADMIN")
        monkeypatch.setattr(helper_stream.HelperStream, "receive", noted)
        assert (await take(source)).pages == 200
    assert read_while_down
    assert set(read_while_down) == {None}


@pytest.mark.parametrize("deferred", [True, False])
async def test_an_epoch_larger_than_the_socket_takes_in_is_read_along(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, deferred: bool
) -> None:
    monkeypatch.setattr(helper_stream, "DEEPEST", 1 << 16)
    monkeypatch.setattr(helper_source, "DEEPEST", 1 << 16)
    if not deferred:
        monkeypatch.setattr(helper_stream, "_SO_SNDBUFFORCE", 7)  # SO_SNDBUF: what anybody may set
        monkeypatch.setattr(
            helper_stream.HelperStream,
            "set_depth",
            lambda self, size: setattr(self, "deferred", False) or setattr(self, "_depth", 1 << 16),
        )
    setting.plan(dirty=300, pages=300)
    async with setting.begun() as source:
        if deferred and not source._stream.deferred:
            pytest.skip("enlarging the buffer of a socket needs CAP_NET_ADMIN")
        checkpoint = await take(source)
        assert checkpoint.pages == 300
        assert parse_epoch([raw(checkpoint)], 299, GuestType.PV).pages == 300


async def test_groups_fit_into_frames(setting: Setting) -> None:
    setting.xen.tot_pages = 5000
    setting.plan(pages=5000, dirty=5000)
    async with setting.begun() as source:
        checkpoint = await take(source)
    sizes = [sum(map(len, group)) for group in checkpoint.records]
    assert len(sizes) > 1
    assert max(sizes) <= 8 << 20


async def test_pages_without_content_are_told_of_from_the_second_epoch_on(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.plan(without=2)
    async with setting.begun() as source:
        assert (await take(source)).pages == 3
        assert "without content" not in caplog.text
        assert (await take(source, 2)).pages == 3
    assert "epoch 2: 2 pages became dirty and were sent without content" in caplog.text


async def test_closing_between_epochs_lets_the_helper_clean_up(setting: Setting) -> None:
    async with setting.begun() as source:
        await take(source)
        assert setting.watcher.watched == {DOMID: UUID}
    assert setting.cleaned.exists()
    assert setting.watcher.watched == {}
    assert "xc_shadow_control" not in setting.xen.calls
    await source.close()
    with pytest.raises(HypervisorError, match="closed"):
        await take(source)


async def test_closing_before_the_first_epoch_lets_the_helper_clean_up(setting: Setting) -> None:
    async with setting.begun():
        pass
    assert setting.cleaned.exists()


async def test_closing_in_the_middle_of_seeding_makes_the_helper_clean_up(setting: Setting) -> None:
    setting.xen.tot_pages = 4000
    setting.plan(pages=4000)  # more than the socket takes in, so it works when it is ended
    async with setting.begun(seeded=False) as source:
        async for _ in source.seed():
            break
        with pytest.raises(HypervisorError, match="pages are missing: seeding was broken off"):
            await take(source)
    assert setting.cleaned.exists()
    assert "xc_domain_resume" not in setting.xen.calls


async def test_a_source_that_never_began_can_be_closed(setting: Setting) -> None:
    source = setting.source()
    with pytest.raises(HypervisorError, match="has not begun"):
        _ = source.preamble
    await source.close()
    assert not setting.started.exists()


@pytest.mark.parametrize(
    ("where", "fault", "reason"),
    [
        ("copy", "die", "ended with status 3: helper: assertion failed"),
        ("copy", "give-up", "gave up with -1 .*it said: Failed to retrieve logdirty bitmap"),
        ("copy", "nonsense", "message 77 is none"),
        (None, "cut", "4 bytes of a record that is not whole"),
        (None, "no-checkpoint", "without a CHECKPOINT"),
        (None, "torn", "wrong length of PAGE_DATA; expected 9 pfns and whole pages, found 12 bytes"),
        ("after", "die", "ended with status 3"),
        ("after", "give-up", "gave up"),
    ],
)
async def test_a_helper_that_fails_leaves_the_guest_running(
    setting: Setting, where: str | None, fault: str, reason: str
) -> None:
    setting.plan(where=where, fault=fault)
    async with setting.begun() as source:
        with pytest.raises((HypervisorError, StreamError), match=reason) as caught:
            await take(source, 1)
        assert setting.xen.shutdown is None
        assert setting.xen.count("xc_domain_resume") == 1
        assert (caught.value.epoch, caught.value.domain) == (1, NAME)
        assert caught.value.operation
        if isinstance(caught.value, HypervisorError):
            assert caught.value.left
            assert caught.value.hint
        with pytest.raises(HypervisorError, match="pages are missing: epoch 1 was broken off"):
            await take(source, 2)
    if fault == "die":
        assert ("xc_shadow_control" in setting.xen.calls, setting.xen.logdirty) == (True, False)


async def test_an_epoch_without_pages_is_not_believed(setting: Setting) -> None:
    setting.plan(dirty=0)
    async with setting.begun() as source:
        with pytest.raises(HypervisorError, match="no dirty page"):
            await take(source)
        assert setting.xen.shutdown is None


async def test_a_helper_that_stands_still_while_the_guest_is_down_is_not_waited_for(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_source, "STALL_DOWN", 0.3)
    setting.plan(where="copy", fault="hang")
    async with setting.begun() as source:
        with pytest.raises(HypervisorError, match="stands still: no postcopy callback"):
            await take(source)
        assert setting.xen.shutdown is None
    assert setting.cleaned.exists()


async def test_a_helper_that_does_not_end_is_killed_and_log_dirty_switched_off(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_source, "STALL_DOWN", 0.3)
    monkeypatch.setattr(helper_source, "STOP", 0.3)
    setting.plan(where="copy", fault="deaf")
    async with setting.begun() as source:
        with pytest.raises(HypervisorError, match="stands still"):
            await take(source)
    assert not setting.cleaned.exists()
    assert not setting.xen.logdirty
    assert setting.watcher.watched == {}


async def test_a_helper_that_outlives_its_killing_is_told_of_and_log_dirty_switched_off(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for a device (state D) ends when that answers."""
    monkeypatch.setattr(helper_source, "STALL_DOWN", 0.3)
    monkeypatch.setattr(helper_source, "STOP", 0.3)
    monkeypatch.setattr(save_helper, "REAP", 0.1)
    unkillable: list[subprocess.Popen[bytes]] = []

    def survive(self: subprocess.Popen[bytes]) -> None:
        unkillable.append(self)

    monkeypatch.setattr(subprocess.Popen, "kill", survive)
    setting.plan(where="copy", fault="deaf")
    source = setting.source()
    await source.begin()
    async for _ in source.seed():
        pass
    with pytest.raises(HypervisorError, match="stands still"):
        await take(source)
    try:
        with pytest.raises(HypervisorError, match="was killed and does not end") as caught:
            await source.close()
    finally:
        (process,) = unkillable
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert caught.value.domain == NAME
    assert "dmesg" in str(caught.value.hint)
    assert not setting.xen.logdirty
    assert setting.watcher.watched == {}
    assert process.stdin is not None
    assert process.stdin.closed


async def test_a_helper_that_died_between_epochs_is_noticed(setting: Setting) -> None:
    setting.plan(where="wait", fault="die")
    async with setting.begun() as source:
        await take(source)
        with pytest.raises(HypervisorError, match="ended with status 3"):
            await take(source, 2)
        assert setting.xen.count("xc_domain_resume") == 1
    assert not setting.xen.logdirty


@pytest.mark.parametrize(
    ("where", "fault", "reason"),
    [
        ("static", "die", "ended with status 3"),
        ("static", "give-up", "Failed to retrieve"),
        ("static", "nonsense", "message 77"),
    ],
)
async def test_a_failed_begin_leaves_nothing_behind(setting: Setting, where: str, fault: str, reason: str) -> None:
    setting.plan(where=where, fault=fault)
    source = setting.source()
    with pytest.raises(HypervisorError, match=reason):
        await source.begin()
    assert setting.watcher.watched == {}
    assert setting.xen.count("xc_interface_close") == setting.xen.count("xs_close") == 1
    await source.close()


async def test_a_helper_that_is_not_there(setting: Setting) -> None:
    setting.helper.unlink()
    source = setting.source()
    with pytest.raises(HypervisorError, match="cannot be run"):
        await source.begin()
    await source.close()
    assert setting.watcher.watched == {}


async def test_a_seeding_that_fails_is_told(setting: Setting) -> None:
    setting.xen.tot_pages = 5000
    setting.plan(pages=5000, where="seed", fault="give-up")
    async with setting.begun(seeded=False) as source:
        with pytest.raises(HypervisorError, match="gave up"):
            async for _ in source.seed():
                pass


async def test_a_domain_that_is_gone_explains_the_helpers_failure(setting: Setting) -> None:
    setting.xen.tot_pages = 5000
    setting.plan(pages=5000, where="seed", fault="give-up")
    async with setting.begun(seeded=False) as source:
        setting.xen.gone = True
        with pytest.raises(GuestEnded):
            async for _ in source.seed():
                pass


async def test_a_barrier_that_fails_leaves_the_guest_running_and_nothing_lost(setting: Setting) -> None:
    def broken() -> None:
        raise OSError("plug")

    async with setting.begun() as source:
        with pytest.raises(OSError, match="plug"):
            await take(source, 1, broken)
        assert setting.xen.shutdown is None
        assert (await take(source)).pages == 3
        with pytest.raises(OSError, match="plug"):
            await take(source, 2, broken)
        assert (await take(source, 2)).pages == 3


async def test_memory_that_grew_is_not_copied(setting: Setting) -> None:
    async with setting.begun() as source:
        setting.xen.tot_pages += 1
        with pytest.raises(HypervisorError, match="memory changed"):
            await take(source)
        assert setting.xen.shutdown is None
    assert setting.cleaned.exists()


async def test_a_guest_that_does_not_react_is_asked_no_longer(setting: Setting) -> None:
    async with setting.begun() as source:
        setting.xen.reacts = setting.xen.accepts = False
        with pytest.raises(HypervisorError, match="did not react") as caught:
            await take(source)
        assert caught.value.epoch == 1
        setting.xen.reacts = setting.xen.accepts = True
        assert (await take(source)).pages == 3


async def test_a_guest_that_ended_is_not_resumed(setting: Setting) -> None:
    async with setting.begun() as source:
        setting.xen.shutdown = s.Shutdown.POWEROFF
        with pytest.raises(GuestEnded, match="poweroff"):
            await take(source)
    assert setting.xen.count("xc_domain_resume") == 0


async def test_no_supervisor_no_protection(setting: Setting, tmp_path: Path) -> None:
    domain = Domain(NAME, DOMID, UUID, GuestType.PV, 4, ())
    source = HelperSource(setting.xen.libs, domain, CONFIG, tmp_path / "nothing.sock", setting.helper)
    with pytest.raises(RefusedError, match="supervisor"):
        await source.begin()
    await source.close()
    assert not setting.started.exists()


async def test_closing_ends_a_wait_for_the_helper(setting: Setting) -> None:
    setting.plan(where="copy", fault="hang")
    down = threading.Event()
    async with setting.begun() as source:
        waiting = asyncio.create_task(source.checkpoint(1, down.set, 60.0))
        assert await asyncio.to_thread(down.wait, 5)
        async with asyncio.timeout(8):
            await source.close()
            with pytest.raises(HypervisorError, match="given up"):
                await waiting
    assert setting.xen.shutdown is None
    # SIGTERM may find it where it ends at once; then log-dirty is switched off for it.
    assert setting.cleaned.exists() or not setting.xen.logdirty


async def test_what_it_costs(setting: Setting) -> None:
    """The helper's own time and memory, and what was read of it."""
    ledger = Ledger()
    setting.plan(pages=40, dirty=20)
    source = setting.source(ledger.open(NAME, "checkpoints"))
    await source.begin()
    async for _ in source.seed():
        pass
    await take(source)
    open_ = await spent(ledger, NAME, "checkpoints")
    assert open_.memory_bytes > source._stream.held_bytes + (1 << 20), "a Python is more than that"
    assert open_.cpu_seconds > 0
    await source.close()
    closed = await spent(ledger, NAME, "checkpoints")
    assert closed.cpu_seconds >= open_.cpu_seconds
    assert closed.memory_bytes == 0


async def test_memory_for_an_epoch_is_given_back(setting: Setting) -> None:
    setting.xen.tot_pages = 6000
    setting.plan(pages=40, dirty=6000)
    async with setting.begun() as source:
        assert (await take(source)).pages == 6000
        assert source._stream.held_bytes > 6000 * s.PAGE_SIZE
        assert bytes([101]) * 16 == bytes(source._stream._view[20 << 20 : (20 << 20) + 16])
        source._stream.reset()
        assert source._stream.held_bytes == helper_stream.KEPT
        assert bytes(16) == bytes(source._stream._view[20 << 20 : (20 << 20) + 16])


async def test_closing_while_it_begins_leaves_nothing_behind(setting: Setting) -> None:
    setting.plan(where="static", fault="hang")
    source = setting.source()
    beginning = asyncio.create_task(source.begin())
    async with asyncio.timeout(60):
        await asyncio.to_thread(appears, setting.started)
        await source.close()
        with pytest.raises(HypervisorError, match="given up"):
            await beginning
    assert setting.watcher.watched == {}


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_last_checkpoint_leaves_the_guest_down(setting: Setting, handed_over: bool) -> None:
    async with setting.begun() as source:
        await source.checkpoint(1, lambda: None, 0.2, stay_down=True)
        assert setting.xen.shutdown == s.Shutdown.SUSPEND
        if handed_over:
            await source.leave_down()
    assert setting.xen.shutdown == (s.Shutdown.SUSPEND if handed_over else None)
