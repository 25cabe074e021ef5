"""What an operator asks of a service while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from remus_agent.machines.primary import Event


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
        """Wait for the work, or for what an operator asks: then the work is cancelled and the event returned."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._queue.get())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and not task.done():
                return asked.result()
            task.result()
            if asked.done():
                self._queue.put_nowait(asked.result())
            return None
        finally:
            for future in (task, asked):
                if not future.done():
                    future.cancel()
            await asyncio.gather(task, asked, return_exceptions=True)
