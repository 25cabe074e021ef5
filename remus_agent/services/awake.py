"""Since when a host has been awake: one that was frozen has heard nothing because *it* was away, so that what it did not hear
then says nothing about who should have spoken."""

from __future__ import annotations

from typing import Final

from remus_agent.errors import AuthorityError
from remus_agent.ports import Clock

LATE: Final = 1.5
"""Heartbeats between two looks after which this host was away. Silence of three counts as silence, so what is shorter than this
and not noticed cannot be mistaken for it."""
PATIENCE: Final = 10
"""Times as long as silence has to last, until who never gets to listen for so long in one piece gives up."""


class Waiting:
    """For silence of a host, which somebody says is off, for `quiet` seconds. domain: for which it is asked."""

    def __init__(self, clock: Clock, host: str, domain: str, quiet: float) -> None:
        self._clock = clock
        self._host = host
        self._domain = domain
        self._quiet = quiet
        self._asked_at = clock.now()

    def is_heard(self, last_heard: float) -> bool:
        """Whether it has spoken since, and had twice as long as silence takes to fall silent: it is on. False: wait on.
        last_heard: when, by the clock. Raises AuthorityError where nothing was heard, but this host never got to listen for
        long enough."""
        waited, heard = self._clock.now() - self._asked_at, last_heard >= self._asked_at
        if waited > PATIENCE * self._quiet and not heard:
            raise AuthorityError(
                f"whether {self._host} is silent is not known: this host was frozen, or too busy to listen",
                operation="failover",
                domain=self._domain,
                left="nothing was changed",
                hint="see what loads this host (top, xl top), then repeat it",
            )
        return heard and waited > 2 * self._quiet


class Awake:
    """Whoever listens looks here again and again. late: seconds between two looks that mean that the host was away in between."""

    def __init__(self, clock: Clock, late: float) -> None:
        self._clock = clock
        self._late = late
        self._looked = self._since = clock.now()
        self.away = 0.0
        """The longest time between two looks, of those that were too long, in seconds."""

    def since(self) -> float:
        """Since when it is awake for sure, as far as looks tell; by the clock."""
        now = self._clock.now()
        if now - self._looked > self._late:
            self._since, self.away = now, max(self.away, now - self._looked)
        self._looked = now
        return self._since
