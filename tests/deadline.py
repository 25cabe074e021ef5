"""Tests on a real event loop that end in time, whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

SECONDS = 60.0
"""For a test, and for a condition to come true, where a test does not ask for more."""


def run(test: Coroutine[Any, Any, None], seconds: float = SECONDS) -> None:
    """asyncio.run with a deadline."""

    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await test

    asyncio.run(limited())


async def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Poll with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a poll with a deadline
            await asyncio.sleep(0.005)
