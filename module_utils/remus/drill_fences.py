# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Fence agents as a drill runs them: read from the configuration of the agent that would use them, as lines of sh."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

AGENTS = "/usr/sbin"
TIMEOUT = 60.0
"""Seconds for one run where the configuration says nothing."""


class Cannot(Exception):
    """What stands against it, with the next step."""


def fence_of(configuration, host):
    """How a host is fenced from here: `program`, `options` (key=value lines), `secrets` (a file of such lines, or empty),
    `timeout` (seconds for one run). Raises Cannot."""
    try:
        with Path(configuration).open("rb") as file:
            found = tomllib.load(file).get("fencing", {}).get(host)
    except (OSError, ValueError) as failure:
        raise Cannot(
            f"{configuration} cannot be read: {failure}. Next: run playbooks/site.yml for this host"
        ) from failure
    if not found:
        raise Cannot(
            f"no fence agent is configured here for {host}. Next: set remus_fencing of it, or leave remus_drill_power"
        )
    return {
        "program": found["agent"] if found["agent"].startswith("/") else f"{AGENTS}/{found['agent']}",
        "options": [f"{key}={value}" for key, value in (found.get("options") or {}).items()],
        "secrets": found.get("secrets") or "",
        "timeout": found.get("timeout", TIMEOUT),
    }


def told(fence, action):
    """The line with which a fence agent is told something. It ends as the agent does, or is killed when its time is over."""
    lines = shlex.join(["printf", "%s\\n", *fence["options"], f"action={action}"])
    secrets = "cat {}; ".format(shlex.quote(fence["secrets"])) if fence["secrets"] else ""
    limit = f"timeout --signal=KILL {fence['timeout']:g}"
    return f"{{ {lines}; {secrets}}} | {limit} {shlex.quote(fence['program'])}"
