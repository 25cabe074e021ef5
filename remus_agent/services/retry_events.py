"""Which steps of a guest that looks for its backup again and again are worth an event.

An attempt every few seconds, for days, would push everything else out of the ring of events. So an attempt is noted once,
however far it gets before the guest is protected, and that it has failed when the reason is another one; the next event says how
many attempts there were of which none was noted. The same holds for what cannot be done to a guest and is tried again
(`Complaints`), and on the backup for sessions that end before anything was committed (`VainSessions`).
"""

from __future__ import annotations

from typing import Any, Final

from remus_agent.machines.primary import State
from remus_agent.ports import EventSink

_ATTEMPTS: Final = {
    State.RECONNECTING: State.SILENT,
    State.GOING_SOLO: State.SILENT,
    State.SEEKING: State.SOLO,
    State.RESEEDING: State.SILENT,
    State.REPROTECTING: State.SOLO,
}
"""Steps of an attempt, and the state from which they come and to which they lead back when it fails."""
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


class Complaints:
    """Of one guest: errors of what is tried again until it succeeds."""

    def __init__(self, events: EventSink) -> None:
        self._events = events
        self._noted: dict[str, str] = {}

    def note(self, domain: str, event: str, *, reason: str) -> None:
        """It has failed."""
        if self._noted.get(event) != reason:
            self._noted[event] = reason
            self._events.note(domain, event=event, reason=reason)

    def over(self, event: str) -> None:
        """It has succeeded."""
        self._noted.pop(event, None)


class VainSessions:
    """`ports.EventSink` for a backup: notes of each domain once that its primary opens sessions, and when one ends without a
    commit only a reason that is another one than the last time."""

    def __init__(self, inner: EventSink) -> None:
        self._inner = inner
        self._primaries: dict[str, object] = {}
        """Of the newest session that was noted."""
        self._reasons: dict[str, object] = {}
        """Why the last session ended that has committed nothing, while there was no other one since."""
        self._unnoted: dict[str, int] = {}

    def note(self, domain: str, event: str, *, epoch: int | None = None, **detail: object) -> None:
        if event == "receiving":
            if domain in self._reasons and self._primaries.get(domain) == detail.get("primary"):
                self._unnoted[domain] = self._unnoted.get(domain, 0) + 1
                return
            self._primaries[domain] = detail.get("primary")
        elif event == "discarded" and epoch is None:
            reason = detail.get("reason", detail.get("because"))
            if domain in self._reasons and self._reasons[domain] == reason:
                return
            self._reasons[domain] = reason
        elif event == "ready":
            self._reasons.pop(domain, None)
        if event in ("discarded", "ready") and (attempts := self._unnoted.pop(domain, 0)):
            detail["attempts"] = attempts
        self._inner.note(domain, event=event, epoch=epoch, **detail)
