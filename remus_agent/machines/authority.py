"""Who may run a guest: the record in the witness, and what each role decides on what it reads there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ownership:
    """The record of one guest. owner: host that may run it. generation: rises by one with every change, from 1 on, and never
    falls. state: `solo`: only the owner may run it; `protected`: `backup` may take over. backup: that host, None when solo.
    name: the guest's name; reason: why it was changed last; changed_by: the host that did it; these three are for people."""

    owner: str
    generation: int
    state: Literal["solo", "protected"]
    backup: str | None
    name: str
    reason: str
    changed_by: str
