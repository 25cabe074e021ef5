"""Whether the hosts are what site.yml makes of them, by what is quick to see: both agents answer and are of this tree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pair import agent
from pair.hosts import HOSTS, PROJECT, CommandFailed, on, powered, run, succeeds
from pair.wait import TooLate, until

CURRENT = "/opt/remus/current"
STARTING = 60.0
"""Seconds for agents that the scenario before has just restarted."""


def release(host: str) -> str:
    """The release of the agent that this tree makes for a host."""
    version = on(host, "python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").strip()
    words = [sys.executable, str(PROJECT / "tools" / "build_wheelhouse.py"), "--python", version]
    found: str = json.loads(run(words, timeout=600))["release"]
    return found


def ready() -> bool:
    """Whether site.yml has been there, with this agent; says on standard error what speaks against it."""
    try:
        for host in HOSTS:
            if not powered(host) or not succeeds(host, f"readlink {CURRENT}"):
                sys.stderr.write(f"{host} is off, or no agent is installed there\n")
                return False
            until(f"{host}'s agent answers", lambda host=host: agent.answers(host), timeout=STARTING)  # type: ignore[misc]
            there, wanted = Path(on(host, f"readlink {CURRENT}").strip()).name, release(host)
            if there != wanted:
                sys.stderr.write(f"{host} has the release {there}; this tree makes {wanted}\n")
                return False
    except (CommandFailed, TooLate) as error:
        sys.stderr.write(f"{error}\n")
        return False
    return True
