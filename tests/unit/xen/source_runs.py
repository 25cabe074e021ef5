"""A source of a faked guest, seeded and asked for a checkpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from fake_xen import DOMID, NAME, UUID, FakeXen
from watcher import Watcher

from remus_agent.adapters.xen.source import XenSource
from remus_agent.ports import Domain, GuestType
from remus_agent.source_ports import Checkpoint, Source

S = TypeVar("S", bound=Source)


def source_of(xen: FakeXen, supervisor: Path) -> XenSource:
    domain = Domain(NAME, DOMID, UUID, GuestType.PVH, 4 * len(xen.gfns), ())
    return XenSource(xen.libs, domain, b"preamble", supervisor)


@asynccontextmanager
async def begin(source: S, *, seeded: bool) -> AsyncIterator[S]:
    """Any source, which is closed in the end, whatever becomes of it."""
    try:
        await source.begin()
        if seeded:
            async for _ in source.seed():
                pass
        yield source
    finally:
        await source.close()


def begun(xen: FakeXen, watcher: Watcher, *, seeded: bool = True) -> AbstractAsyncContextManager[XenSource]:
    return begin(source_of(xen, watcher.path), seeded=seeded)


async def take(source: XenSource, at_barrier: Callable[[], None] = lambda: None) -> Checkpoint:
    return await source.checkpoint(1, at_barrier, 0.2)
