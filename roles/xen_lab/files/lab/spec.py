"""Names, addresses and settings of the lab."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError

RELEASES: dict[int, str] = {12: "bookworm", 13: "trixie"}
DOM0_MIB: dict[int, int] = {12: 768, 13: 900}
HYPERVISORS: dict[str, str] = {"current": "xen", "shadow": "xen-shadow"}
"""File of each hypervisor in an image. shadow: the last one of the release that was built with shadow paging."""
WITH_SHADOW: frozenset[int] = frozenset({12})
"""Releases whose first hypervisor had shadow paging; Debian's security updates of 2026 build it without."""
KINDS = ("xen", "bare")
"""What the hosts of the pair are at first. xen: they boot Xen, without a boot loader, from an image that has everything. bare:
Debian as its installer leaves it, on a disk with GRUB; whoever wants Xen has to install it."""
GUESTS_BRIDGE = "br-guests"
REPLICATION_BRIDGE = "br-repl"
NETWORKS: dict[str, str] = {"guests": "g", "replication": "r"}
WITNESS_MIB = 512
"""Memory of the witness, where apt has to work as well."""


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One machine of the lab. ``number`` is the last byte of its addresses. ``xen``: it boots Xen, and has a guest's files
    and disk; otherwise it boots the same image's Linux alone."""

    name: str
    number: int
    xen: bool = True

    @property
    def guests_address(self) -> str:
        """IPv4 address on the guests' network."""
        return f"10.77.0.{self.number}"

    @property
    def replication_address(self) -> str:
        """IPv4 address on the replication network."""
        return f"10.78.0.{self.number}"

    def mac(self, nic: int) -> str:
        """MAC address of network card NIC (0 user-mode, 1 guests, 2 replication)."""
        return f"52:54:00:77:{self.number:02x}:{nic:02x}"

    def tap(self, network: str) -> str:
        """Name of the tap device on NETWORK inside the lab's namespace."""
        return f"{self.name}-{NETWORKS[network]}"


HOSTS: tuple[HostSpec, ...] = (HostSpec("alpha", 11), HostSpec("beta", 12))
"""The pair."""
WITNESS = HostSpec("gamma", 13, xen=False)
"""Runs only where it is asked for."""
MACHINES: tuple[HostSpec, ...] = (*HOSTS, WITNESS)


def host_named(name: str) -> HostSpec:
    """The machine called NAME."""
    for host in MACHINES:
        if host.name == name:
            return host
    known = ", ".join(host.name for host in MACHINES)
    raise LabError(f"there is no lab host {name!r}; there are: {known}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one lab was brought up with; kept in its folder, so that later commands need no options.

    memory_mib: of a Xen host; there is room for ten guests, or their copies, beside dom0 (tests/lab/test_ten_guests.py).
    processors: of a Xen host, of which dom0 has one."""

    debian: int = 13
    namespace: str = "remus-lab"
    ssh_base_port: int = 2211
    memory_mib: int = 2304
    processors: int = 1
    boot_timeout: int = 300
    hypervisor: str = "current"
    hosts: str = "xen"

    def bare(self, host: HostSpec) -> bool:
        """Whether HOST boots from its own disk; the witness never does."""
        return self.hosts == "bare" and host.xen

    def ssh_port(self, host: HostSpec) -> int:
        """Loopback port that is forwarded to HOST's ssh."""
        return self.ssh_base_port + MACHINES.index(host)

    def memory(self, host: HostSpec) -> int:
        """HOST's memory in MiB."""
        return self.memory_mib if host.xen else WITNESS_MIB


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a lab keeps its things."""

    state: Path
    cache: Path

    @classmethod
    def from_environment(cls, state: str | None = None) -> "Paths":
        """Folders named by the option, by REMUS_LAB_DIR and REMUS_LAB_CACHE, or the usual ones."""
        project = Path(__file__).resolve().parents[4]
        chosen = state or os.environ.get("REMUS_LAB_DIR") or str(project / ".lab")
        cache = os.environ.get("REMUS_LAB_CACHE")
        if not cache:
            base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
            cache = str(Path(base) / "remus-lab")
        return cls(Path(chosen).absolute(), Path(cache).absolute())

    @property
    def settings(self) -> Path:
        """File with the settings the lab was brought up with."""
        return self.state / "lab.json"

    @property
    def ssh_config(self) -> Path:
        """``ssh -F`` file for the lab's hosts."""
        return self.state / "ssh_config"

    @property
    def acceleration(self) -> Path:
        """File that says how the lab's hosts were started: kvm, or emulation."""
        return self.state / "acceleration"

    @property
    def key(self) -> Path:
        """Private key that the hosts accept for root."""
        return self.state / "id_ed25519"

    def host(self, host: HostSpec) -> Path:
        """Folder with HOST's disk, console and pid file."""
        return self.state / host.name


def load_settings(paths: Paths) -> Settings | None:
    """Settings of the lab in PATHS, or None when it was never brought up (or was taken down)."""
    try:
        values: dict[str, Any] = json.loads(paths.settings.read_text())
    except FileNotFoundError:
        return None
    return Settings(**values)


def save_settings(paths: Paths, settings: Settings) -> None:
    """Keep SETTINGS for later commands."""
    paths.state.mkdir(parents=True, exist_ok=True)
    temporary = paths.settings.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(settings), indent=2) + "\n")
    temporary.replace(paths.settings)
