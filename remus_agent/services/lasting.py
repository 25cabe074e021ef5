"""Work that goes on as long as its agent, or a guest's protection, does: a defect must neither end it nor go unseen."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from remus_agent.ports import Clock, EventSink

log = logging.getLogger(__name__)


async def lasting(
    work: Callable[[], Awaitable[None]], what: str, clock: Clock, events: EventSink, pause: float, *, guest: str = "?"
) -> None:
    """Do it; where an error that nobody has foreseen ends it, say so and begin it anew after so many seconds. Returns when it
    returns. what: for the log. guest: whose it is; `?`: of all of them."""
    while True:
        try:
            await work()
        except Exception as defect:
            log.critical("%s: %s ended by a defect, and begins anew in %g s", guest, what, pause, exc_info=True)
            events.note(guest, "defect", reason=f"{what}: {defect!r}")
        else:
            return
        await clock.sleep(pause)
