"""Whether the hosts are what site.yml makes of them, by what is quick to see: both agents answer and are of this tree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pair import agent
from pair.hosts import HOSTS, PROJECT, CommandFailed, on, powered, run

CURRENT = "/opt/remus/current"


def release(host: str) -> str:
    """The release of the agent that this tree makes for a host."""
    version = on(host, "python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").strip()
    words = [sys.executable, str(PROJECT / "tools" / "build_wheelhouse.py"), "--python", version]
    found: str = json.loads(run(words, timeout=600))["release"]
    return found


def ready() -> bool:
    """Whether site.yml has been there, with this agent."""
    try:
        if not all(powered(host) and agent.answers(host) for host in HOSTS):
            return False
        return all(Path(on(host, f"readlink {CURRENT}").strip()).name == release(host) for host in HOSTS)
    except CommandFailed:
        return False
