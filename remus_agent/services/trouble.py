"""What went wrong last with a guest's protection, and what that is to its machine."""

from __future__ import annotations

import logging

from remus_agent.errors import AnotherOwner, GuestEnded, OwnershipLost, PeerError, PeerRefused, RemusError
from remus_agent.machines.primary import Event

log = logging.getLogger(__name__)


class Trouble:
    """Of one guest. reason: why it is as it is, for people. error: the last one."""

    def __init__(self, domain: str) -> None:
        self.reason: str | None = None
        self.error: RemusError | None = None
        self._domain = domain

    def failed(self, error: RemusError) -> Event:
        """Keep and log it; the machine's event."""
        error.domain = error.domain or self._domain
        self.reason = str(error)
        self.error = error
        level = logging.WARNING if isinstance(error, PeerError) else logging.ERROR
        log.log(level, "%s: %s", self._domain, error)
        if isinstance(error, OwnershipLost) or (isinstance(error, PeerRefused) and AnotherOwner.code in error.reasons):
            return Event.ANOTHER_OWNS
        return Event.GUEST_ENDED if isinstance(error, GuestEnded) else Event.SESSION_LOST
