"""Who owns a guest alone opens its output, whatever came in between; also where only an operator looks for a backup."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from remus_agent.errors import OutputBufferError
from tests.model.hosts import Plug
from tests.model.test_authority import answered, ask, play, standing, status, until
from tests.model.world import GUEST, World

CHANNEL = {("channel", "alpha"), ("channel", "beta")}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_an_agent_that_dies_before_it_opens_the_output_has_a_successor_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: World) -> None:
        alpha = world.hosts["alpha"]
        opens = Plug.open

        async def dies(plug: Plug) -> None:
            monkeypatch.setattr(Plug, "open", opens)
            world.kill_agent(alpha)
            await asyncio.sleep(3600)

        monkeypatch.setattr(Plug, "open", dies)
        before = answered(world)
        world.links.cut |= CHANNEL
        await until(world, lambda: standing(world) == ("alpha", 3, "solo", None) and alpha.agent is None, 25)
        assert answered(world) <= before + 1
        world.start_agent(alpha)
        await until(world, lambda: answered(world) > before + 5, 10)
        assert await status(world, "alpha") == "solo"

    play(story, automatic_reprotect=False)


def test_what_could_not_be_opened_is_tried_again_where_an_operator_looks_for_the_backup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: World) -> None:
        opens, failed = Plug.open, 0

        async def fails(plug: Plug) -> None:
            nonlocal failed
            failed += 1
            raise OutputBufferError("the kernel is out of memory", operation="open")

        monkeypatch.setattr(Plug, "open", fails)
        before = answered(world)
        world.links.cut |= CHANNEL
        await until(world, lambda: failed >= 3, 40)
        shown = await ask(world, "alpha", lambda agent: agent.status(GUEST))
        assert (shown.state, "out of memory" in shown.reason) == ("solo", True)
        monkeypatch.setattr(Plug, "open", opens)
        await until(world, lambda: answered(world) > before + 5, 10)
        shown = await ask(world, "alpha", lambda agent: agent.status(GUEST))
        assert (shown.state, shown.reason) == ("solo", None)
        world.links.heal(set(CHANNEL))
        await asyncio.sleep(15)
        assert standing(world) == ("alpha", 3, "solo", None), "nobody has asked for a backup"

    play(story, automatic_reprotect=False)
