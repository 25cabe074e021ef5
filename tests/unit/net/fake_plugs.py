"""A kernel with IFBs, plugs and redirects, in which the guest sends a frame before every step of the
adapter."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from remus_agent.adapters.net.netlink import NetlinkError
from remus_agent.adapters.net.plug import PlugDevice, PlugSocket
from remus_agent.adapters.net.plumbing import Plumbing, _next_name, owner_of
from remus_agent.errors import OutputBufferError
from remus_agent.ports import Vif
from remus_agent.protocol.rtnl import Filter, Link, QdiscStats


@dataclass
class Ifb:
    """As in sch_plug.c: current and last count the frames of the running and of the closed epoch."""

    link: Link
    queue: list[int] = field(default_factory=list)
    current: int = 0
    last: int = 0
    open: bool = False


class Kernel:
    """State, traffic and faults. fail_at: the number of the step that fails."""

    def __init__(self, devices: tuple[str, ...]) -> None:
        self.vifs = {device: index for index, device in enumerate(devices, start=100)}
        self.ifbs: dict[int, Ifb] = {}
        self.filters: dict[int, list[Filter]] = {index: [] for index in self.vifs.values()}
        self.ingress: set[int] = set()
        self.sent: dict[int, list[int]] = {index: [] for index in self.vifs.values()}
        self.out: dict[int, list[int]] = {index: [] for index in self.vifs.values()}
        self.steps = 0
        self.fail_at: int | None = None
        self._home: dict[int, int] = {}
        self._next = 200

    def traffic(self) -> None:
        """Each interface sends one frame; frames of one interface are numbered upwards."""
        for index, sent in self.sent.items():
            sent.append(len(sent))
            rules = sorted(self.filters[index], key=lambda each: each.priority)
            if not rules:
                self.out[index].append(sent[-1])
                continue
            ifb = self.ifbs[rules[0].redirect_to]
            self._home[ifb.link.index] = index
            if ifb.open:
                self.out[index].append(sent[-1])
            else:
                ifb.queue.append(sent[-1])
                ifb.current += 1

    def step(self, device: str) -> None:
        """Called before anything that the adapter changes or reads."""
        self.traffic()
        self.steps += 1
        if self.steps == self.fail_at:
            raise NetlinkError("fail", device, errno.ENOMEM)

    def add(self, name: str) -> Link:
        self._next += 1
        link = Link(self._next, name, "ifb", up=True, received=0, sent=0, dropped=0)
        self.ifbs[link.index] = Ifb(link)
        return link

    def let_out(self, index: int, count: int) -> None:
        ifb = self.ifbs[index]
        if index in self._home:
            self.out[self._home[index]].extend(ifb.queue[:count])
        del ifb.queue[:count]

    def held(self) -> int:
        return sum(len(ifb.queue) for ifb in self.ifbs.values())


class FakePlumbing(Plumbing):
    """Plumbing on a Kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def close(self) -> None:
        pass

    def vif_index(self, vif: Vif) -> int | None:
        return self.kernel.vifs.get(vif.device)

    def _all_links(self) -> list[tuple[Link, tuple[int, str]]]:
        self.kernel.step("all")
        owners = [(ifb.link, owner_of(ifb.link.name)) for ifb in self.kernel.ifbs.values()]
        return [(link, owner) for link, owner in owners if owner is not None]

    def filters(self, ifindex: int, device: str, *, egress: bool = False) -> list[Filter]:
        self.kernel.step(device)
        return [] if egress else list(self.kernel.filters[ifindex])

    def held(self, link: Link) -> QdiscStats:
        self.kernel.step(link.name)
        return QdiscStats("plug", 0, len(self.kernel.ifbs[link.index].queue), 0)

    def has_plug(self, link: Link) -> bool:
        self.kernel.step(link.name)
        return True

    def empty(self, link: Link) -> bool:
        return not self.held(link).held_packets

    def drain(self, link: Link, timeout: float) -> None:
        if not self.empty(link):
            raise OutputBufferError("still holds frames")

    calm = empty

    def add_ifb(self, domid: int, vif: Vif, used: list[Link], limit: int) -> Link:
        self.kernel.step(vif.device)
        return self.kernel.add(_next_name(domid, vif, used))

    def delete_link(self, link: Link) -> None:
        self.kernel.step(link.name)
        self.kernel.ifbs.pop(link.index, None)

    def ensure_ingress(self, ifindex: int, device: str) -> bool:
        self.kernel.step(device)
        new = ifindex not in self.kernel.ingress
        self.kernel.ingress.add(ifindex)
        return new

    def delete_ingress_if_unused(self, ifindex: int, device: str) -> None:
        self.kernel.step(device)
        if not self.kernel.filters[ifindex]:
            self.kernel.ingress.discard(ifindex)

    def add_redirect(self, ifindex: int, device: str, redirect: Filter) -> None:
        self.kernel.step(device)
        assert ifindex in self.kernel.ingress
        assert redirect.priority not in {each.priority for each in self.kernel.filters[ifindex]}
        self.kernel.filters[ifindex].append(redirect)

    def delete_redirect(self, ifindex: int, device: str, redirect: Filter) -> None:
        self.kernel.step(device)
        if redirect in self.kernel.filters[ifindex]:
            self.kernel.filters[ifindex].remove(redirect)


class FakePlugs(PlugSocket):
    """The plugs of a Kernel."""

    def __init__(self, kernel: Kernel, devices: list[PlugDevice]) -> None:
        self.kernel = kernel
        self.indexes = [device.ifindex for device in devices]

    def close(self) -> None:
        pass

    def _ifbs(self) -> list[Ifb]:
        self.kernel.step("plug")
        return [self.kernel.ifbs[index] for index in self.indexes]

    def buffer(self) -> None:
        for ifb in self._ifbs():
            ifb.last, ifb.current, ifb.open = ifb.current, 0, False

    def release_one(self) -> None:
        for ifb in self._ifbs():
            self.kernel.let_out(ifb.link.index, ifb.last)
            ifb.last = 0

    def release_indefinite(self) -> None:
        for ifb in self._ifbs():
            self.kernel.let_out(ifb.link.index, len(ifb.queue))
            ifb.last, ifb.current, ifb.open = 0, 0, True
