"""A xenstored that does not answer holds the thread that asks it, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest
from fake_xen import DOMID, NAME, UUID, Hanging
from source_runs import source_of
from watcher import Watcher

from remus_agent.adapters.xen import hypervisor
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.hypervisor import XenHypervisor
from remus_agent.adapters.xen.source import XenSource
from remus_agent.adapters.xen.target import XenTarget
from remus_agent.adapters.xen.xen_thread import PATIENCE, XenThread
from remus_agent.errors import HypervisorError
from remus_agent.ports import Domain, GuestType
from tests.model.loop import run


@pytest.fixture
def xen() -> Iterator[Hanging]:
    fake = Hanging()
    yield fake
    fake.answers.set()


@pytest.fixture
def host(xen: Hanging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> XenHypervisor:
    monkeypatch.setattr(hypervisor.libs, "load", lambda: xen.libs)
    return XenHypervisor(tmp_path / "supervisor.sock")


def over(thread: XenThread) -> None:
    """Wait for the real end of what was asked of it."""
    thread._executor.shutdown(wait=True)


async def late(work: Awaitable[object], request: str) -> HypervisorError:
    with pytest.raises(HypervisorError, match=rf"xenstored has not answered within {PATIENCE:g} s \({request}") as said:
        await work
    assert said.value.operation == "ask xenstored"
    assert "timeout 5 xenstore-list /" in (said.value.hint or "")
    return said.value


def test_who_asks_about_a_guest_is_told_and_what_waits_behind_it_is_never_begun(
    host: XenHypervisor, xen: Hanging
) -> None:
    xen.hangs = {"xs_directory"}
    xen.shutdown = s.Shutdown.SUSPEND

    async def story() -> None:
        domain = Domain(NAME, DOMID, UUID, GuestType.PVH, 4, ())
        first, behind = asyncio.create_task(host.domain(NAME)), asyncio.create_task(host.resume(domain))
        await late(first, "xs_directory /local/domain")
        await late(behind, "xs_directory /local/domain")

    run(story())
    xen.hangs = set()
    xen.answers.set()
    assert asyncio.run(host.names()) == {NAME}, "it goes on when xenstored does"
    assert xen.shutdown == s.Shutdown.SUSPEND, "nobody waits for it to be resumed any more"


def test_a_call_that_takes_long_by_itself_is_not_late(host: XenHypervisor, xen: Hanging) -> None:
    """Nor is a host that was frozen: time is counted in looks that find the same request."""

    async def story() -> None:
        waiting = asyncio.create_task(host.facts())
        await asyncio.sleep(3 * PATIENCE)
        assert not waiting.done()
        xen.answers.set()
        await asyncio.wait({waiting})
        assert waiting.result().xen_version == "4.20"

    xen.hangs = {"xc_physinfo"}
    run(story())


def test_a_checkpoint_and_the_end_of_its_source(xen: Hanging, watcher: Watcher) -> None:
    """The guest runs; what was set up is undone as soon as xenstored answers."""

    async def story() -> XenSource:
        source = source_of(xen, watcher.path)
        await source.begin()
        async for _ in source.seed():
            pass
        xen.hangs = {"xs_write"}
        error = await late(source.checkpoint(1, barrier, 10.0), f"xs_write /local/domain/{DOMID}/control/shutdown")
        assert error.domain == NAME
        assert "the guest runs" in (error.left or "")
        await late(source.close(), "xs_write")
        return source

    def barrier() -> None:
        raise AssertionError("nobody waits for this epoch any more")

    source = run(story())
    assert xen.shutdown is None
    assert xen.logdirty
    xen.answers.set()
    over(source._thread)
    assert xen.shutdown is None, "it went down late, and was resumed"
    assert not xen.logdirty
    assert xen.count("xs_close") == xen.count("xc_interface_close") == 1
    assert watcher.watched == {}


async def test_an_end_that_is_cancelled_comes_all_the_same(xen: Hanging, watcher: Watcher) -> None:
    source = source_of(xen, watcher.path)
    await source.begin()
    async for _ in source.seed():
        pass
    xen.hangs = {"xs_write"}
    taking = asyncio.create_task(source.checkpoint(1, lambda: None, 10.0))
    await asyncio.to_thread(xen.held.wait)
    closing = asyncio.create_task(source.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    xen.answers.set()
    await asyncio.gather(taking, return_exceptions=True)
    await asyncio.to_thread(over, source._thread)
    assert xen.shutdown is None
    assert not xen.logdirty
    assert xen.count("xs_close") == 1


def test_a_copy_that_gets_its_name(xen: Hanging) -> None:
    async def story() -> None:
        target = XenTarget(xen.libs, f"{NAME}--incoming-00000000")
        target.built = True
        error = await late(target.rename(NAME), "xs_open")
        assert "it does not run" in (error.left or "")
        await late(target.abort(), "xs_open")

    xen.hangs = {"xs_open"}
    run(story())
