"""Which steps of a guest that looks for its backup again and again are worth an event.

An attempt every few seconds, for days, would push everything else out of the ring of events. So an attempt is noted once, and
that it has failed when the reason is another one; the next event says how many attempts there were of which none was noted.
"""

from __future__ import annotations

from typing import Any, Final

from remus_agent.machines.primary import State

_ATTEMPTS: Final = {
    State.RECONNECTING: State.SILENT,
    State.GOING_SOLO: State.SILENT,
    State.SEEKING: State.SOLO,
}
"""States that are left again within a moment, and the one from which they come and to which they lead back."""
_LOOKS: Final = frozenset({State.RECONNECTING, State.SEEKING})
"""Attempts to reach the backup."""


class RetryEvents:
    """Of one guest."""

    def __init__(self) -> None:
        self._waits: State | None = None
        """From which state it looks for its backup just now."""
        self._noted: set[State] = set()
        self._last: State | None = None
        self._reason: str | None = None
        self._attempts = 0

    def detail(self, then: State, reason: str | None) -> dict[str, Any] | None:
        """The guest's protection has come to another state: the facts of the event, or None where none is to be noted."""
        waits = _ATTEMPTS.get(then, then if then in _ATTEMPTS.values() else None)
        if waits is not self._waits:
            self._noted.clear()
            self._waits, self._reason = waits, None
        if self._known(then, reason):
            self._attempts += then in _LOOKS
            return None
        self._noted.add(then)
        self._last = then
        if then is waits:
            self._reason = reason
        detail: dict[str, Any] = {"reason": reason} if reason else {}
        if self._attempts:
            detail["attempts"] = self._attempts
        self._attempts = 0
        return detail

    def _known(self, then: State, reason: str | None) -> bool:
        """Whether the events say so already. After an attempt that is noted it is noted where that has led."""
        if then in _ATTEMPTS:
            return then in self._noted
        return then is self._waits and then is self._last and reason == self._reason
