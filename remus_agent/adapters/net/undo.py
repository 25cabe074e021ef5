"""Taking steps back when a later one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remus_agent.errors import RemusError


@dataclass(frozen=True, slots=True)
class _Step:
    device: str
    left: str
    back: Callable[[], None]


class Undo:
    """Steps that were done on interfaces, and how to take each back."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._left: list[str] = []

    def add(self, device: str, left: str, back: Callable[[], None]) -> None:
        """A step was done. left: what is the case as long as it is not taken back."""
        self._steps.append(_Step(device, left, back))

    def forget(self, device: str, left: str) -> None:
        """The steps on a device are for good. left: what is the case because of that."""
        self._steps = [step for step in self._steps if step.device != device]
        self._left.append(left)

    def run(self) -> str:
        """Take everything back, newest first. Returns the state that is left, empty when all is as it was."""
        for step in reversed(self._steps):
            try:
                step.back()
            except RemusError as error:
                self._left.append(f"{step.left} ({error.message})")
        self._steps = []
        return "; ".join(self._left)
