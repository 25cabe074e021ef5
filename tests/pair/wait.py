"""Poll with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SLOWEST = 3
"""Deadlines are written for a machine that has nothing else to do; one that is shared may take so many times as long."""


class TooLate(AssertionError):
    """Something did not happen in time; the message has what was seen last."""


def until(
    what: str,
    look: Callable[[], T],
    done: Callable[[T], object] = bool,
    *,
    timeout: float,
    every: float = 0.5,
    passing: tuple[type[Exception], ...] = (),
) -> T:
    """What `look` returns once `done` says so of it.

    what: in words, for the failure. timeout: seconds, see SLOWEST. passing: exceptions of `look` that only mean "not yet".
    """
    timeout *= SLOWEST
    deadline = time.monotonic() + timeout
    while True:
        seen: object
        try:
            value = look()
        except passing as error:
            seen = error
        else:
            if done(value):
                return value
            seen = value
        if time.monotonic() >= deadline:
            raise TooLate(f"{what}: not after {timeout:.0f} s; last seen: {seen!r}")
        time.sleep(every)
