"""Processor time that is used up, for tests of what counts it."""

from __future__ import annotations

import time


def burn(seconds: float) -> None:
    """In the calling thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
