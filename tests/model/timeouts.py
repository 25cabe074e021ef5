"""The durations of an agent that a test may choose."""

from __future__ import annotations

from typing import TypedDict


class Timeouts(TypedDict, total=False):
    """In seconds; what each means stands in `Settings`."""

    connect: float
    suspend: float
    ack: float
    silence: float
    heartbeat: float
    activate: float
    look: float
    retry: float
    detect: float
    solo: float
