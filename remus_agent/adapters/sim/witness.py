"""A witness in memory, with the faults that a real one has: it can't be reached, its answers get lost, it is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from remus_agent.errors import WitnessConflict, WitnessUnknown, WitnessUnreachable
from remus_agent.machines.authority import Ownership
from remus_agent.witness_ports import Recorded


def _no_delay(_: str) -> float:
    return 0.0


@dataclass
class SimWitness:
    """The witness itself. down: nobody reaches it. cut: hosts that do not. lose_answer: whether the answer to this host's next
    change is lost, after the change was made. delay: seconds that a request of this host takes, each way. history: every
    record that ever stood, oldest first."""

    records: dict[str, Recorded] = field(default_factory=dict)
    history: list[tuple[str, Ownership | None]] = field(default_factory=list)
    down: bool = False
    cut: set[str] = field(default_factory=set)
    lose_answer: Callable[[str], bool] = lambda _: False
    delay: Callable[[str], float] = _no_delay
    timeout: float = 2.0
    revision: int = 0

    def of(self, host: str) -> SimWitnessClient:
        """How this host sees it."""
        return SimWitnessClient(self, host)

    def reached_by(self, host: str) -> bool:
        """Whether a request of this host gets through now."""
        return not self.down and host not in self.cut


class SimWitnessClient:
    """witness_ports.Witness of one host."""

    def __init__(self, witness: SimWitness, host: str) -> None:
        self._witness = witness
        self._host = host

    async def read(self, guest: str) -> Recorded | None:
        await self._ask("read the record of ownership")
        found = self._witness.records.get(guest)
        await self._travel()
        if not self._witness.reached_by(self._host):
            raise self._unreachable("read the record of ownership")
        return found

    async def change(self, guest: str, was: Recorded | None, now: Ownership) -> Recorded:
        operation = "change the record of ownership"
        await self._ask(operation)
        self._compare(guest, was, operation)
        self._witness.revision += 1
        made = Recorded(now, self._witness.revision)
        self._witness.records[guest] = made
        self._witness.history.append((guest, now))
        await self._answer(operation)
        return made

    async def forget(self, guest: str, was: Recorded) -> None:
        operation = "forget the record of ownership"
        await self._ask(operation)
        self._compare(guest, was, operation)
        self._witness.revision += 1
        self._witness.records.pop(guest, None)
        self._witness.history.append((guest, None))
        await self._answer(operation)

    async def close(self) -> None:
        """Nothing to end."""

    def _compare(self, guest: str, was: Recorded | None, operation: str) -> None:
        there = self._witness.records.get(guest)
        if (there.revision if there else None) != (was.revision if was else None):
            raise WitnessConflict(
                "the record was changed meanwhile",
                operation=operation,
                left="nothing was changed",
                hint="read it again",
            )

    async def _ask(self, operation: str) -> None:
        if self._witness.reached_by(self._host):
            await self._travel()
        if not self._witness.reached_by(self._host):
            await asyncio.sleep(self._witness.timeout)
            raise self._unreachable(operation)

    async def _answer(self, operation: str) -> None:
        lost = self._witness.lose_answer(self._host)
        await self._travel()
        if lost or not self._witness.reached_by(self._host):
            await asyncio.sleep(self._witness.timeout)
            raise WitnessUnknown(
                "no answer came, so the change may have been made", operation=operation, hint="read the record"
            )

    async def _travel(self) -> None:
        await asyncio.sleep(self._witness.delay(self._host))

    def _unreachable(self, operation: str) -> WitnessUnreachable:
        return WitnessUnreachable(
            f"the witness does not answer {self._host}",
            operation=operation,
            left="nothing was changed",
            hint="check the witness and the network to it",
        )
