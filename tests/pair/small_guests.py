"""Many small guests beside each other, made from the lab's own: names, addresses and interfaces of their own, no disks."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pair.guest import answers, console, create
from pair.hosts import HOSTS, CommandFailed, on, on_both
from pair.made_guests import IMAGE, forget, initial_file_system, start_up
from pair.wait import TooLate, until

PREFIX = "small"
MEMORY_MIB = 128
"""As the lab's own guest. Its kernel takes 56 of them, and its initial file system may have half of what is left, which is just
enough; with 96 it does not boot."""
XEN_MIB = 3
"""What Xen needs of a host's memory for each guest besides, and for each copy."""
AGENTS_MIB = 24
"""What an agent wants to be free besides, for each copy that it takes in (`services.examine`)."""
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


def memory_needed(count: int) -> int:
    """MiB that a host has to have free, so that COUNT of them, or copies of them, can be there together."""
    return count * (MEMORY_MIB + XEN_MIB) + AGENTS_MIB


@contextlib.contextmanager
def small_guests(count: int) -> Iterator[Sequence[SmallGuest]]:
    """COUNT of them, unprotected, every other one on the second host; afterwards none. All of them answer: one that is still
    booting cannot be asked to suspend, so that nobody may protect it."""
    guests = [SmallGuest(number, HOSTS[number % 2]) for number in range(count)]

    def start(host: str) -> None:
        """One after the other: a host that boots several guests at once has no time for the devices of the next one."""
        free = int(on(host, "xl info free_memory"))
        if free < memory_needed(count):
            raise CommandFailed(
                f"{host} has {free} MiB for guests, and {memory_needed(count)} are needed: take the lab down and bring it up"
                " with more (xen_lab_memory)"
            )
        on(host, f"set -e; {initial_file_system(FOLDER)}", stdin=start_up(OWN_ADDRESS), timeout=300)
        for guest in (guest for guest in guests if guest.home == host):
            on(host, f"sed {shlex.quote(guest.edits())} {IMAGE}/redis1-pvh.cfg >{guest.configuration}")
            create(host, guest.configuration, 300, name=guest.name)
            try:
                until(f"{guest.name} answers", functools.partial(answers, guest.address), timeout=300)
            except TooLate as error:
                raise CommandFailed(f"{error}\nIts console:\n{console(host, guest.name)}") from error

    try:
        on_both(start)
        yield guests
    finally:
        on_both(lambda host: forget(host, PREFIX, [guest.name for guest in guests], FOLDER))
