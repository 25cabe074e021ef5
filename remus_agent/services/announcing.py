"""Tells the network where a guest is that runs here from now on."""

from __future__ import annotations

import logging

from remus_agent.errors import RemusError
from remus_agent.ports import Announcer, Domain, EventSink

log = logging.getLogger(__name__)


async def announce(announcer: Announcer, domain: Domain, events: EventSink) -> None:
    """Beside what made it run, which this must neither delay nor undo: the guest announces itself as well. Never raises, because
    nobody waits for it."""
    try:
        await announcer.announce(domain, lambda: events.note(domain.name, "announced"))
    except RemusError as error:
        log.warning("%s: %s", domain.name, error)
    except Exception as defect:
        log.critical("%s: it is not announced, by a defect", domain.name, exc_info=True)
        events.note(domain.name, "defect", reason=f"announce: {defect!r}")
