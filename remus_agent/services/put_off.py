"""Protections on record with which an agent that starts cannot go on yet: what it has to ask about the guest fails.

Output stays held and taps stay, other guests go on, and each of these is looked at again by itself. Until then nobody else takes
the guest's checkpoints, nor ends what the record says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from remus_agent.errors import RefusedError
from remus_agent.machines.primary import NOT_OURS, State
from remus_agent.machines.watchdog import AUTHORITY
from remus_agent.ports import Clock
from remus_agent.services.primary import beginning
from remus_agent.store_ports import GuestRecord


@dataclass(frozen=True, slots=True)
class Waiting:
    """One of them. since: clock when the agent has found it."""

    record: GuestRecord
    why: str
    since: float

    @property
    def state(self) -> State:
        """In which it would begin, on a host with a witness."""
        return beginning(self.record, solo=True)[0]

    @property
    def reason(self) -> str:
        """For people."""
        return f"its protection is on record and cannot go on yet; it is tried again by itself: {self.why}"


class PutOff:
    """Of one host."""

    def __init__(self, clock: Clock) -> None:
        self.look_again: Callable[[str], None] = lambda _: None
        """Called with the name of a guest that begins to wait."""
        self._clock = clock
        self._waiting: dict[str, Waiting] = {}

    def keep(self, record: GuestRecord, why: str) -> Waiting:
        """It begins to wait."""
        waiting = self._waiting[record.name] = Waiting(record, why, self._clock.now())
        self.look_again(record.name)
        return waiting

    def still(self, name: str, why: str) -> None:
        """It was looked at again, if it waits, for nothing."""
        if name in self._waiting:
            self._waiting[name] = replace(self._waiting[name], why=why)

    def forget(self, name: str) -> None:
        """It waits no more."""
        self._waiting.pop(name, None)

    def names(self) -> list[str]:
        """Of those that wait."""
        return sorted(self._waiting)

    def get(self, name: str) -> Waiting | None:
        """None where it does not wait."""
        return self._waiting.get(name)

    def under_authority(self) -> list[str]:
        """Names of those over which this host holds authority, by the witness's record as far as it is known here."""
        return [name for name, waiting in self._waiting.items() if AUTHORITY[waiting.state]]

    def guests(self) -> list[str]:
        """UUIDs of those that are this host's own: it lives, so nobody shall take it for dead and switch it off."""
        return [waiting.record.uuid for waiting in self._waiting.values() if waiting.state not in NOT_OURS]

    def refuse(self, name: str, operation: str) -> None:
        """Raises RefusedError for one that waits."""
        waiting = self._waiting.get(name)
        if waiting is not None:
            raise RefusedError(
                waiting.reason,
                operation=operation,
                domain=name,
                left="nothing was changed; what output is held stays held",
                hint=f"mend what it says, and wait until `remusctl status {name}` says that it goes on",
            )
