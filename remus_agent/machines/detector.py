"""Whether the primary of one guest seems to be gone. A pure function of what was heard, and of one host's monotonic clock.

Detection is not permission: who suspects may ask the witness, and nothing else. So a detector that is wrong costs a needless
failover, never two owners; it is built not to be wrong often:

* two signals that fail independently: the replication channel, and heartbeats over a second path
* hearing the primary on either ends the suspicion
* a host that was itself frozen has heard nothing because *it* was away: a tick that comes late begins everything anew
* after an attempt that led to nothing it waits, each time twice as long, so that a link that flaps costs no more than that; one
  that the witness did not answer is none: it says nothing of the link
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

LATE_SHARE: Final = 0.25
"""A tick that is late by more than this share of `detect` means that this host was frozen."""
MOST_DOUBLINGS: Final = 5


@dataclass(frozen=True, slots=True)
class Detector:
    """All times in seconds of one clock that is never set. detect: silence on both signals that makes a suspicion.

    tick: seconds between two calls of `ticked`. channel, path: when the primary was last heard there. at: the last tick.
    failures: attempts in a row that led to nothing. not_before: when the next attempt may be made.
    """

    detect: float
    tick: float
    channel: float
    path: float
    at: float
    failures: int = 0
    not_before: float = 0.0

    @classmethod
    def started(cls, detect: float, tick: float, now: float) -> Detector:
        """One that has just begun to listen: nobody is suspected for what happened before."""
        return cls(detect=detect, tick=tick, channel=now, path=now, at=now)

    def heard(self, *, channel: float | None = None, path: float | None = None) -> Detector:
        """When the primary was last heard on each signal, as far as known; older news than what is known changes nothing."""
        newest_channel = self.channel if channel is None else max(self.channel, channel)
        newest_path = self.path if path is None else max(self.path, path)
        again = max(newest_channel, newest_path) > self.not_before
        return replace(self, channel=newest_channel, path=newest_path, failures=0 if again else self.failures)

    def ticked(self, now: float) -> Detector:
        """Time has passed. Begins anew when so much of it passed at once that this host must have been frozen, or when the
        clock went back, which a monotonic one never does."""
        late = now - self.at - self.tick
        if late > LATE_SHARE * self.detect or now < self.at:
            return replace(
                self.started(self.detect, self.tick, now), failures=self.failures, not_before=self.not_before
            )
        return replace(self, at=now)

    @property
    def silent_for(self) -> float:
        """Seconds for which neither signal was heard, as of the last tick."""
        return self.at - max(self.channel, self.path)

    @property
    def silent(self) -> bool:
        """Whether neither signal was heard for so long that the primary seems to be gone."""
        return self.silent_for >= self.detect

    @property
    def due(self) -> float:
        """When the witness may be asked, if nothing is heard until then."""
        return max(self.channel + self.detect, self.path + self.detect, self.not_before)

    @property
    def suspects(self) -> bool:
        """Whether the witness may be asked now."""
        return self.silent and self.at >= self.not_before

    def failed(self, now: float) -> Detector:
        """An attempt led to nothing: the next one comes later than the one before did."""
        wait = self.detect * 2 ** min(self.failures, MOST_DOUBLINGS)
        return replace(self, failures=self.failures + 1, not_before=now + wait)

    def unanswered(self) -> Detector:
        """The attempt that was begun last could not be made: the witness is away."""
        return replace(self, failures=max(0, self.failures - 1), not_before=self.at)
