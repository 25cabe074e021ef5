"""What an operator asks of a service while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from remus_agent.machines.primary import Event

Work = Callable[[], Awaitable[object]]
"""Begun by who waits for it: a coroutine that is handed over stays unawaited where a task never takes its first step."""


async def first_of(*works: Work) -> None:
    """Wait until the first of them is done, whatever came of it; the others are cancelled."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Lull:
    """The time between two attempts, which an operator may end early. ended: whether one has ended the last one."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self.ended = False

    def end(self) -> None:
        """End the one that is going on, or the next one."""
        self._over.set()

    async def wait(self, due: Work | None) -> None:
        """Until `due` is done or somebody ends it. None: only the latter."""
        try:
            await first_of(self._over.wait, *(() if due is None else (due,)))
        finally:
            self.ended = self._over.is_set()
            self._over.clear()


class Asked:
    """Requests in order. One task takes them out."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        """Ask."""
        self._queue.put_nowait(event)

    def next(self) -> Event | None:
        """What was asked, if anything."""
        return None if self._queue.empty() else self._queue.get_nowait()

    async def get(self) -> Event:
        """Wait for what is asked next."""
        return await self._queue.get()

    async def interrupts(self, work: Awaitable[None]) -> Event | None:
        """Wait for the work, or for what an operator asks: then the work is cancelled and the event returned. What is asked while
        the work ends, fails or is cancelled is asked still."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._queue.get())
        taken = False
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            taken = asked.done() and not task.done()
            if taken:
                return asked.result()
            task.result()
            return None
        finally:
            for future in (task, asked):
                if not future.done():
                    future.cancel()
            await asyncio.gather(task, asked, return_exceptions=True)
            if not taken and not asked.cancelled():
                self._queue.put_nowait(asked.result())
