"""Guests made from the lab's own: what they boot, how they are told from each other, and how a host forgets them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pair import agent
from pair.guest import STATE
from pair.hosts import PROJECT, CommandFailed, on

IMAGE = "/var/lib/remus-lab/guest"
"""The lab guest's kernel and initial file system, on a host."""
START = PROJECT / "roles" / "xen_lab" / "files" / "assets" / "guest" / "rcS"


def start_up(last: str) -> str:
    """The lab guest's start-up with another address. last: its last part, IPv4 and IPv6, as a shell in the guest reads it."""
    return START.read_text().replace("10.77.0.100", f"10.77.0.{last}").replace("fd77::100", f"fd77::{last}")


def initial_file_system(folder: str) -> str:
    """Shell commands for a host: its standard input, a start-up, becomes part of FOLDER/initrd.img."""
    return f"""
    mkdir -p {folder}/new/etc && cd {folder}/new
    cat >etc/rcS && chmod 755 etc/rcS
    cat {IMAGE}/initrd.img >../initrd.img && truncate -s %4 ../initrd.img
    echo etc/rcS | cpio --quiet -o -H newc >>../initrd.img
    """


def forget(host: str, prefix: str, names: Sequence[str], folder: str) -> None:
    """Take guests from a host: no copy of them, nothing in the agent's memory, no FOLDER. prefix: how all of their NAMES begin,
    and those of no other guest."""
    for name in names:
        with contextlib.suppress(agent.AgentError, CommandFailed):
            agent.ask(host, "unprotect", timeout=120, domain=name, force=True)
    on(host, "systemctl stop remus-agent.service", timeout=180)
    found = f"xl list | awk '$1 ~ /{prefix}/ {{print $2}}'"
    on(host, f"{found} | xargs -r -n 1 xl destroy || true", timeout=300)  # one may have ended by itself
    on(host, f"rm -rf {folder} {STATE}/guests/{prefix}*.json {STATE}/journal/{prefix}*")
    on(host, "systemctl start remus-agent.service", timeout=180)
