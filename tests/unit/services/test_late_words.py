"""Whoever waits for another host in vain says what it was about, what is left and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from remus_agent.adapters.sim.local import LoopClock
from remus_agent.errors import PeerTimeout
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.services.deadlines import receive_within, send_within
from remus_agent.services.hearing import Hearing
from tests.model.loop import run


class Mute:
    """A connection on which nothing ever happens."""

    peer = "beta:1"
    identity = None

    async def send(self, _: Frame) -> None:
        await asyncio.get_running_loop().create_future()

    async def receive(self) -> Frame:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def close(self) -> None: ...

    def abort(self) -> None: ...


async def sends() -> None:
    await send_within(5, Mute(), Frame(FrameType.STREAM, 7, 0, (b"x",)), domain="web1")


async def hears() -> None:
    await receive_within(5, Mute(), "backup", domain="web1", epoch=7)


async def listens() -> None:
    await Hearing("web1", LoopClock(), 5, 1).receive(Mute(), 7)


@pytest.mark.parametrize(
    ("work", "left"),
    [(sends, "its output is held"), (hears, "its output is held"), (listens, "the copy stands at epoch 7")],
)
def test_it_says(work: Callable[[], Awaitable[None]], left: str) -> None:
    async def story() -> None:
        with pytest.raises(PeerTimeout, match="for 5 s") as late:
            await work()
        assert (late.value.domain, late.value.epoch) == ("web1", 7)
        assert late.value.operation
        assert left in (late.value.left or "")
        assert "check the replication link" in (late.value.hint or "")

    run(story())
