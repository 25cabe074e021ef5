"""One shape for every state machine: a table of rows, and pure handlers.

A row says: in this state, on this event, do that and go there, because... The comment is for people: it is printed in the
generated diagrams. Whatever is not in a table is illegal and raises `IllegalEvent`; nothing is ignored in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)
A = TypeVar("A", bound=Enum)


class IllegalEvent(Exception):
    """An event that its state has no row for: a defect of the caller, never of a user."""


@dataclass(frozen=True, slots=True)
class Row(Generic[S, E, A]):
    """One transition. effects: what the service carries out, in this order."""

    state: S
    event: E
    then: S
    effects: tuple[A, ...]
    comment: str


class Table(Generic[S, E, A]):
    """A state machine as data. Every (state, event) pair stands at most once."""

    def __init__(self, name: str, rows: Iterable[Row[S, E, A]]) -> None:
        self.name = name
        self.rows = tuple(rows)
        self._by_key: Mapping[tuple[S, E], Row[S, E, A]] = {(row.state, row.event): row for row in self.rows}
        if len(self._by_key) != len(self.rows):
            raise ValueError(f"table {name} has two rows for one state and event")

    def step(self, state: S, event: E) -> Row[S, E, A]:
        """The row for this event. Raises IllegalEvent."""
        try:
            return self._by_key[state, event]
        except KeyError:
            raise IllegalEvent(f"{self.name}: {event.name} in state {state.name}") from None

    def accepts(self, state: S, event: E) -> bool:
        """Whether the table has a row for this event in this state."""
        return (state, event) in self._by_key

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram, for docs."""
        lines = ["stateDiagram-v2"]
        lines += [
            f"    {row.state.name.lower()} --> {row.then.name.lower()}: {row.event.name.lower()}" for row in self.rows
        ]
        return "\n".join(lines)
