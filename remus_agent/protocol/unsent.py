"""Buffers on their way out through a system call that takes some of them at a time, such as writev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from remus_agent.protocol.stream.constants import Buffer

VECTOR: Final = 512
"""Buffers in one system call (IOV_MAX is 1024)."""


class Unsent:
    """What is not sent yet of some buffers, in order. True as long as there is any. Nothing is copied."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._queue = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        self._first = 0

    def __bool__(self) -> bool:
        return self._first < len(self._queue)

    def vector(self) -> list[memoryview]:
        """What the next call may be given: at most VECTOR buffers, none of them empty."""
        return self._queue[self._first : self._first + VECTOR]

    def advance(self, count: int) -> None:
        """The call has taken so many bytes of the vector."""
        while self and count >= len(self._queue[self._first]):
            count -= len(self._queue[self._first])
            self._first += 1
        if count:
            self._queue[self._first] = self._queue[self._first][count:]
