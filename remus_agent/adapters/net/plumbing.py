"""Steps of laying and lifting the plumbing of one interface: IFB, plug, ingress qdisc, filter. Synchronous.

    guest -> vif (ingress: matchall, all protocols, mirred redirect) -> IFB (root: plug) -> back to the vif ->
    bridge

A missing kernel module is told by its name. An IFB is named `rb<domid>.<devid>.<number>`, with an `e` behind
the devid for an emulated interface, so that an agent that starts anew finds what an earlier one left.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Collection
from typing import Final

from remus_agent.adapters.net.netlink import Netlink, NetlinkError
from remus_agent.errors import OutputBufferError
from remus_agent.ports import Vif
from remus_agent.protocol import plug, rtnl
from remus_agent.protocol.rtnl import Filter, Link, QdiscStats

_FIRST_PRIORITY: Final = 10
_LAST_PRIORITY: Final = 0xFFF0
_NUMBERS: Final = 1000
_NAME_LENGTH: Final = 15
_NAME: Final = re.compile(r"rb(?P<domid>0|[1-9][0-9]*)\.(?P<port>(0|[1-9][0-9]*)e?)\.(0|[1-9][0-9]{0,2})", re.ASCII)
_POLL: Final = 0.001
_CALM_POLLS: Final = 2
_MISSING: Final = {errno.ENOENT, errno.EOPNOTSUPP}
_GONE: Final = {errno.ENODEV, errno.ENOENT, errno.EINVAL}


class Plumbing:
    """The plumbing on this host, through one netlink socket."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Safe to call twice."""
        self._netlink.close()

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────

    def vif_index(self, vif: Vif) -> int | None:
        """The ifindex of a guest's interface; None when it is gone."""
        return self._index(vif.device) if len(vif.device) <= _NAME_LENGTH else None

    def _index(self, name: str) -> int | None:
        """None where there is no such interface. C's `if_nametoindex` needs a descriptor for that, and Python's does not say why
        it failed."""
        try:
            bodies = self._netlink.ask(rtnl.link_find(name), rtnl.RTM_NEWLINK, "find the interface", name)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return rtnl.parse_link(bodies[0]).index

    def own_links(self, domid: int, vif: Vif) -> list[Link]:
        """The IFBs of an interface, oldest first."""
        return [link for link, owner in self._all_links() if owner == (domid, _port(vif))]

    def links_without(self, domids: Collection[int]) -> list[Link]:
        """The IFBs of domains that are none of these."""
        return [link for link, (domid, _) in self._all_links() if domid not in domids]

    def _all_links(self) -> list[tuple[Link, tuple[int, str]]]:
        """Every IFB that is ours, by kind and by name, with the domain and the port that its name says, oldest first."""
        bodies = self._netlink.ask(rtnl.links_dump(), rtnl.RTM_NEWLINK, "list interfaces", "all")
        links = sorted((rtnl.parse_link(body) for body in bodies), key=lambda link: link.index)
        owners = [(link, owner_of(link.name)) for link in links if link.kind == "ifb"]
        return [(link, owner) for link, owner in owners if owner is not None]

    def filters(self, ifindex: int, device: str, *, egress: bool = False) -> list[Filter]:
        """The filters on an interface; none when it has no ingress qdisc or is gone."""
        try:
            request = rtnl.filters_dump(ifindex, egress=egress)
            bodies = self._netlink.ask(request, rtnl.RTM_NEWTFILTER, "list filters", device)
        except NetlinkError as error:
            if error.errno in _GONE:
                return []
            raise
        return [found for body in bodies if (found := rtnl.parse_filter(body)) is not None]

    def held(self, link: Link) -> QdiscStats:
        """What the plug of an IFB holds."""
        root = self._root(link)
        if root is None or root.kind != "plug":
            raise OutputBufferError(
                f"{link.name}: its root qdisc is {'none' if root is None else root.kind}, not plug",
                operation="read the plug",
                hint="another program changed the interface; protect the guest again",
            )
        return root

    def has_plug(self, link: Link) -> bool:
        """False for an IFB that an agent was killed over before it had put the plug on."""
        root = self._root(link)
        return root is not None and root.kind == "plug"

    def _root(self, link: Link) -> QdiscStats | None:
        try:
            request = rtnl.qdisc_get(link.index)
            bodies = self._netlink.ask(request, plug.RTM_NEWQDISC, "read the plug", link.name)
        except NetlinkError as error:
            if error.errno in {errno.ENOENT, errno.EINVAL}:
                return None
            raise
        return rtnl.parse_qdisc(bodies[0]) if bodies else None

    def empty(self, link: Link) -> bool:
        """Whether nothing is on its way through an IFB: no frame in the plug and none between plug and
        bridge."""
        if self.held(link).held_packets:
            return False
        bodies = self._netlink.ask(rtnl.link_get(link.index), rtnl.RTM_NEWLINK, "read counters", link.name)
        return all(now.received <= now.sent + now.dropped for now in (rtnl.parse_link(body) for body in bodies))

    def drain(self, link: Link, timeout: float) -> None:
        """Wait until nothing is on its way through an IFB. timeout: seconds."""
        deadline = time.monotonic() + timeout
        calm = 0
        while calm < _CALM_POLLS:
            calm = calm + 1 if self.empty(link) else 0
            if calm < _CALM_POLLS:
                if time.monotonic() > deadline:
                    raise OutputBufferError(
                        f"{link.name} still holds frames {timeout:g} s after it was opened",
                        operation="wait for the backlog",
                        left=f"{link.name} is open and still there",
                        hint=f"see `tc -s qdisc show dev {link.name}`, then try again",
                    )
                time.sleep(_POLL)

    def calm(self, link: Link) -> bool:
        """Whether an IFB is empty, seen twice a millisecond apart (a frame may be between two counters)."""
        if not self.empty(link):
            return False
        time.sleep(_POLL)
        return self.empty(link)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────

    def add_ifb(self, domid: int, vif: Vif, used: list[Link], limit: int) -> Link:
        """A new IFB, up, with a closed plug."""
        name = _next_name(domid, vif, used)
        try:
            self._netlink.do(rtnl.ifb_add(name), "make an IFB", name)
        except NetlinkError as error:
            raise _with_module(error, "ifb") from error
        index = self._index(name)
        if index is None:
            raise NetlinkError("make an IFB", name, errno.ENODEV)
        link = Link(index, name, "ifb", up=False, received=0, sent=0, dropped=0)
        try:
            self._furnish(link, limit)
        except OutputBufferError:
            self.delete_link(link)
            raise
        return link

    def _furnish(self, link: Link, limit: int) -> None:
        try:
            self._netlink.do(bytearray(plug.create(link.index, limit)), "put a plug", link.name)
        except NetlinkError as error:
            raise _with_module(error, "sch_plug") from error
        try:
            request = rtnl.link_without_ipv6_address(link.index)
            self._netlink.do(request, "switch IPv6 addresses off", link.name)
        except NetlinkError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL}:
                raise  # those three: dom0 has no IPv6, which is as good
        self._netlink.do(rtnl.link_up(link.index), "set up", link.name)

    def delete_link(self, link: Link) -> None:
        """Delete an IFB with whatever it holds; fine if it is gone."""
        try:
            self._netlink.do(rtnl.link_delete(link.index), "delete the IFB", link.name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise

    def ensure_ingress(self, ifindex: int, device: str) -> bool:
        """Give an interface a qdisc for ingress filters; False when it had one."""
        try:
            self._netlink.do(rtnl.clsact_add(ifindex), "add the ingress qdisc", device)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                return False
            raise _with_module(error, "sch_ingress") from error
        return True

    def delete_ingress_if_unused(self, ifindex: int, device: str) -> None:
        """Take the ingress qdisc away unless other filters are on it; fine if it is gone."""
        if self.filters(ifindex, device) or self.filters(ifindex, device, egress=True):
            return
        try:
            self._netlink.do(rtnl.clsact_delete(ifindex), "delete the ingress qdisc", device)
        except NetlinkError as error:
            if error.errno not in _GONE:
                raise

    def add_redirect(self, ifindex: int, device: str, redirect: Filter) -> None:
        """Attach the filter."""
        request = rtnl.redirect_add(ifindex, redirect.priority, redirect.protocol, redirect.redirect_to)
        try:
            self._netlink.do(request, "attach the redirect", device)
        except NetlinkError as error:
            said = error.said.lower()
            modules = "cls_matchall" if "classifier" in said else "act_mirred" if "action" in said else None
            raise _with_module(error, modules or "cls_matchall or act_mirred") from error

    def delete_redirect(self, ifindex: int, device: str, redirect: Filter) -> None:
        """Take a filter away; fine if it is gone."""
        request = rtnl.filter_delete(ifindex, redirect.priority, redirect.protocol)
        try:
            self._netlink.do(request, "take the redirect away", device)
        except NetlinkError as error:
            if error.errno not in _GONE:
                raise


def next_priority(own: list[Filter]) -> int:
    """The priority of a redirect that is to follow others: behind them, so that it takes over only when they
    are deleted."""
    if not own:
        return _FIRST_PRIORITY
    last = max(each.priority for each in own)
    return last + 1 if last < _LAST_PRIORITY else _FIRST_PRIORITY


def owner_of(name: str) -> tuple[int, str] | None:
    """(domid, port) that the name of one of our IFBs says; None for any other name."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found["domid"]), found["port"])


def _port(vif: Vif) -> str:
    return f"{vif.devid}{'e' if vif.emulated else ''}"


def _prefix(domid: int, vif: Vif) -> str:
    return f"rb{domid}.{_port(vif)}."


def _next_name(domid: int, vif: Vif, used: list[Link]) -> str:
    prefix = _prefix(domid, vif)
    numbers = {int(link.name.removeprefix(prefix)) for link in used}
    start = int(used[-1].name.removeprefix(prefix)) + 1 if used else 0
    for step in range(_NUMBERS):
        number = (start + step) % _NUMBERS
        name = f"{prefix}{number}"
        if number not in numbers and len(name) <= _NAME_LENGTH:
            return name
    raise OutputBufferError(
        f"no name of {_NAME_LENGTH} characters is left for an IFB of {vif.device}",
        operation="make an IFB",
        hint=f"see `ip link | grep {prefix}` for IFBs left behind, or give the interface a lower number",
    )


def _with_module(error: NetlinkError, module: str) -> OutputBufferError:
    if error.errno not in _MISSING:
        return error
    return OutputBufferError(
        f"{error.device}: dom0's kernel has no module {module} ({error.said or error.message})",
        operation=error.operation,
        left="the interface is as it was",
        hint=f"run `modprobe {module.split(' ', maxsplit=1)[0]}` in dom0; if there is no such module, "
        "boot the distribution's own kernel",
    )
