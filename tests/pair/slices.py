"""How long a domain of the lab runs before another one takes its host's processor."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from pair.hosts import CommandFailed, on, on_both

LONG_US = 10_000
SHOWN = re.compile(r"ratelimit=(\d+)us")


@contextlib.contextmanager
def long_slices() -> Iterator[None]:
    """On both hosts, for tests with several guests on one. With Xen's own 1 ms, two busy guests beside a busy dom0 get nowhere:
    each change from one domain to another is dear in emulation, and the timer interrupts that a guest owes by then take all of
    its turn. Not for good: dom0 is a third slower with it beside one guest under load."""
    before = on_both(_limit)
    try:
        on_both(lambda host: _set(host, LONG_US))
        yield
    finally:
        on_both(lambda host: _set(host, before[host]))


def _limit(host: str) -> int:
    said = on(host, "xl sched-credit2 -s")
    found = SHOWN.search(said)
    if found is None:
        raise CommandFailed(f"xl does not say how long a domain runs on {host}: {said}")
    return int(found[1])


def _set(host: str, microseconds: int) -> None:
    on(host, f"xl sched-credit2 -s -r {microseconds}")
