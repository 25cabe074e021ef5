"""Where the guest runs, and the way back to a defined state."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass

from pair import agent, redis
from pair.hosts import GUEST, HOSTS, CommandFailed, heal_links, on, on_both, powered, run
from pair.wait import until

STATE = "/var/lib/remus"
TYPE = os.environ.get("LAB_GUEST") or "pvh"
"""The type of guest that this run is about: pvh, hvm or pv."""
CONFIGURATION = f"/etc/xen/{GUEST}-{TYPE}.cfg"
WITH_DISK = f"/etc/xen/{GUEST}-{TYPE}-disk.cfg"
"""The same guest with PostgreSQL on a disk."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One domain that is, or may become, the guest. state: `xl list`'s letters."""

    host: str
    name: str
    domid: int
    state: str

    @property
    def runs(self) -> bool:
        """Whether it executes: not paused, not suspended, not dead."""
        return not set(self.state) & set("psdc")


def copies(host: str) -> list[Copy]:
    """Domains of the guest on a host: itself and what a toolstack builds for it (`redis1--incoming`, ...)."""
    found = []
    for line in on(host, "xl list").splitlines()[1:]:
        name, domid, _, _, state, _ = line.split()
        if GUEST in name:
            found.append(Copy(host, name, int(domid), state))
    return found


def kind(copy: Copy) -> str:
    """Its type, as the toolstack calls it."""
    return on(copy.host, f"xenstore-read /libxl/{copy.domid}/type").strip()


def running_copies() -> list[Copy]:
    """Copies that execute, over all hosts that are on."""
    return [copy for host in HOSTS if powered(host) for copy in copies(host) if copy.runs]


def answers(address: str = redis.HOST) -> bool:
    """Whether the guest's Redis answers. address: another guest's."""
    try:
        said = run(redis.command("ping", seconds=5, host=address))
    except CommandFailed:
        return False
    return said.strip() == "PONG"


def console(host: str, name: str) -> str:
    """The end of what a guest has said on its console."""
    return on(host, f"tail -n 60 /var/log/xen/console/guest-{name}.log 2>/dev/null || true")


def forget(host: str) -> None:
    """Take the guest from a host: no copy of it, nothing in the agent's memory. For the lab only."""
    with contextlib.suppress(agent.AgentError, CommandFailed):
        agent.ask(host, "unprotect", timeout=120, domain=GUEST, force=True)
    on(host, "systemctl stop remus-agent.service 2>/dev/null || true", timeout=180)
    for copy in copies(host):
        on(host, f"xl destroy {copy.domid} || true", timeout=180)  # it may have ended by itself
    on(host, f"rm -rf {STATE}/guests/{GUEST}.json {STATE}/journal/{GUEST}* {STATE}/disks/remus-{GUEST}-*.role")
    on(
        host,
        "if systemctl cat remus-disks.service >/dev/null 2>&1; then systemctl restart remus-disks.service; fi",
        timeout=180,
    )
    on(
        host,
        "if systemctl cat remus-agent.service >/dev/null 2>&1; then systemctl start remus-agent.service; fi",
        timeout=180,
    )


def come_home(host: str = "alpha", timeout: float = 300, configuration: str = CONFIGURATION) -> None:
    """The guest fresh on HOST, on no other host, protected by nobody; all links whole."""
    heal_links()
    on_both(forget)
    create(host, configuration, timeout)
    until("the guest answers", answers, timeout=timeout)


def create(host: str, configuration: str, timeout: float, *, name: str = GUEST) -> None:
    """Start a guest. The toolstack gives up after 10 s without an answer of a backend and 40 s without one of a hotplug script,
    which a busy emulated host can miss: then once more, and it is said."""
    try:
        on(host, f"xl create -q {configuration}", timeout=timeout)
    except CommandFailed as error:
        sys.stderr.write(f"RETRIED: {error}\n")
        on(host, f"xl destroy {name} 2>/dev/null || true; xl create -q {configuration}", timeout=timeout)


def ensure_running(host: str = "alpha", timeout: float = 300) -> None:
    """The guest of this run's type runs on HOST (left alone when it does) and answers."""
    if not any(copy.name == GUEST and copy.runs and kind(copy) == TYPE for copy in copies(host)):
        come_home(host, timeout)
    until("the guest answers", answers, timeout=timeout)
