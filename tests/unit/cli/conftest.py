from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_agent import FakeAgent


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgent]:
    agent = FakeAgent(tmp_path / "agent.sock")
    monkeypatch.setenv("REMUS_SOCKET", str(agent.path))
    yield agent
    agent.close()
