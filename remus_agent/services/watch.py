"""Tells whoever asked for something how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from remus_agent.observe.status import Seeding
from remus_agent.ports import Clock
from remus_agent.services.primary import PrimaryService

PROGRESS_SECONDS: Final = 1.0


class Progress(Protocol):
    """Tells whoever asked how far the work is."""

    def __call__(self, phase: str, done: int = 0, total: int = 0, unit: str = "", message: str = "") -> None: ...


async def watch(
    service: PrimaryService,
    task: asyncio.Task[Any],
    clock: Clock,
    seconds: float,
    progress: Progress,
    what: str,
    done: Callable[[], bool],
) -> None:
    """Report the progress of a protection until it is done, its task has ended, or so many seconds have passed."""
    started = clock.now()
    while not done() and not task.done():
        if clock.now() - started >= seconds:
            return
        _report(service, progress, what)
        changed = asyncio.ensure_future(service.changed.wait())
        await asyncio.wait({changed, task}, timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()


def _report(service: PrimaryService, progress: Progress, what: str) -> None:
    state = service.state.value
    text = f"{what} {service.domain.name}: {state}"
    seeding = service.seeding
    if seeding is None:
        progress(state, 0, 0, "pages", text)
    else:
        progress(state, seeding.done, seeding.total, seeding.unit, text + _speed(seeding))


def _speed(seeding: Seeding) -> str:
    """Rate and estimate of a copy of disks, for people."""
    if seeding.unit != "bytes" or seeding.left is None:
        return ""
    return f", {seeding.rate / 2**20:.1f} MiB/s, {seeding.left:.0f} s left"
