"""`disk_ports.Replica`: one disk of one domain on its backup, blocking work in a thread of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from remus_agent.adapters.disk.copy import DiskCopy
from remus_agent.adapters.disk.failures import Place
from remus_agent.adapters.disk.slots import Standing
from remus_agent.adapters.ledger import Entry
from remus_agent.disk_ports import DiskFacts
from remus_agent.protocol.disk.operations import Extent

P = ParamSpec("P")
T = TypeVar("T")


class Mapping(Protocol):
    """Where the mapper devices of protected disks lead. size: bytes. Both raise DiskError, and are done when they return."""

    async def nowhere(self, domain: str, vdev: str, size: int) -> None:
        """Every access fails, and no device below it is held. Made when it does not exist."""
        ...

    async def linear(self, domain: str, vdev: str, device: Path, size: int) -> None:
        """The first `size` bytes of the device. Safe to call again."""
        ...


class FileReplica:
    """Made by `FileReplicas.open`. Calls are carried out one after the other, in the order in which they are made, also
    when a caller is cancelled meanwhile: what has begun in the thread is finished before the next one. entry: notes what it is
    done with."""

    def __init__(self, copy: DiskCopy, place: Place, mapping: Mapping, entry: Entry) -> None:
        self._copy = copy
        self._place = place
        self._mapping = mapping
        self._entry = entry
        entry.adds(lambda: copy.writers_seconds)
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=f"disk {place.domain} {place.vdev}", initializer=entry.thread
        )
        self._closed = False

    @property
    def facts(self) -> DiskFacts:
        """The disk."""
        return self._copy.facts

    @property
    def map_id(self) -> str | None:
        """Identity of the map that names everything in which this disk can differ from the primary's."""
        return self._copy.map_id

    @property
    def capacity(self) -> int:
        """Bytes of extents (16 bytes and data each) that an epoch may have to be staged."""
        return self._copy.capacity

    @property
    def standing(self) -> Standing | None:
        """The committed session and epoch that `hand_over` would activate; None when it would refuse."""
        return self._copy.standing

    @property
    def problem(self) -> str | None:
        """Why `hand_over` would refuse, to go on after `the disk cannot be activated: `; None when it would not."""
        return self._copy.problem

    @property
    def closed(self) -> bool:
        """Device and journal are let go of, or about to be."""
        return self._closed

    @property
    def released(self) -> bool:
        """Whether `hand_over` has let go of the device."""
        return self._copy.released is not None

    async def begin(self, map_id: str, session: str) -> None:
        """A session with this map (both UUIDs) begins. Durable when it returns. Raises DiskError, JournalError."""
        await self._run(self._copy.begin, map_id, session)

    async def seed(self, extents: Sequence[Extent]) -> None:
        """Apply at once, before the session's first commit; from the first call on no older copy can be activated. Raises
        DiskError, JournalError."""
        await self._run(self._copy.seed, extents)

    async def stage(self, epoch: int, extents: Sequence[Extent]) -> None:
        """Make an epoch durable in the journal. The data must stay as it is until `apply` or `drop`. Raises JournalError
        with nothing changed when it needs more than `capacity`; DiskError, JournalError."""
        await self._run(self._copy.stage, epoch, extents)

    async def apply(self, epoch: int) -> None:
        """The epoch was committed: bring the device to it. Durable when it returns. Raises DiskError; then the epoch is
        still in the journal, and opening the disk again applies it."""
        await self._run(self._copy.apply, epoch)

    async def drop(self) -> None:
        """Forget what is staged and not committed. If anything was, the disk only takes hand_over and close after it: only
        opening it again shows whether that epoch has a commit record."""
        await self._run(self._copy.drop)

    async def digests(self, offset: int, length: int) -> bytes:
        """xxh3_128 of each region of the device from offset on, 16 bytes each; offset and length are whole regions, but for
        the disk's end. Raises DiskError."""
        return await self._run(self._copy.digests, offset, length)

    async def hand_over(self) -> None:
        """For activation: forget the map's identity, close the device and let the mapper device lead to it. Raises DiskError
        with nothing changed when the disk is at no committed epoch. When the mapper device cannot be led to it, call it
        again: the content is whole and the device closed."""
        if self._copy.released is None:
            await self._run(self._copy.release)
        await self._mapping.linear(self._place.domain, self.facts.vdev, self._place.path, self.facts.size)
        await self.close()

    async def give_up(self) -> None:
        """As `hand_over`, whatever the content is at. When the mapper device cannot be led to it, open the disk again."""
        await self._run(self._copy.give_up)
        await self._mapping.linear(self._place.domain, self.facts.vdev, self._place.path, self.facts.size)
        await self.close()

    async def close(self) -> None:
        """Close the device; the mapper device goes on leading nowhere. Safe to call twice and after hand_over."""
        if self._closed:
            return
        self._closed = True
        closing = self._executor.submit(self._copy.close)
        self._executor.submit(self._entry.close)
        self._executor.shutdown(wait=False)  # what was asked for before is still done
        await asyncio.wrap_future(closing)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise self._place.error("is closed", left="nothing was changed", hint="open the disk again")
        return await self._in_thread(functools.partial(call, *args, **kwargs))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
