"""A paused copy of a domain on the backup, built by a stock `xl restore -p`: `ports.Target`.

Memory of committed epochs goes in as it comes; at failover the last context and the END records follow, and xl
creates the devices. What then makes it run is as short as can be: it gets its name and is unpaused by us (a process
start less each)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, ParamSpec, TypeVar

from remus_agent.adapters.ledger import Entry
from remus_agent.adapters.xen import domains, toolstack
from remus_agent.adapters.xen.control import Control
from remus_agent.adapters.xen.feeder import Feeder
from remus_agent.adapters.xen.libs import Libraries
from remus_agent.adapters.xen.xen_thread import XenThread
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import HypervisorError
from remus_agent.ports import Buffer, Domain
from remus_agent.protocol.stream import writer
from remus_agent.protocol.stream.constants import LibxcRecordType
from remus_agent.protocol.stream.reader import iter_records
from remus_agent.protocol.stream.zero_pages import with_zero_pages

log = logging.getLogger(__name__)

STALL: Final = 60.0
"""Seconds that xl may leave its pipe full before it counts as hung."""
FINISH: Final = 120.0
"""Seconds for xl to create the devices (its own limits: 40 s a hotplug script, 10 s the console)."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class XenTarget:
    """`ports.Target`. Make it with `open_target` of the hypervisor. entry: notes what it is done with."""

    def __init__(self, libs: Libraries, name: str, entry: Entry | None = None) -> None:
        self._libs, self._name = libs, name
        self._entry = entry or Entry()
        self._thread = XenThread(
            f"target {name}",
            domain=name,
            left=f"the copy may stand paused as {name}; it does not run",
            initializer=self._entry.thread,
        )
        self._feeder: Feeder | None = None
        self._renamed: tuple[int, str] | None = None
        self._revoked = threading.Event()
        self.built = False
        self.may_have_run = False
        self._closed = False

    async def start(self, preamble: bytes) -> None:
        """Start xl and give it the preamble, which names the domain by its working name."""
        await self._run(self._start, preamble)

    async def feed(self, buffers: Sequence[Buffer]) -> None:
        """As the port says. Each buffer holds whole records."""
        await self._run(self._feed, buffers)

    async def build(self, tail: Sequence[Buffer], emulator: Sequence[Buffer]) -> None:
        """As the port says. A caller that is cancelled meanwhile must `abort`."""
        if not self.built:
            await self._run(self._build, tail, emulator)
            self.built = True

    async def rename(self, name: str) -> None:
        """As the port says. A caller that is cancelled meanwhile must `abort`."""
        if not self.built:
            raise HypervisorError("the copy was not built", domain=self._name)
        await self._run(self._rename, name)

    async def run(self) -> Domain:
        """As the port says. A caller that is cancelled meanwhile must `abort`: then the domain does not
        run."""
        try:
            domain = await self._run(self._unpause)
        except asyncio.CancelledError:
            self._revoked.set()
            raise
        self._close()
        return domain

    async def abort(self) -> None:
        if self._closed:
            return
        self._revoked.set()
        await self._run(self._abort)
        try:
            left = await self._run(self._domids)
        finally:
            self._close()
        for domid in left:
            # xl destroys what it was building when its stream breaks off; this is for what it could not.
            log.warning("%s: xl left the copy behind as domain %d; destroying it", self._name, domid)
            await toolstack.run(
                "destroy",
                str(domid),
                operation="destroy the copy",
                domain=self._name,
                left=f"it stands paused as domain {domid}, and never ran",
                hint=f"`xl destroy {domid}` on this host; the next start of its agent destroys it as well",
            )

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if self._closed:
            raise HypervisorError("the copy is closed", domain=self._name)
        return await self._thread.run(function, *args, **kwargs)

    def _close(self) -> None:
        self._entry.close()
        self._closed = True
        self._thread.end()

    def _domids(self) -> list[int]:
        store = XenStore(self._libs)
        try:
            return [
                domid
                for domid, name in domains.names(store).items()
                if name == self._name or (domid, name) == self._renamed
            ]
        finally:
            store.close()

    # In the thread

    def _start(self, preamble: bytes) -> None:
        self._feeder = Feeder(self._name, STALL)
        self._entry.process(self._feeder.pid)
        self._feeder.write([preamble])

    def _feed(self, buffers: Sequence[Buffer]) -> None:
        self._open_feeder().write([part for buffer in buffers for part in _at_length(buffer)])

    def _build(self, tail: Sequence[Buffer], emulator: Sequence[Buffer]) -> None:
        feeder = self._open_feeder()
        started = time.monotonic()
        self._entry.look()  # xl ends
        feeder.write([*tail, writer.end_of_libxc(), *emulator, writer.end_of_libxl()])
        feeder.finish(FINISH)
        log.info("%s: built; xl took %.0f ms", self._name, (time.monotonic() - started) * 1000)

    def _rename(self, name: str) -> None:
        store = XenStore(self._libs)
        try:
            found = domains.named(store, self._name)
            if len(found) != 1:
                raise HypervisorError(f"xl built the copy, and {len(found)} domains have its name", domain=self._name)
            if self._revoked.is_set():
                raise HypervisorError("the activation was given up", domain=self._name)
            domains.rename(store, found[0], self._name, name)
            self._renamed = (found[0], name)
        finally:
            store.close()

    def _unpause(self) -> Domain:
        if self._renamed is None:
            raise HypervisorError("the copy has not got its name", domain=self._name)
        domid, name = self._renamed
        started = time.monotonic()
        control, store = Control(self._libs), XenStore(self._libs)
        try:
            if self._revoked.is_set():
                raise HypervisorError("the activation was given up", domain=self._name)
            self.may_have_run = True
            control.unpause(domid)
            log.info("%s: running; unpause took %.0f ms", name, (time.monotonic() - started) * 1000)
            return domains.describe(control, store, domid)
        finally:
            store.close()
            control.close()

    def _abort(self) -> None:
        if self._feeder is not None:
            self._entry.look()
            self._feeder.abort()

    def _open_feeder(self) -> Feeder:
        if self._feeder is None:
            raise HypervisorError("the copy was not started", domain=self._name)
        return self._feeder


def _at_length(buffer: Buffer) -> Iterator[Buffer]:
    """The records of a buffer, with content for the pages that were sent as zeros in short: Xen would populate those and
    would not clear them. X86_PV_P2M_FRAMES, which precede a PV guest's pages, pass as they are."""
    for record in iter_records(buffer):
        yield from with_zero_pages(record) if record.type == LibxcRecordType.PAGE_DATA else [record.raw]
