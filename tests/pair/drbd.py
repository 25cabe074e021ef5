"""A DRBD device over both hosts, with the tools and the kernel module of DRBD 8.4 alone: no configuration files, no drbdadm.

Metadata is external, so that the lower devices hold the data only and can be compared as they are."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pair import bundle
from pair.hosts import ADDRESSES, HOSTS, CommandFailed, on, on_both
from pair.wait import until

SETUP, META = "/lib/drbd/drbdsetup-84", "/usr/sbin/drbdmeta"
FOLDER = "/var/lib/remus-test-drbd"
RESOURCE, MINOR, PORT = "remus-test", 7, 7799
DEVICE = f"/dev/drbd{MINOR}"
METADATA_MIB = 4
FAST = "--resync-rate=40M --c-plan-ahead=0"
"""A resync as fast as it can be, not one that gives way."""


@dataclass(frozen=True, slots=True)
class State:
    """What DRBD says of itself. connection: `cs`; disks: its own and its peer's; dirty: KiB that it believes to differ."""

    connection: str
    disks: str
    dirty: int


def setup(host: str, words: str, timeout: float = 60) -> str:
    """Output of drbdsetup on a host."""
    return on(host, f"{bundle.command(FOLDER, SETUP)} {words}", timeout=timeout)


def state(host: str) -> State:
    """From /proc/drbd."""
    text = on(host, "cat /proc/drbd")
    lines = re.search(rf"^\s*{MINOR}: cs:(\S+).*? ds:(\S+).*?\n.*? oos:(\d+)", text, re.MULTILINE)
    if lines is None:
        raise CommandFailed(f"{host} has no DRBD device {MINOR}:\n{text}")
    return State(lines[1], lines[2], int(lines[3]))


def loop(host: str, file: str, mib: int) -> str:
    """A loop device over a file without holes, like all that it is compared with."""
    on(
        host,
        f"mkdir -p {FOLDER} && modprobe loop && dd if=/dev/zero of={file} bs=1M count={mib} status=none",
        timeout=300,
    )
    return on(host, f"losetup --find --show --direct-io=on {file}").strip()


def unloop(host: str, file: str) -> None:
    """The opposite; nothing to do is fine."""
    on(host, f"losetup -j {file} -O NAME -n | xargs -r -n 1 losetup -d; rm -f {file}")


def connect() -> None:
    """Both ends look for each other, with protocol C."""
    for host, peer in (HOSTS, HOSTS[::-1]):
        mine, theirs = (f"ipv4:{ADDRESSES[each]}:{PORT}" for each in (host, peer))
        setup(host, f"connect {RESOURCE} {mine} {theirs} --protocol=C")


def disconnect(host: str, *, force: bool = False) -> None:
    """One end hangs up."""
    peer = HOSTS[1 - HOSTS.index(host)]
    mine, theirs = (f"ipv4:{ADDRESSES[each]}:{PORT}" for each in (host, peer))
    setup(host, f"disconnect {mine} {theirs}{' --force' if force else ''}")


def speak(protocol: str) -> None:
    """The connection goes on with another protocol."""
    for host, peer in (HOSTS, HOSTS[::-1]):
        mine, theirs = (f"ipv4:{ADDRESSES[each]}:{PORT}" for each in (host, peer))
        setup(host, f"net-options {mine} {theirs} --protocol={protocol}")


def wait_connected(timeout: float = 120, host: str = HOSTS[0]) -> State:
    """Until both are connected and neither believes that it lacks something, as one host sees it."""
    return until(
        "DRBD is connected and in sync",
        lambda: state(host),
        lambda seen: (seen.connection, seen.disks) == ("Connected", "UpToDate/UpToDate"),
        timeout=timeout,
        passing=(CommandFailed,),
    )


def _down(host: str) -> None:
    down = f"{bundle.command(FOLDER, SETUP)} down {RESOURCE}"

    def gone() -> bool:
        on(host, f"if [ -e /proc/drbd ]; then {down} || true; fi", timeout=180)
        return not on(host, f"grep -s '^ *{MINOR}: cs:' /proc/drbd | grep -v Unconfigured || true").strip()

    # It may refuse while the other end goes down as well.
    until(f"DRBD on {host} is down", gone, timeout=60)
    unloop(host, f"{FOLDER}/metadata")
    on(host, f"rm -rf {FOLDER}; modprobe -r drbd 2>/dev/null || true")


@contextlib.contextmanager
def mirror(lower: Mapping[str, str]) -> Iterator[None]:
    """DEVICE on both hosts, primary on the first one, over these lower devices, which hold the same bytes."""
    archive = bundle.packed(SETUP, META)

    def attach(host: str) -> None:
        on(host, "modprobe drbd")
        bundle.unpack(host, FOLDER, archive)
        metadata = loop(host, f"{FOLDER}/metadata", METADATA_MIB)
        on(host, f"{bundle.command(FOLDER, META)} --force {MINOR} v08 {metadata} flex-external create-md 2>&1")
        setup(host, f"new-resource {RESOURCE}")
        setup(host, f"new-minor {RESOURCE} {MINOR} 0")
        setup(host, f"attach {MINOR} {lower[host]} {metadata} flexible {FAST}")

    try:
        on_both(attach)
        connect()
        until("both ends of DRBD see each other", lambda: state(HOSTS[0]).connection, "Connected".__eq__, timeout=60)
        setup(HOSTS[0], f"new-current-uuid {MINOR} --clear-bitmap")
        wait_connected()
        setup(HOSTS[0], f"primary {MINOR}")
        yield
    finally:
        on_both(_down)
