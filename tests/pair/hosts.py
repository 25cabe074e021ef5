"""labctl, and commands on a host over ssh."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pair.wait import SLOWEST

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parents[2]
LABCTL = PROJECT / "roles" / "xen_lab" / "files" / "labctl"
HOSTS = ("alpha", "beta")
GUEST = "redis1"
REDIS = "10.77.0.100:6379"
POSTGRESQL = "10.77.0.100:5432"
ADDRESSES = {"alpha": "10.78.0.11", "beta": "10.78.0.12"}
"""Addresses on the replication network."""


class CommandFailed(Exception):
    """A command did not do what it was asked; the message has what it said."""


def run(words: Sequence[str], *, stdin: str = "", timeout: float = 120) -> str:
    """Output of a command on this machine. timeout: seconds, see SLOWEST. Raises CommandFailed with both of its outputs.

    Each has a standard input of its own: ssh makes the one it is given non-blocking, which Ansible beside it refuses."""
    shown = shlex.join(words)
    timeout *= SLOWEST
    try:
        done = subprocess.run(
            words, input=stdin, text=True, capture_output=True, timeout=timeout, check=False, cwd=PROJECT
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"no end after {timeout:.0f} s: {shown}") from error
    if done.returncode != 0:
        said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}".strip()
        raise CommandFailed(f"status {done.returncode}: {shown}\n{said}")
    return done.stdout


def labctl(*words: str, timeout: float = 900) -> str:
    """Output of a labctl command."""
    return run([sys.executable, str(LABCTL), *words], timeout=timeout)


def heal_links() -> None:
    """All links of the lab are whole."""
    labctl("heal", "replication")
    labctl("heal", "guests")


def in_namespace(*words: str) -> list[str]:
    """The command line that runs WORDS in the lab's network namespace."""
    return [sys.executable, str(LABCTL), "exec", "--", *words]


def ssh_config() -> Path:
    """`ssh -F` file of the lab."""
    state = os.environ.get("REMUS_LAB_DIR")
    return Path(state or PROJECT / ".lab") / "ssh_config"


def over_ssh(host: str, command: str) -> list[str]:
    """The command line that runs a shell command on a lab host."""
    return ["ssh", "-F", str(ssh_config()), "-o", "BatchMode=yes", host, command]


def on(host: str, command: str, *, stdin: str = "", timeout: float = 120) -> str:
    """Output of a shell command on a lab host."""
    return run(over_ssh(host, command), stdin=stdin, timeout=timeout)


def on_both(work: Callable[[str], T]) -> dict[str, T]:
    """The same on both hosts at once: they are slow, and each has a processor of its own. Raises the first failure when both
    have ended."""
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        running = {host: pool.submit(work, host) for host in HOSTS}
    return {host: each.result() for host, each in running.items()}


def succeeds(host: str, command: str, timeout: float = 60) -> bool:
    """Whether a shell command on a lab host ends with status 0."""
    try:
        on(host, command, timeout=timeout)
    except CommandFailed:
        return False
    return True


def lab_status() -> dict[str, Any]:
    """`labctl status`."""
    status: dict[str, Any] = json.loads(labctl("status"))
    return status


def powered(host: str) -> bool:
    """Whether the host's machine is on, whatever runs in it."""
    return labctl("fence-status", host).strip() == "on"


def power_loss(host: str) -> float:
    """The host loses its power. The moment at which it stood still, on this machine's CLOCK_MONOTONIC: `labctl kill` alone
    takes longer than a phase of a failover. Afterwards its machine is gone. Raises CommandFailed when it was off."""
    pid = lab_status()["hosts"][host]["pid"]
    if pid is None:
        raise CommandFailed(f"{host} cannot lose its power: it is off")
    moment = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    labctl("kill", host)
    return moment
