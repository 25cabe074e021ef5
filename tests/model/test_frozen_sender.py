"""A host that is frozen right after the end of an epoch was handed to its kernel: the epoch is as old as that, not as the host's
next look at its clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remus_agent.services.session import PrimarySession
from tests.model.scheduler import OUTSIDE
from tests.model.test_authority import play, standing, until
from tests.model.world import World

FROZEN = 20.0
"""Seconds, in which the backup takes over and answers clients."""


def test_it_asks_the_witness_before_it_releases_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    sends = PrimarySession.end_epoch
    frozen = asyncio.Event()

    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]

        async def and_is_frozen(session: PrimarySession, *args: Any, **options: Any) -> None:
            await sends(session, *args, **options)
            if frozen.is_set():
                return
            frozen.set()
            alpha.node.stopped = True
            world.loop.call_later(FROZEN, setattr, alpha.node, "stopped", False, context=OUTSIDE)
            await asyncio.sleep(0)

        monkeypatch.setattr(PrimarySession, "end_epoch", and_is_frozen)
        await frozen.wait()
        at = world.loop.time()
        await until(world, lambda: standing(world)[0] == "beta", 10)
        taken = world.incarnations[0].seen
        await asyncio.sleep(at + FROZEN + 5 - world.loop.time())
        assert world.incarnations[0].seen == taken, "it was let out although another host owned the guest by then"

    play(story)
