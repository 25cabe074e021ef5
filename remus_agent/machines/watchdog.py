"""When a host's watchdog is armed: as long as this host owns a guest that another one may take over, by the witness's record.

What the record says is known from where the protection of each guest stands, because every change of its owner moves that: normal
running never reads the record. Without a witness nobody holds authority, and nothing is armed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from remus_agent.machines.primary import State

_S = State

AUTHORITY: Final[Mapping[State, bool]] = MappingProxyType(
    {
        # Not protected yet, and no copy was committed: nothing is at stake but the guest.
        _S.CONNECTING: False,
        _S.SEEDING: False,
        # The record names this host, as far as anybody has told it. Silence takes nothing away: only the record does.
        _S.PROTECTED: True,
        _S.SILENT: True,
        _S.RECONNECTING: True,
        _S.RESEEDING: True,
        _S.SWITCHING: True,
        _S.GOING_SOLO: True,
        # It is the only one that may run the guest: a reset would help nobody, and lose it.
        _S.SOLO: False,
        _S.SEEKING: False,
        _S.STARTING: False,
        _S.REPROTECTING: False,
        # It ends, but a copy may still be activated.
        _S.STOPPING: True,
        _S.RETIRING: True,
        # It has ended; there is only the plumbing to take away.
        _S.FREEING: False,
        _S.FAILING: False,
        _S.STOPPED: False,
        _S.FAILED: False,
        # It is down here, and the other host may run it.
        _S.HANDED: False,
        _S.IN_DOUBT: False,
        _S.DEPARTING: False,
        _S.DEPARTED: False,
        # Another host owns it, or has owned it and the guest does not run here yet.
        _S.STANDING_DOWN: False,
        _S.STOOD_DOWN: False,
        _S.RETURNING: False,
        _S.GIVING_UP: False,
        _S.GIVEN_UP: False,
    }
)
"""Whether this host holds authority that another one may be given, over a guest whose protection stands there."""


class Act(Enum):
    """What is to be done."""

    REST = "nothing"
    ARM = "arm it"
    PET = "pet it"
    DISARM = "disarm it"


def decide(*, authority: bool, armed: bool, age: float, seconds: float) -> Act:
    """authority: whether this host has it over any guest. armed: whether the watchdog is. age: seconds since it was armed or
    petted last; it is petted after a third of its time, seconds, so that a hang of two thirds of it is borne at any moment."""
    if not authority:
        return Act.DISARM if armed else Act.REST
    if not armed:
        return Act.ARM
    return Act.PET if age >= seconds / 3 else Act.REST
