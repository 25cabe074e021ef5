"""Many small guests beside each other, made from the lab's own: names, addresses and interfaces of their own, no disks."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pair.guest import create
from pair.hosts import HOSTS, on, on_both
from pair.made_guests import IMAGE, forget, initial_file_system, start_up

PREFIX = "small"
MEMORY_MIB = 96
FOLDER = "/var/lib/remus-small-guests"
OWN_ADDRESS = "$(sed -n 's/.*remus_test_guest=\\([0-9]*\\).*/\\1/p' /proc/cmdline)"
"""The last part of it, which the guest's start-up takes from the kernel's command line."""


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
            on(host, f"set -e; {initial_file_system(FOLDER)}", stdin=start_up(OWN_ADDRESS), timeout=300)
        for guest in guests:
            on(guest.home, f"sed {shlex.quote(guest.edits())} {IMAGE}/redis1-pvh.cfg >{guest.configuration}")
            create(guest.home, guest.configuration, 300, name=guest.name)
        yield guests
    finally:
        on_both(lambda host: forget(host, PREFIX, [guest.name for guest in guests], FOLDER))
