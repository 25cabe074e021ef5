"""A witness in memory, with the faults that a real one has: it can't be reached, its answers get lost, it is slow."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field

from remus_agent.errors import WitnessConflict, WitnessError, WitnessUnknown, WitnessUnreachable
from remus_agent.machines.authority import Ownership
from remus_agent.witness_ports import Recorded


def _no_delay(_: str) -> float:
    return 0.0


@dataclass
class SimWitness:
    """The witness itself. down: nobody reaches it. full: it takes in no change. cut: hosts that do not reach it. lose_answer:
    whether the answer to this host's next change is lost, after the change was made. late: seconds after which this host's next
    change is made although nobody waits for it any more; None: it is not late. twice: seconds after which something on the way
    asks for this host's next change once more; 0: at once, and the host hears the answer to that; None: nothing does. delay:
    seconds that a request of this host takes, each way. changed: called with each record that now stands. expected: hosts that
    have said that they may ask soon."""

    records: dict[str, Recorded] = field(default_factory=dict)
    down: bool = False
    full: bool = False
    cut: set[str] = field(default_factory=set)
    lose_answer: Callable[[str], bool] = lambda _: False
    late: Callable[[str], float | None] = lambda _: None
    twice: Callable[[str], float | None] = lambda _: None
    delay: Callable[[str], float] = _no_delay
    changed: Callable[[str, Ownership | None], None] = lambda _, __: None
    timeout: float = 2.0
    revision: int = 0
    expected: list[str] = field(default_factory=list)

    def of(self, host: str) -> SimWitnessClient:
        """How this host sees it."""
        return SimWitnessClient(self, host)

    def write(self, guest: str, now: Ownership | None) -> Recorded | None:
        """What a transaction does whose comparison held."""
        self.revision += 1
        if now is None:
            self.records.pop(guest, None)
        else:
            self.records[guest] = Recorded(now, self.revision)
        self.changed(guest, now)
        return self.records.get(guest)

    def lose_data(self) -> None:
        """It is built anew, empty; nobody is told."""
        self.records.clear()
        self.revision = 0

    def is_still(self, guest: str, was: Recorded | None) -> bool:
        """The comparison of a transaction."""
        there = self.records.get(guest)
        return (there.revision if there else None) == (was.revision if was else None)

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
        late = self._witness.late(self._host)
        if late is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(late, self._late, guest, was, now, context=contextvars.Context())
            await asyncio.sleep(self._witness.timeout)
            raise self._unknown(operation)
        await self._ask(operation)
        if self._witness.full:
            raise WitnessError("it takes in no change", operation=operation, left="nothing was changed")
        self._compare(guest, was, operation)
        made = self._witness.write(guest, now)
        if made is None:
            raise AssertionError("a record that was written stands there")
        await self._answer(operation)
        self._repeat(guest, was, now, operation)
        return made

    async def forget(self, guest: str, was: Recorded) -> None:
        operation = "forget the record of ownership"
        await self._ask(operation)
        self._compare(guest, was, operation)
        self._witness.write(guest, None)
        await self._answer(operation)
        self._repeat(guest, was, None, operation)

    async def expect(self) -> None:
        self._witness.expected.append(self._host)

    async def close(self) -> None:
        """Nothing to end."""

    def _compare(self, guest: str, was: Recorded | None, operation: str) -> None:
        if not self._witness.is_still(guest, was):
            raise WitnessConflict(
                "the record was changed meanwhile",
                operation=operation,
                left="nothing was changed",
                hint="read it again",
            )

    def _repeat(self, guest: str, was: Recorded | None, now: Ownership | None, operation: str) -> None:
        """Something on the way may ask for the same again: at once, so that its answer is the one that comes, or later."""
        again = self._witness.twice(self._host)
        if again == 0:
            self._compare(guest, was, operation)
        elif again is not None:
            asyncio.get_running_loop().call_later(again, self._late, guest, was, now, context=contextvars.Context())

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
            raise self._unknown(operation)

    def _late(self, guest: str, was: Recorded | None, now: Ownership | None) -> None:
        """A request that was under way for long: nobody hears what comes of it."""
        if self._witness.is_still(guest, was):
            self._witness.write(guest, now)

    def _unknown(self, operation: str) -> WitnessUnknown:
        return WitnessUnknown(
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
