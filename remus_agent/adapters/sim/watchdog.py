"""A host's watchdog in memory, on the time of the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field

from remus_agent.errors import HypervisorError


@dataclass
class SimWatchdog:
    """fence_ports.Watchdog of one host, which outlives its agents. expired: called when it was not petted in time. broken: every
    call fails. acts: what it was told, by name, with its time."""

    expired: Callable[[], None] = lambda: None
    broken: bool = False
    acts: list[tuple[str, float]] = field(default_factory=list)
    _due: asyncio.TimerHandle | None = None

    @property
    def armed(self) -> bool:
        return self._due is not None

    def arm(self, seconds: int) -> None:
        if self.armed:
            raise AssertionError("it is armed already")
        self._act("arm")
        self._set(seconds)

    def pet(self, seconds: int) -> None:
        if not self.armed:
            raise AssertionError("it is not armed")
        self._act("pet")
        self._set(seconds)

    def disarm(self) -> None:
        if self.armed:
            self._act("disarm")
            self.lose()

    def lose(self) -> None:
        """Nothing is armed any more, and nobody was told: the machine was reset, or another program disarmed it."""
        if self._due is not None:
            self._due.cancel()
        self._due = None

    def count(self, act: str) -> int:
        """How often it was told to."""
        return [name for name, _ in self.acts].count(act)

    def _act(self, name: str) -> None:
        if self.broken:
            raise HypervisorError("xc_watchdog failed: No space left on device", operation="watchdog")
        self.acts.append((name, asyncio.get_running_loop().time()))

    def _set(self, seconds: int) -> None:
        self.lose()
        loop = asyncio.get_running_loop()
        self._due = loop.call_later(seconds, self._expire, context=contextvars.Context())

    def _expire(self) -> None:
        self._due = None
        self.expired()
