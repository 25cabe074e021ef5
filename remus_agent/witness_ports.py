"""The witness, as services need it: one record a guest that says who may run it, changed by compare-and-swap only.

`adapters.witness` implements it with etcd, `adapters.sim.witness` fakes it. Normal running never calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from remus_agent.machines.authority import Ownership


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record as it was read or written. revision: the witness's own count of changes of it; only equality means anything."""

    ownership: Ownership
    revision: int


class Witness(Protocol):
    """Where ownership is recorded. guest: the guest's UUID, or the name of a pair of hosts (`services.fencing_turn`).

    Every call ends within a bounded time by itself. Raises only

    * WitnessUnreachable: it could not be asked; nothing was changed, for sure
    * WitnessConflict (change, forget): the record is not `was`, so the request that this answers changed nothing; where something
      on the way has asked twice, the other one may have
    * WitnessUnknown (change, forget): no answer came; it may have been changed, and may still be
    * WitnessError: it answered what makes no sense, a record that breaks its format for one; nothing was changed
    """

    async def read(self, guest: str) -> Recorded | None:
        """The record as of now (linearizable: no change that was confirmed to anybody before the call is missing)."""
        ...

    async def change(self, guest: str, was: Recorded | None, now: Ownership) -> Recorded:
        """Write the record if it still has the revision of `was`; None: if there is none."""
        ...

    async def forget(self, guest: str, was: Recorded) -> None:
        """Delete the record if it still has the revision of `was`."""
        ...

    async def expect(self) -> None:
        """It may be asked soon, by somebody who is in a hurry: do beforehand what can be done, a connection for one. Raises
        nothing: whether it can be asked is known when it is."""
        ...

    async def close(self) -> None:
        """End connections. Safe to call twice."""
        ...
