"""A faked Xen, and what stands in for its supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_xen import FakeXen
from watcher import Watcher


@pytest.fixture
def xen() -> FakeXen:
    return FakeXen()


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    with Watcher(tmp_path / "supervisor.sock") as running:
        yield running
