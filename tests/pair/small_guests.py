"""Many small guests beside each other, made from the lab's own: names, addresses and interfaces of their own, no disks."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pair import agent
from pair.guest import STATE
from pair.hosts import HOSTS, PROJECT, CommandFailed, on, on_both

PREFIX = "small"
MEMORY_MIB = 96
FOLDER = "/var/lib/remus-small-guests"
IMAGE = "/var/lib/remus-lab/guest"
"""The lab guest's kernel and initial file system."""
START = PROJECT / "roles" / "xen_lab" / "files" / "assets" / "guest" / "rcS"
OWN_ADDRESS = "$(sed -n 's/.*remus_test_guest=\\([0-9]*\\).*/\\1/p' /proc/cmdline)"
"""The last part of it, as the guest's start-up finds it."""


@dataclass(frozen=True, slots=True)
class SmallGuest:
    """One of them. number: from 0 on. home: the host where it is started."""

    number: int
    home: str

    @property
    def name(self) -> str:
        """What Xen calls it."""
        return f"{PREFIX}{self.number}"

    @property
    def address(self) -> str:
        """Where its Redis answers."""
        return f"10.77.0.{self._last}"

    @property
    def peer(self) -> str:
        """The other host."""
        return next(host for host in HOSTS if host != self.home)

    @property
    def configuration(self) -> str:
        """Its xl.cfg, from that of the lab's PVH guest."""
        return f"{FOLDER}/{self.name}.cfg"

    @property
    def _last(self) -> int:
        return 110 + self.number

    def edits(self) -> str:
        """A sed program that makes its configuration of the lab guest's."""
        changes = {
            "^name = .*": f'name = "{self.name}"',
            "^ramdisk = .*": f'ramdisk = "{FOLDER}/initrd.img"',
            "^memory = .*": f"memory = {MEMORY_MIB}",
            "^maxmem = .*": f"maxmem = {MEMORY_MIB}",
            "mac=[0-9a-f:]*": f"mac=00:16:3e:77:00:{self._last:02x}",
            '^extra = "': f'extra = "remus_test_guest={self._last} ',
        }
        return "; ".join(f"s|{old}|{new}|" for old, new in changes.items())


@contextlib.contextmanager
def small_guests(count: int) -> Iterator[Sequence[SmallGuest]]:
    """COUNT of them, unprotected, every other one on the second host; afterwards none."""
    guests = [SmallGuest(number, HOSTS[number % 2]) for number in range(count)]
    try:
        for host in HOSTS:
            _prepare(host)
        for guest in guests:
            made = f"sed {shlex.quote(guest.edits())} {IMAGE}/redis1-pvh.cfg >{guest.configuration}"
            on(guest.home, f"set -e; {made}; xl create -q {guest.configuration}", timeout=300)
        yield guests
    finally:
        on_both(lambda host: _forget(host, guests))


def _prepare(host: str) -> None:
    """The start-up that asks the kernel's command line for its address."""
    start = (
        START.read_text().replace("10.77.0.100", f"10.77.0.{OWN_ADDRESS}").replace("fd77::100", f"fd77::{OWN_ADDRESS}")
    )
    script = f"""
    mkdir -p {FOLDER}/new/etc && cd {FOLDER}/new
    cat >etc/rcS && chmod 755 etc/rcS
    cat {IMAGE}/initrd.img >../initrd.img && truncate -s %4 ../initrd.img
    echo etc/rcS | cpio --quiet -o -H newc >>../initrd.img
    """
    on(host, f"set -e; {script}", stdin=start, timeout=300)


def _forget(host: str, guests: Sequence[SmallGuest]) -> None:
    for guest in guests:
        with contextlib.suppress(agent.AgentError, CommandFailed):
            agent.ask(host, "unprotect", timeout=120, domain=guest.name, force=True)
    on(host, "systemctl stop remus-agent.service", timeout=180)
    on(host, f"xl list | awk '$1 ~ /{PREFIX}/ {{print $2}}' | xargs -r -n 1 xl destroy", timeout=300)
    on(host, f"rm -rf {FOLDER} {STATE}/guests/{PREFIX}*.json {STATE}/journal/{PREFIX}*")
    on(host, "systemctl start remus-agent.service", timeout=180)
