"""What a benchmark ran on."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

from pair.hosts import HOSTS, on


def machine() -> dict[str, Any]:
    """When, which commit, and this machine."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit,
        "load": os.getloadavg(),
        "processors": os.cpu_count(),
    }


def hosts(**more: str) -> dict[str, dict[str, str]]:
    """Both hosts. more: commands on them, by the name of what they say."""
    found: dict[str, dict[str, str]] = {}
    for host in HOSTS:
        found[host] = {
            "kernel": on(host, "uname -r").strip(),
            "xen": on(host, "xl info xen_version").strip(),
            "processors": on(host, "nproc").strip(),
            "memory": on(host, "head -1 /proc/meminfo").split()[1] + " KiB",
            "agent_configuration": on(host, "cat /etc/remus/agent.toml"),
            **{name: on(host, command).strip() for name, command in more.items()},
        }
    return found
