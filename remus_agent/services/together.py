"""Things that are done at the same time, and all of them whatever happens to one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from remus_agent.errors import RemusError


async def all_done(works: Iterable[Awaitable[None]]) -> None:
    """Return when all of it has ended. Raises the error that came first, after that; later ones are its notes. Cancelled, it
    cancels all of it and waits for its end."""
    errors: list[RemusError] = []

    async def one(work: Awaitable[None]) -> None:
        try:
            await work
        except RemusError as error:
            errors.append(error)

    ends = await asyncio.gather(*(one(work) for work in works), return_exceptions=True)
    for end in ends:
        if end is not None:
            raise end  # a defect
    if errors:
        for later in errors[1:]:
            errors[0].add_note(str(later))
        raise errors[0]
