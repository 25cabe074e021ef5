"""Checkpoints of a faked guest: complete, and the guest runs again whatever goes wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_xen import DOMID, LOW, NAME, SPECIAL, UUID, FakeXen
from source_runs import begun, source_of, take
from watcher import Watcher

from remus_agent import faults
from remus_agent.adapters.ledger import Ledger
from remus_agent.adapters.xen import guard, suspend
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.source import XenSource
from remus_agent.errors import GuestEnded, HypervisorError, OutputBufferError, RefusedError
from remus_agent.ports import Domain, GuestType
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.epoch import parse_epoch
from remus_agent.protocol.stream.reader import iter_records
from remus_agent.protocol.stream.records import parse_page_data
from tests.burning import burn
from tests.spent import spent


def pfns(buffers: bytes) -> dict[int, int]:
    """pfn -> page type of all PAGE_DATA records."""
    found = {}
    for record in iter_records(buffers):
        if record.type == c.LibxcRecordType.PAGE_DATA:
            page = parse_page_data(record.body, 0)
            found.update(zip(page.pfns.tolist(), page.types.tolist(), strict=True))
    return found


async def test_what_it_costs(xen: FakeXen, watcher: Watcher) -> None:
    """The thread that takes checkpoints, and its staging; closed, it has no memory, and what it used counts for good."""
    ledger = Ledger()
    domain = Domain(NAME, DOMID, UUID, GuestType.PVH, 4 * len(xen.gfns), ())
    source = XenSource(xen.libs, domain, b"preamble", watcher.path, entry=ledger.open(NAME, "checkpoints"))
    await source.begin()
    async for _ in source.seed():
        pass
    xen.touch(3, 4)
    await take(source)
    await source._run(burn, 0.1)
    open_ = await spent(ledger, NAME, "checkpoints")
    assert open_.cpu_seconds >= 0.05
    assert open_.memory_bytes == len(xen.gfns) * s.PAGE_SIZE + source._bitmap.held_bytes
    await source.close()
    closed = await spent(ledger, NAME, "checkpoints")
    assert closed.cpu_seconds >= open_.cpu_seconds
    assert closed.memory_bytes == 0


async def test_seeding_sends_every_frame_and_zeros_in_short(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher, seeded=False) as source:
        pieces = [(b"".join(piece.records), piece) async for piece in source.seed()]
    found = pfns(b"".join(raw for raw, _ in pieces))
    assert sorted(found) == xen.gfns
    zeros = {xen.gfns[row] for row in range(50, 60)}
    assert {pfn for pfn, kind in found.items() if kind == c.PageType.XALLOC} == zeros
    assert sum(piece.pages for _, piece in pieces) == len(xen.gfns) - len(zeros)
    assert pieces[-1][1].done == pieces[-1][1].total


async def test_seeding_goes_over_what_became_dirty_a_bounded_number_of_times(
    xen: FakeXen, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remus_agent.adapters.xen.source.SEED_ENOUGH", 1)
    async with begun(xen, watcher, seeded=False) as source:
        rounds = 0
        async for _ in source.seed():
            rounds += 1
            xen.touch(1, 2, 3)
    assert rounds == 5


async def test_a_checkpoint_holds_the_dirty_pages_and_the_context(xen: FakeXen, watcher: Watcher) -> None:
    xen.mapping[5, :4] = 9
    async with begun(xen, watcher) as source:
        xen.touch(5, LOW - 1, SPECIAL[1], LOW + 5)  # the last one is no ordinary memory
        checkpoint = await take(source)
        raw = [b"".join(group) for group in checkpoint.records]
    epoch = parse_epoch(raw, 1 << 36)
    assert sorted(pfns(b"".join(raw))) == [5, LOW - 1, SPECIAL[1]]
    assert (checkpoint.pages, epoch.pages, len(epoch.tail)) == (3, 3, 3)
    assert bytes([9, 9, 9, 9]) in raw[0]
    assert b"c" * 64 in raw[0]
    timing = checkpoint.timing
    parts = timing.barrier + timing.clean + timing.copy + timing.context + timing.resume
    assert timing.down == parts


async def test_only_what_must_be_happens_while_the_guest_is_down(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.touch(5)
        xen.calls.clear()
        await take(source)
    window = xen.calls[xen.calls.index("xc_logdirty_control") : xen.calls.index("xc_domain_resume") + 1]
    assert set(window) == {
        "xc_logdirty_control", "xc_domain_get_tsc_info", "xc_domain_hvm_getcontext", "xc_hvm_param_get", "xc_domain_resume",
    }  # fmt: skip


@pytest.mark.parametrize(
    "call", ["xc_logdirty_control", "xc_domain_get_tsc_info", "xc_domain_hvm_getcontext", "xc_hvm_param_get"]
)
async def test_a_call_that_fails_while_the_guest_is_down_leaves_it_running(
    xen: FakeXen, watcher: Watcher, call: str
) -> None:
    async with begun(xen, watcher) as source:
        xen.touch(5)
        xen.failing = {call}
        with pytest.raises(HypervisorError, match="errno 5"):
            await take(source)
        assert xen.shutdown is None
        xen.failing = set()
        with pytest.raises(HypervisorError, match="pages are missing"):
            await take(source)


async def test_seeded_fault_error_leaves_suspended_breaks_the_guest(
    xen: FakeXen, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded fault of G5: the test above must be able to fail."""
    monkeypatch.setenv(faults.VARIABLE, faults.FaultName.ERROR_LEAVES_SUSPENDED.value)
    with pytest.raises(AssertionError, match="SUSPEND"):
        await test_a_call_that_fails_while_the_guest_is_down_leaves_it_running(xen, watcher, "xc_hvm_param_get")


async def test_a_barrier_that_fails_leaves_the_guest_running_and_nothing_lost(xen: FakeXen, watcher: Watcher) -> None:
    def broken() -> None:
        raise OSError("plug")

    async with begun(xen, watcher) as source:
        xen.touch(5)
        with pytest.raises(OSError, match="plug"):
            await take(source, broken)
        assert xen.shutdown is None
        assert (await take(source)).pages == 1


async def test_an_error_of_the_barrier_names_the_epoch_and_keeps_what_it_knows(xen: FakeXen, watcher: Watcher) -> None:
    def broken() -> None:
        raise OutputBufferError("no plug", operation="end the epoch")

    async with begun(xen, watcher) as source:
        xen.touch(5)
        with pytest.raises(OutputBufferError) as caught:
            await take(source, broken)
    assert str(caught.value) == f"end the epoch, domain {NAME}, epoch 1: no plug"


async def test_a_checkpoint_without_seeding_is_refused(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher, seeded=False) as source:
        with pytest.raises(HypervisorError, match="not seeded"):
            await take(source)
    assert "xs_write" not in xen.calls


async def test_an_empty_dirty_bitmap_is_not_believed(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        with pytest.raises(HypervisorError, match="switched log-dirty off"):
            await take(source)
        assert xen.shutdown is None


async def test_memory_that_grew_is_not_copied(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.touch(5)
        xen.tot_pages += 1
        with pytest.raises(HypervisorError, match="memory changed"):
            await take(source)
        assert xen.shutdown is None


async def test_a_guest_that_does_not_react_is_asked_no_longer(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.reacts = xen.accepts = False
        with pytest.raises(HypervisorError, match="did not react") as caught:
            await take(source)
        assert caught.value.epoch == 1
        assert xen.store[f"/local/domain/{DOMID}/control/shutdown"] == ""


async def test_a_guest_that_goes_down_late_is_resumed_on_close(
    xen: FakeXen, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspend, "_LATE", 0.2)
    async with begun(xen, watcher) as source:
        xen.reacts = False
        with pytest.raises(HypervisorError, match="accepted the suspend request"):
            await take(source)
        xen.shutdown = s.Shutdown.SUSPEND
    assert (xen.shutdown, watcher.watched) == (None, {})


async def test_a_guest_that_may_go_down_yet_is_left_to_the_supervisor(
    xen: FakeXen, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspend, "_LATE", 0.1)
    async with begun(xen, watcher) as source:
        xen.reacts = False
        with pytest.raises(HypervisorError, match="resumed should it go down yet"):
            await take(source)
    assert watcher.watched == {DOMID: UUID}, "its care did not end, but the line has"


async def test_a_guest_that_went_down_between_two_sessions_is_resumed_by_the_next(
    xen: FakeXen, watcher: Watcher
) -> None:
    xen.shutdown = s.Shutdown.SUSPEND
    async with begun(xen, watcher, seeded=False):
        assert xen.shutdown is None


async def test_a_guest_that_goes_down_while_it_is_seeded_is_resumed(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher, seeded=False) as source:
        xen.shutdown = s.Shutdown.SUSPEND
        async for _ in source.seed():
            assert xen.shutdown is None


async def test_a_guest_that_went_down_late_is_asked_anew(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.shutdown = s.Shutdown.SUSPEND
        xen.touch(5)
        await take(source)
        assert (xen.shutdown, xen.count("xs_write"), xen.count("xc_domain_resume")) == (None, 1, 2)


@pytest.mark.parametrize(
    ("reason", "text"), [(s.Shutdown.POWEROFF, "poweroff"), (s.Shutdown.CRASH, "crash"), (9, "reason 9")]
)
async def test_a_guest_that_ended_is_not_resumed(xen: FakeXen, watcher: Watcher, reason: int, text: str) -> None:
    async with begun(xen, watcher) as source:
        xen.shutdown = reason
        with pytest.raises(GuestEnded, match=text):
            await take(source)
    assert xen.count("xc_domain_resume") == 0


async def test_a_domain_that_is_gone_can_be_closed(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.gone = True
        with pytest.raises(GuestEnded):
            await take(source)
    assert watcher.watched == {}


async def test_closing_switches_everything_off(xen: FakeXen, watcher: Watcher) -> None:
    source = source_of(xen, watcher.path)
    await source.begin()
    assert (xen.logdirty, watcher.watched) == (True, {DOMID: UUID})
    await source.close()
    await source.close()
    assert (xen.logdirty, watcher.watched) == (False, {})
    assert xen.count("xenforeignmemory_unmap") == 1
    with pytest.raises(HypervisorError, match="closed"):
        await take(source)


@pytest.mark.parametrize(
    "call", ["xc_domain_maximum_gpfn", "xenforeignmemory_map", "xc_domain_hvm_getcontext", "xc_shadow_control"]
)
async def test_a_failed_begin_leaves_nothing_behind(xen: FakeXen, watcher: Watcher, call: str) -> None:
    xen.failing = {call}
    if call == "xenforeignmemory_map":
        xen.failing = set()
        xen.xenforeignmemory_map = lambda *_: None  # type: ignore[method-assign, assignment, return-value]
    source = source_of(xen, watcher.path)
    with pytest.raises(HypervisorError):
        await source.begin()
    assert not xen.logdirty
    assert xen.count("xc_interface_close") == xen.count("xs_close") == 1
    assert watcher.watched == {}
    await source.close()


async def test_no_supervisor_no_protection(xen: FakeXen, tmp_path: Path) -> None:
    source = source_of(xen, tmp_path / "nothing.sock")
    with pytest.raises(RefusedError, match="supervisor"):
        await source.begin()
    await source.close()
    assert not xen.logdirty


async def test_a_restarted_supervisor_is_told_again(xen: FakeXen, tmp_path: Path) -> None:
    path = tmp_path / "supervisor.sock"
    first = Watcher(path)
    with first:
        source = source_of(xen, path)
        await source.begin()
        async for _ in source.seed():
            pass
    with Watcher(path) as second:
        xen.touch(5)
        await take(source)
        assert second.watched == {DOMID: UUID}
        await source.close()


async def test_without_a_supervisor_the_guest_is_not_suspended(
    xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_AGAIN", 0.2)
    path = tmp_path / "supervisor.sock"
    with Watcher(path):
        source = source_of(xen, path)
        await source.begin()
        async for _ in source.seed():
            pass
    with pytest.raises(HypervisorError, match="supervisor went away"):
        await take(source)
    assert "xs_write" not in xen.calls
    await source.close()


async def test_closing_ends_a_wait_for_the_guest(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.reacts = xen.accepts = False
        waiting = asyncio.create_task(source.checkpoint(1, lambda: None, 60.0))
        assert await asyncio.to_thread(xen.asked.wait, 60)
        async with asyncio.timeout(60):
            await source.close()
            with pytest.raises(HypervisorError):
                await waiting


async def test_a_guest_that_is_handed_over_stays_down(xen: FakeXen, watcher: Watcher) -> None:
    async with begun(xen, watcher) as source:
        xen.touch(5)
        await source.checkpoint(1, lambda: None, 0.2, stay_down=True)
        await source.leave_down()
        assert watcher.watched == {}, "the supervisor would resume it"
    assert xen.shutdown == s.Shutdown.SUSPEND


async def test_a_supervisor_that_cannot_be_told_leaves_everything_as_it_is(
    xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_AGAIN", 0.1)
    with Watcher(tmp_path / "supervisor.sock") as first:
        source = source_of(xen, first.path)
        await source.begin()
        async for _ in source.seed():
            pass
        xen.touch(5)
        await source.checkpoint(1, lambda: None, 0.2, stay_down=True)
    with pytest.raises(HypervisorError, match="supervisor"):
        await source.leave_down()
    await source.close()
    assert xen.shutdown is None


async def test_a_last_checkpoint_that_fails_resumes_the_guest(xen: FakeXen, watcher: Watcher) -> None:
    def broken() -> None:
        raise OutputBufferError("no")

    async with begun(xen, watcher) as source:
        with pytest.raises(OutputBufferError):
            await source.checkpoint(1, broken, 0.2, stay_down=True)
        assert xen.shutdown is None
