"""Checkpoints of a faked HVM guest, whose device model is halted with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_qemu import FakeQemu
from fake_xen import DOMID, NAME, SPECIAL, UUID, FakeXen
from source_runs import take
from watcher import Watcher

from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.device_model import DeviceModel, socket_of
from remus_agent.adapters.xen.source import XenSource
from remus_agent.errors import HypervisorError
from remus_agent.ports import Domain, GuestType
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.bodies import parse_emulator_context
from remus_agent.protocol.stream.epoch import parse_epoch
from remus_agent.protocol.stream.reader import iter_records


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[FakeQemu]:
    with FakeQemu(socket_of(DOMID, tmp_path)) as running:
        yield running


@asynccontextmanager
async def begun_hvm(xen: FakeXen, watcher: Watcher, run: Path) -> AsyncIterator[XenSource]:
    domain = Domain(NAME, DOMID, UUID, GuestType.HVM, 4 * len(xen.gfns), ())
    source = XenSource(xen.libs, domain, b"preamble", watcher.path, lambda *which: DeviceModel(*which, run))
    await source.begin()
    try:
        async for _ in source.seed():
            pass
        yield source
    finally:
        await source.close()


async def test_the_device_model_is_halted_with_the_guest_and_its_state_is_in_the_epoch(
    xen: FakeXen, watcher: Watcher, qemu: FakeQemu, tmp_path: Path
) -> None:
    seen: list[tuple[bool, int | None]] = []
    async with begun_hvm(xen, watcher, tmp_path) as source:
        assert qemu.commands == [("xen-set-global-dirty-log", {"enable": True})]
        xen.touch(5)
        checkpoint = await take(source, lambda: seen.append((qemu.running, xen.shutdown)))
    assert seen == [(False, s.Shutdown.SUSPEND)]
    assert qemu.running
    assert xen.shutdown is None
    assert qemu.names[1:5] == ["add-fd", "stop", "xen-save-devices-state", "cont"]
    assert qemu.commands[-1] == ("xen-set-global-dirty-log", {"enable": False})
    views = [b"".join(group) for group in checkpoint.records]
    staged = parse_epoch(views, 1 << 36, GuestType.HVM)
    (record,) = iter_records(b"".join(staged.emulator), layer=c.Layer.LIBXL)
    assert bytes(parse_emulator_context(record.body, 0).context) == qemu.state


@pytest.mark.parametrize("command", ["stop", "xen-save-devices-state", "cont"])
async def test_the_guest_runs_again_whatever_the_device_model_refuses(
    xen: FakeXen, watcher: Watcher, qemu: FakeQemu, tmp_path: Path, command: str
) -> None:
    qemu.refuses.add(command)
    async with begun_hvm(xen, watcher, tmp_path) as source:
        xen.touch(5)
        with pytest.raises(HypervisorError, match=f"{command}: ") as caught:
            await take(source)
    assert caught.value.epoch == 1
    assert xen.shutdown is None
    assert qemu.names.count("cont") == 1


async def test_a_guest_whose_device_model_does_not_answer_is_not_suspended(
    xen: FakeXen, watcher: Watcher, qemu: FakeQemu, tmp_path: Path
) -> None:
    async with begun_hvm(xen, watcher, tmp_path) as source:
        qemu.refuses.add("add-fd")
        with pytest.raises(HypervisorError, match="add-fd"):
            await take(source)
    assert not xen.asked.is_set()
    assert "stop" not in qemu.names


async def test_video_memory_that_moves_ends_the_source(
    xen: FakeXen, watcher: Watcher, qemu: FakeQemu, tmp_path: Path
) -> None:
    async with begun_hvm(xen, watcher, tmp_path) as source:
        xen.touch(5)
        xen.gfns.remove(SPECIAL[-1])
        with pytest.raises(HypervisorError, match="moved"):
            await take(source)
    assert xen.shutdown is None
    assert qemu.running


async def test_a_last_checkpoint_leaves_the_guest_down_until_the_source_is_closed(
    xen: FakeXen, watcher: Watcher, qemu: FakeQemu, tmp_path: Path
) -> None:
    async with begun_hvm(xen, watcher, tmp_path) as source:
        xen.touch(5)
        await source.checkpoint(1, lambda: None, 0.2, stay_down=True)
        assert xen.shutdown == s.Shutdown.SUSPEND
        assert not qemu.running
        assert xen.count("xc_domain_resume") == 0
    assert xen.shutdown is None
    assert qemu.running
