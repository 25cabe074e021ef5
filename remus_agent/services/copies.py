"""The copies that a host has of each domain: at most the newest committed one, and one that is arriving in a newer session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from remus_agent.errors import RefusedError
from remus_agent.machines.backup import State
from remus_agent.protocol.replication.messages import DiskHello
from remus_agent.services.copy import Copy

LEFT: Final = (State.ORPHANED, State.STALE)
"""A committed copy without a session."""
IN_SESSION: Final = (State.RECEIVING, State.READY)


class Copies:
    """Of one host."""

    def __init__(self) -> None:
        self._of: dict[str, list[Copy]] = {}

    def names(self) -> list[str]:
        """Domains of which this host has a copy, or has had one since the agent started."""
        return sorted(self._of)

    def of(self, domain: str) -> list[Copy]:
        """All copies of a domain, the oldest first."""
        return list(self._of.get(domain, []))

    def all(self) -> Iterator[Copy]:
        """Of all domains."""
        for domain in list(self._of):
            yield from self._of[domain]

    def that_counts(self, domain: str) -> Copy | None:
        """A committed one before one that is only arriving."""
        copies = self._of.get(domain, [])
        live = [copy for copy in copies if copy.state is not State.DISCARDED]
        active = [copy for copy in live if copy.state is State.ACTIVE]
        committed = [copy for copy in reversed(live) if copy.committed_epoch and copy.state is not State.STALE]
        stale = [copy for copy in reversed(live) if copy.state is State.STALE]
        return next(iter(active or committed or stale or live or copies), None)

    def with_disk(self, hello: DiskHello) -> Copy:
        """The copy whose session this disk belongs to. Raises RefusedError when there is none."""
        for copy in self._of.get(hello.domain, []):
            if copy.hello.session == hello.session and copy.state in IN_SESSION:
                return copy
        raise RefusedError(f"there is no session {hello.session} here", operation="open disk", domain=hello.domain)

    def add(self, newest: Copy) -> None:
        """A session has begun; what was discarded is forgotten."""
        kept = [old for old in self._of.get(newest.hello.domain, []) if old.state is not State.DISCARDED]
        self._of[newest.hello.domain] = [*kept, newest]

    def forget_active(self, domain: str) -> None:
        """The guest does not run here any more: the copy that it came from is of the past."""
        self._of[domain] = [copy for copy in self._of.get(domain, []) if copy.state is not State.ACTIVE]

    def remove(self, copy: Copy) -> None:
        """Somebody else looks after its guest from now on."""
        self._of[copy.hello.domain] = [other for other in self._of[copy.hello.domain] if other is not copy]
