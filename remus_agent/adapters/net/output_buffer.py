"""The output buffer of a guest: what it sends leaves the host only when it is released.

Every frame that a guest sends comes in on its vif, is redirected to an IFB, waits there in a plug, and goes
on from the vif to the bridge when the plug lets it out. The order of steps is such that a closed buffer never
lets a frame pass:

    install    make IFBs and plugs; attach the new redirect *behind* the one in force; then delete the one in
               force, at which moment the new one takes over. The old IFB keeps its frames until the next
               release.
    remove     open; wait until nothing is held; take the redirect away; wait again; delete.

When an agent dies everything stays in the kernel as it was: closed. The next agent finds the IFBs by their
names.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from remus_agent.adapters.net.plug import PlugDevice, PlugSocket
from remus_agent.adapters.net.plumbing import Plumbing, next_priority
from remus_agent.adapters.net.undo import Undo
from remus_agent.errors import OutputBufferError
from remus_agent.ports import BufferState, Domain, Vif
from remus_agent.protocol.rtnl import ETH_P_ALL, Filter, Link

_DRAIN_TIMEOUT: Final = 10.0
_SETTLE: Final = 0.005
_MAX_LIMIT: Final = 0xFFFFFFFF

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Found:
    """What an interface has when work on it begins. links: IFBs, oldest first. own: their redirects. foreign:
    filters of other programs."""

    vif: Vif
    index: int | None
    links: list[Link]
    own: list[Filter]
    foreign: list[Filter]


class PlugOutputBuffer:
    """The plugs of one domain's interfaces (ports.OutputBuffer)."""

    def __init__(
        self,
        domain: Domain,
        limit: int,
        protocol: int = ETH_P_ALL,
        *,
        plumbing: Callable[[], Plumbing] = Plumbing,
        plug_socket: Callable[[list[PlugDevice]], PlugSocket] = PlugSocket,
    ) -> None:
        if not 0 < limit <= _MAX_LIMIT:
            raise OutputBufferError(
                f"a plug cannot be limited to {limit} bytes",
                operation="make the output buffer",
                domain=domain.name,
                hint="set [output] limit_bytes to a number between 1 and 4294967295",
            )
        self._domain = domain
        self._limit = limit
        self._protocol = protocol
        self._make_plumbing = plumbing
        self._make_plugs = plug_socket
        self._plumbing: Plumbing | None = None
        self._plugs: PlugSocket | None = None
        self._current: list[Link] = []
        self._replaced: list[Link] = []
        self._gone: tuple[Vif, ...] = ()
        self._epoch_closed = False
        self._open = False
        self._lock = threading.Lock()

    # ── the port ────────────────────────────────────────────────────────────────────────────────────────────

    def follow(self, domain: Domain) -> None:
        """The next install is for the interfaces of this. Links of those that are gone are taken away with the rest."""
        with self._lock:
            kept = {vif.device for vif in domain.outputs}
            self._gone = tuple(vif for vif in (*self._gone, *self._domain.outputs) if vif.device not in kept)
            self._domain = domain

    async def install(self, *, closed: bool) -> None:
        """Put a plug on each interface. closed: hold from the first frame on; False: let everything pass
        until the first barrier. May be repeated, also by a new agent: plugs that were there are replaced
        without a gap, their frames stay held until the next release. Raises OutputBufferError; the interfaces
        are then as they were, or `left` says how not."""
        await self._in_thread(lambda: self._install(closed=closed))

    def barrier(self) -> None:
        """Close the running epoch on every plug. Raises OutputBufferError, before anything is sent, when the
        epoch before was not released: the kernel would lose its count. After an error of the kernel only
        install helps."""
        plugs = self._installed("barrier")
        if self._epoch_closed:
            raise self._refused("barrier", "the epoch before is closed and not released")
        self._epoch_closed = True
        if self._open:
            self._settle()
        self._named(plugs.buffer)
        self._open = False

    async def release(self) -> None:
        """Let the last closed epoch out, after all that replaced plugs hold. The command itself runs on the
        event loop: it is one system call of some ten microseconds, less than a change of threads costs."""
        plugs = self._installed("release")
        if not self._epoch_closed:
            raise self._refused("release", "no epoch is closed")
        if self._replaced:
            await self._in_thread(self._let_replaced_out)
        self._named(plugs.release_one)
        self._epoch_closed = False

    async def open(self) -> None:
        """Let everything out, oldest first, and hold nothing until the next barrier. Also opens what an
        earlier agent left."""
        await self._in_thread(self._open_all)

    async def remove(self) -> None:
        """Open, wait until nothing is held, take the plumbing away. Also for what an earlier agent left, and
        for interfaces that are gone. Safe to call twice."""
        await self._in_thread(self._remove)

    async def drop(self) -> None:
        """Put fresh, closed plugs in force, then delete the old ones with what they hold. Raises OutputBufferError; what was held
        is held then, or gone, and what comes is held in any case in which it was before."""
        await self._in_thread(self._drop)

    async def state(self) -> BufferState:
        """What all plugs of the domain hold and have dropped. Works without install."""
        return await self._in_thread(self._state)

    # ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            with self._lock:
                return self._named(work)

        return await asyncio.to_thread(locked)

    def _named(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OutputBufferError as error:
            error.domain = error.domain or self._domain.name
            raise

    def _refused(self, operation: str, reason: str) -> OutputBufferError:
        return OutputBufferError(
            reason,
            operation=operation,
            domain=self._domain.name,
            left="the plugs are as they were",
            hint="install the output buffer again, closed, before the next epoch",
        )

    def _installed(self, operation: str) -> PlugSocket:
        if self._plugs is None:
            raise self._refused(operation, "the output buffer is not installed")
        return self._plugs

    def _host(self) -> Plumbing:
        if self._plumbing is None:
            self._plumbing = self._make_plumbing()
        return self._plumbing

    def _plugs_of(self, links: list[Link]) -> PlugSocket:
        return self._make_plugs([PlugDevice(link.index, link.name) for link in links])

    def _release_indefinite(self, link: Link) -> None:
        plugs = self._plugs_of([link])
        try:
            plugs.release_indefinite()
        finally:
            plugs.close()

    def _survey(self, vif: Vif) -> _Found:
        host = self._host()
        links = host.own_links(self._domain.domid, vif)
        index = host.vif_index(vif)
        filters = [] if index is None else host.filters(index, vif.device)
        ours = {link.index for link in links}
        own = [each for each in filters if each.redirect_to in ours]
        return _Found(vif, index, links, own, [each for each in filters if each not in own])

    # ── install ─────────────────────────────────────────────────────────────────────────────────────────────

    def _install(self, *, closed: bool) -> None:
        undo = Undo()
        plugs: PlugSocket | None = None
        try:
            found = [self._survey(vif) for vif in self._domain.outputs]
            fresh = [self._lay(each, undo) for each in found]
            plugs = self._plugs_of(fresh)
            if not closed:
                plugs.release_indefinite()
            redirects = [self._attach(each, link, undo) for each, link in zip(found, fresh, strict=True)]
            for each, redirect in zip(found, redirects, strict=True):
                self._switch(each, redirect, undo)
        except OutputBufferError as error:
            if plugs is not None:
                plugs.close()
            error.operation = error.operation or "install"
            error.left = undo.run() or "the interfaces are as they were"
            self._not_installed()
            raise
        self._not_installed()
        self._plugs = plugs
        self._current = fresh
        self._replaced = [link for each in found for link in each.links]
        self._epoch_closed = False
        self._open = not closed
        for link in list(self._replaced):
            try:
                if self._discard_if_empty(link):
                    self._replaced.remove(link)
            except OutputBufferError as error:
                _log.warning("%s stays until the next release: %s", link.name, error)

    def _lay(self, found: _Found, undo: Undo) -> Link:
        host = self._host()
        device = found.vif.device
        if found.foreign:
            other = found.foreign[0]
            raise OutputBufferError(
                f"{device} has a {other.kind} filter of another program at priority {other.priority}; behind "
                "the output buffer it would do nothing, ahead of it frames could pass unheld",
                operation="look at the interface",
                hint=f"see `tc filter show dev {device} ingress`, and filter on the bridge instead",
            )
        if found.index is None:
            raise OutputBufferError(
                f"{device} is not there",
                operation="look at the interface",
                hint="see `xl network-list` and `ip link`: is the guest running?",
            )
        link = host.add_ifb(self._domain.domid, found.vif, found.links, self._limit)
        undo.add(device, f"{link.name} is still there", lambda: self._unlay(found, link))
        return link

    def _unlay(self, found: _Found, link: Link) -> None:
        if found.own and not self._host().calm(link):
            raise OutputBufferError(f"{link.name} holds frames until the next release")
        if not found.own:
            self._release_indefinite(link)
            self._host().drain(link, _DRAIN_TIMEOUT)
        self._host().delete_link(link)

    def _attach(self, found: _Found, link: Link, undo: Undo) -> Filter:
        host, device, index = self._host(), found.vif.device, found.index or 0
        if host.ensure_ingress(index, device):
            undo.add(
                device,
                f"{device} has an ingress qdisc",
                lambda: host.delete_ingress_if_unused(index, device),
            )
        redirect = Filter(next_priority(found.own), self._protocol, "matchall", link.index)
        host.add_redirect(index, device, redirect)

        def detach() -> None:
            if not found.own:
                self._release_indefinite(link)
            host.delete_redirect(index, device, redirect)

        undo.add(device, f"{device} is still redirected to {link.name}", detach)
        return redirect

    def _switch(self, found: _Found, redirect: Filter, undo: Undo) -> None:
        host, device, index = self._host(), found.vif.device, found.index or 0
        if found.own:
            # From the first deletion on the new plug may be in force: it stays, closed.
            undo.forget(device, f"{device} has its new plug, and what the old one held is still held")
        for each in found.own:
            host.delete_redirect(index, device, each)
        ours = {link.index for link in found.links} | {redirect.redirect_to}
        now = [each for each in host.filters(index, device) if each.redirect_to in ours]
        if now != [redirect]:
            raise OutputBufferError(
                f"{device} should have one redirect, to IFB {redirect.redirect_to}, and shows {now}",
                operation="check the redirect",
                hint=f"see `tc filter show dev {device} ingress`; does another program change it?",
            )

    def _discard_if_empty(self, link: Link) -> bool:
        host = self._host()
        if host.has_plug(link) and not host.calm(link):
            return False
        host.delete_link(link)
        return True

    def _drop(self) -> None:
        self._install(closed=True)
        for link in list(self._replaced):
            self._host().delete_link(link)
            self._replaced.remove(link)

    # ── letting out ─────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        """Before the first barrier of an open buffer: give frames that just pass a moment, else the epochs'
        counts would lag behind by them (frames late, never early)."""
        deadline = time.monotonic() + _SETTLE
        host = self._host()
        while any(host.held(link).held_packets for link in self._current) and time.monotonic() < deadline:
            pass

    def _let_replaced_out(self) -> None:
        for link in sorted(self._replaced, key=lambda each: each.index):
            self._release_indefinite(link)
            self._host().drain(link, _DRAIN_TIMEOUT)
            self._host().delete_link(link)
            self._replaced.remove(link)

    def _open_all(self) -> None:
        if self._plugs is not None:
            self._let_replaced_out()
            self._plugs.release_indefinite()
        else:
            for link in self._left_behind():
                self._release_indefinite(link)
        self._epoch_closed = False
        self._open = True

    def _left_behind(self) -> list[Link]:
        host = self._host()
        vifs = (*self._domain.outputs, *self._gone)
        links = [link for vif in vifs for link in host.own_links(self._domain.domid, vif)]
        return [link for link in links if host.has_plug(link)]

    def _remove(self) -> None:
        host = self._host()
        found = [self._survey(vif) for vif in (*self._domain.outputs, *self._gone)]
        in_force = {redirect.redirect_to for each in found for redirect in each.own}
        for each in found:
            for link in each.links:
                if host.has_plug(link):
                    self._release_indefinite(link)
                    if link.index not in in_force:
                        host.drain(link, _DRAIN_TIMEOUT)
        for each in found:
            if each.index is not None:
                for redirect in each.own:
                    host.delete_redirect(each.index, each.vif.device, redirect)
            for link in each.links:
                if host.has_plug(link):
                    host.drain(link, _DRAIN_TIMEOUT)
                host.delete_link(link)
            if each.index is not None and each.own:
                host.delete_ingress_if_unused(each.index, each.vif.device)
        self._not_installed()
        host.close()
        self._plumbing = None

    def _not_installed(self) -> None:
        if self._plugs is not None:
            self._plugs.close()
        self._plugs = None
        self._current, self._replaced = [], []
        self._epoch_closed = self._open = False

    def _state(self) -> BufferState:
        host = self._host()
        links = self._replaced + self._current if self._plugs is not None else self._left_behind()
        stats = [host.held(link) for link in links]
        return BufferState(
            held_bytes=sum(each.held_bytes for each in stats),
            held_packets=sum(each.held_packets for each in stats),
            dropped_packets=sum(each.dropped_packets for each in stats),
        )
