"""What a run of the simulated world ends with when a guarantee does not hold."""

from __future__ import annotations

from typing import ClassVar


class Violated(AssertionError):
    """A guarantee does not hold. What a task of a service raises may be heard by nobody, so each is noted."""

    noted: ClassVar[list[Violated]] = []

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.noted.append(self)
