from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_agent import FakeAgent
from stream_runs import CHECKPOINTED


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgent]:
    agent = FakeAgent(tmp_path / "agent.sock")
    monkeypatch.setenv("REMUS_SOCKET", str(agent.path))
    yield agent
    agent.close()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file with the stream of a guest that was checkpointed."""
    path = tmp_path / "redis1.saved"
    path.write_bytes(CHECKPOINTED)
    return path
