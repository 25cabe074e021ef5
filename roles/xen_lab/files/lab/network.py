"""The lab's network namespace: two bridges, and an nftables table that cuts links.

The namespace belongs to a lab when the lab's folder holds the namespace's device and inode. One of another lab that
nobody uses is what a lab leaves whose processes were all killed; it is replaced. Links are cut by interface name, so a
cut stays in force while the host behind it is restarted. A host's cable is cut at its tap, the link between two hosts in
the bridge.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from lab.command import run
from lab.errors import LabError
from lab.progress import Progress
from lab.spec import GUESTS_BRIDGE, MACHINES, NETWORKS, REPLICATION_BRIDGE, HostSpec, Paths, host_named
from lab.taps import namespace_path

TABLE = "remus_lab"
RULES = f"""
table bridge {TABLE} {{
    set from_host {{ type ifname; }}
    set to_host {{ type ifname; }}
    set between {{ type ifname . ifname; }}
    chain incoming {{ type filter hook prerouting priority -300; iifname @from_host counter drop; }}
    chain across {{ type filter hook forward priority 0; iifname . oifname @between counter drop; }}
    chain outgoing {{ type filter hook postrouting priority 300; oifname @to_host counter drop; }}
}}
"""
BRIDGES = f"""
link set lo up
link add name {GUESTS_BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set {GUESTS_BRIDGE} address 52:54:00:77:01:00
address add 10.77.0.1/24 dev {GUESTS_BRIDGE}
address add fd77::1/64 dev {GUESTS_BRIDGE} nodad
link set {GUESTS_BRIDGE} up
link add name {REPLICATION_BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set {REPLICATION_BRIDGE} address 52:54:00:77:01:01
link set {REPLICATION_BRIDGE} addrgenmode none
link set {REPLICATION_BRIDGE} up
"""
OWN_LINKS = {"lo", GUESTS_BRIDGE, REPLICATION_BRIDGE}
DOT = '" . "'
DIRECTIONS: dict[str, tuple[str, ...]] = {
    "both": ("from_host", "to_host"),
    "out": ("from_host",),
    "in": ("to_host",),
}


@dataclass(frozen=True, slots=True)
class Network:
    """The network of one lab."""

    paths: Paths
    namespace: str

    @property
    def _record(self) -> Path:
        return self.paths.state / "network.json"

    def _identity(self) -> dict[str, int] | None:
        try:
            stat = namespace_path(self.namespace).stat()
        except FileNotFoundError:
            return None
        return {"device": stat.st_dev, "inode": stat.st_ino}

    def _ours(self) -> bool:
        try:
            known = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return False
        return bool(known == self._identity())

    def exists(self) -> bool:
        """Whether this lab's own namespace is there."""
        return self._identity() is not None and self._ours()

    def ip(self, *words: str) -> str:
        """Output of ``ip`` inside the namespace."""
        return run(["ip", "-n", self.namespace, *words])

    def _nft(self, script: str) -> None:
        run(["ip", "netns", "exec", self.namespace, "nft", "-f", "-"], stdin=script)

    def _in_use(self) -> bool:
        """Whether the namespace has a host's tap, which lasts as long as its QEMU, or any process."""
        links = {link["ifname"] for link in json.loads(self.ip("-j", "link", "show"))}
        return bool(links - OWN_LINKS or run(["ip", "netns", "pids", self.namespace]).strip())

    def ensure(self, say: Progress) -> bool:
        """Make the namespace with its bridges; True when it had to be made."""
        if self.exists():
            return False
        if self._identity() is not None:
            if self._in_use():
                raise LabError(
                    f"there is a network namespace {self.namespace} that this lab ({self.paths.state}) did not make, "
                    f"and it is in use; take the other lab down first (make lab-down in its checkout)"
                )
            say(f"replacing network namespace {self.namespace}, which another lab left and nobody uses")
            run(["ip", "netns", "delete", self.namespace])
        self.paths.state.mkdir(parents=True, exist_ok=True)
        run(["ip", "netns", "add", self.namespace])
        try:
            run(["ip", "-n", self.namespace, "-batch", "-"], stdin=BRIDGES)
            self._nft(RULES)
        except LabError:
            run(["ip", "netns", "delete", self.namespace], check=False)
            raise
        self._record.write_text(json.dumps(self._identity()) + "\n")
        return True

    def remove(self) -> bool:
        """Remove the namespace when it is this lab's; True when it was there."""
        present = self.exists()
        if present:
            run(["ip", "netns", "delete", self.namespace])
        self._record.unlink(missing_ok=True)
        return present

    def plug(self, host: HostSpec) -> None:
        """Connect HOST's two taps to their bridges."""
        for network in NETWORKS:
            bridge = GUESTS_BRIDGE if network == "guests" else REPLICATION_BRIDGE
            tap = host.tap(network)
            self.ip("link", "set", tap, "addrgenmode", "none")
            self.ip("link", "set", tap, "master", bridge, "up")

    def cuts(self) -> dict[str, list[str]]:
        """What is cut, by set: taps whose frames are dropped in ``from_host`` and ``to_host``, and in ``between`` the two taps of
        each link, as ``FROM . TO``."""
        text = run(["ip", "netns", "exec", self.namespace, "nft", "-j", "list", "table", "bridge", TABLE])
        return parse_cuts(text)

    def change_link(self, network: str, host: str | None, direction: str, cut: bool, peer: str | None = None) -> bool:
        """Cut or heal NETWORK for HOST (or all) in DIRECTION as the host sees it, only to and from PEER where one is named; True
        when that is new. Healing a cable heals the links of that host, too."""
        if not self.exists():
            raise LabError("the lab has no network; bring it up first")
        before = self.cuts()
        wanted = elements(network, host, direction, peer)
        if not cut and peer is None:
            wanted["between"] = links_of(before.get("between", []), wanted)
        elif "between" in wanted and "between" not in before:
            raise LabError(
                "this lab was brought up by an older labctl, which could not cut single links; take it down and up"
            )
        verb = "add" if cut else "delete"
        script = [
            f'{verb} element bridge {TABLE} {name} {{ "{text.replace(" . ", DOT)}" }}'
            for name, texts in wanted.items()
            for text in texts
            if (text in before[name]) != cut
        ]
        if script:
            self._nft("\n".join(script) + "\n")
        return bool(script)


def parse_cuts(text: str) -> dict[str, list[str]]:
    """The sets in nft's JSON, each with its elements."""
    found: dict[str, list[str]] = {}
    for item in json.loads(text)["nftables"]:
        if "set" in item:
            names = [one if isinstance(one, str) else " . ".join(one["concat"]) for one in item["set"].get("elem", [])]
            found[item["set"]["name"]] = sorted(names)
    return found


def elements(network: str, host: str | None, direction: str, peer: str | None) -> dict[str, list[str]]:
    """Elements, by set, that stand for a cut of NETWORK; the parameters are those of ``change_link``."""
    sides = DIRECTIONS[direction]
    if peer is None:
        return {side: [spec.tap(network) for spec in MACHINES if host in (None, spec.name)] for side in sides}
    if host is None or host == peer:
        raise LabError("--peer needs another HOST before it: cut NETWORK HOST --peer PEER")
    own, other = host_named(host).tap(network), host_named(peer).tap(network)
    links = {"from_host": f"{own} . {other}", "to_host": f"{other} . {own}"}
    return {"between": [links[side] for side in sides]}


def links_of(links: list[str], cables: dict[str, list[str]]) -> list[str]:
    """Those of the cut LINKS that leave or enter a host by CABLES."""
    leave, enter = set(cables.get("from_host", [])), set(cables.get("to_host", []))
    ends = {link: link.split(" . ") for link in links}
    return [link for link, (first, last) in ends.items() if first in leave or last in enter]
