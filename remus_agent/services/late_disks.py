"""Disks of a copy that do not come to be handed over. To give that up half-way could leave one that no later attempt gets at, and
it goes on by itself as soon as the device answers. So it is waited for, and said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from remus_agent.ports import Clock, EventSink
from remus_agent.protocol.replication.messages import Hello

log = logging.getLogger(__name__)


class Waits(Protocol):
    """What is asked of a copy. reason: why it is as it is, for people."""

    hello: Hello
    reason: str | None

    @property
    def committed_epoch(self) -> int: ...


@contextlib.asynccontextmanager
async def said_when_late(copy: Waits, events: EventSink, clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Around handing them over. seconds: after which it is said, until it has ended."""
    before, late = copy.reason, False

    async def say() -> None:
        nonlocal late
        await clock.sleep(seconds)
        late = True
        copy.reason = (
            f"its disks have not been handed over within {seconds:g} s: a device or a journal does not answer, see dmesg; it goes"
            " on by itself when that does"
        )
        log.error("%s: %s", copy.hello.domain, copy.reason)
        events.note(copy.hello.domain, "copy-hangs", epoch=copy.committed_epoch or None, reason=copy.reason)

    saying = asyncio.create_task(say(), name=f"wait for disks of {copy.hello.domain}")
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        if late:
            copy.reason = before
