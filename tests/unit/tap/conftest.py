"""A kernel that is only a client, and taps in front of it, whose processes are threads (`test_tap_process.py` has real ones).
Coroutine tests run in an event loop of their own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_kernel import FakeKernel
from tap_steps import SIZE, Make

from remus_agent.adapters.disk import mapper, nbd_device, tap_worker
from remus_agent.adapters.disk import tap as tap_module
from remus_agent.adapters.disk.tap import NbdTap, TapLimits
from remus_agent.disk_config import Disk
from remus_agent.disk_ports import DiskFacts
from tests import deadline


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    deadline.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel(content=bytearray(SIZE))
    monkeypatch.setattr(tap_module, "Layers", lambda disk, size: fake)
    monkeypatch.setattr(tap_worker, "DirectReader", lambda device, domain: fake)
    monkeypatch.setattr(mapper, "cycle", fake.cycle)
    for name in ("connect", "disconnect", "owner"):
        monkeypatch.setattr(nbd_device, name, getattr(fake, name))
    return fake


@pytest.fixture
def make(kernel: FakeKernel, tmp_path: Path) -> Iterator[Make]:
    """make(**limits): a tap, as an agent that has just started makes it."""
    made: list[NbdTap] = []

    def tap(**limits: Any) -> NbdTap:
        disk = Disk("db1", "xvda", Path("/dev/vg0/db1"), tmp_path / "x.md", tmp_path / "x.journal")
        facts = DiskFacts("xvda", SIZE, 512)
        made.append(NbdTap(disk, facts, tmp_path / "run", TapLimits(**limits), spawn=kernel.spawn))
        return made[-1]

    yield tap
    for process in kernel.processes:
        process.kill()
