"""A backup's journal that does not answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from remus_agent.adapters.sim.local import SimJournal
from remus_agent.store_ports import CommitRecord


@dataclass
class Hanging:
    """begun: a commit hangs. answers: set it, and all go on."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)


def hang_commits(monkeypatch: pytest.MonkeyPatch) -> Hanging:
    """Commits hang from now on."""
    hanging, commit = Hanging(), SimJournal.commit

    async def hangs(self: SimJournal, record: CommitRecord) -> None:
        hanging.begun.set()
        await hanging.answers.wait()
        await commit(self, record)

    monkeypatch.setattr(SimJournal, "commit", hangs)
    return hanging
