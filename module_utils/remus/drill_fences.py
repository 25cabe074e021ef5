# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Fence agents as a drill runs them: read from the configuration of the agent that would use them, as lines of sh."""

from __future__ import annotations

import shlex
import time
import tomllib
from pathlib import Path

AGENTS = "/usr/sbin"
TIMEOUT = 60.0
"""Seconds for one run where the configuration says nothing."""
DETECT = 10.0
"""Seconds of silence after which an agent takes over where the configuration says nothing."""
TAKES = 20.0
"""Seconds that the witness may take to give its word after that, until the fence agent is told."""
PAUSE = 2.0
"""Seconds between two looks at a host's power."""
ON, OFF = 0, 2
"""What a fence agent's `status` ends with."""


class Cannot(Exception):
    """What stands against it, with the next step."""


def configured(configuration, host):
    """How a host is fenced from here: `program`, `options` (key=value lines), `secrets` (a file of such lines, or empty),
    `timeout` (seconds for one run), `quiet` (seconds after which nobody switches it off any more who began to listen for it
    now). None where no fence agent is configured. Raises Cannot."""
    try:
        with Path(configuration).open("rb") as file:
            whole = tomllib.load(file)
    except (OSError, ValueError) as failure:
        raise Cannot(
            f"{configuration} cannot be read: {failure}. Next: run playbooks/site.yml for this host"
        ) from failure
    found = whole.get("fencing", {}).get(host)
    if not found:
        return None
    timeout = found.get("timeout", TIMEOUT)
    return {
        "program": found["agent"] if found["agent"].startswith("/") else f"{AGENTS}/{found['agent']}",
        "options": [f"{key}={value}" for key, value in (found.get("options") or {}).items()],
        "secrets": found.get("secrets") or "",
        "timeout": timeout,
        "quiet": whole.get("timeouts", {}).get("detect", DETECT) + TAKES + timeout,
    }


def fence_of(configuration, host):
    """The same, of a host that has to have one. Raises Cannot."""
    found = configured(configuration, host)
    if found is None:
        raise Cannot(
            f"no fence agent is configured here for {host}. Next: set remus_fencing of it, or leave remus_drill_power"
        )
    return found


def told(fence, action):
    """The line with which a fence agent is told something. It ends as the agent does, or is killed when its time is over."""
    lines = shlex.join(["printf", "%s\\n", *fence["options"], f"action={action}"])
    secrets = "cat {}; ".format(shlex.quote(fence["secrets"])) if fence["secrets"] else ""
    limit = f"timeout --signal=KILL {fence['timeout']:g}"
    return f"{{ {lines}; {secrets}}} | {limit} {shlex.quote(fence['program'])}"


def see_on(run, fence, patience):
    """Have a host on, and see it on for so long that nobody switches it off any more: who takes its guests over meanwhile fences
    it, once or with each of them. run: a line of sh to its exit code. patience: seconds for it to be on. True when it was off.
    Raises Cannot."""
    end = time.monotonic() + patience
    since, was_off = None, False
    while True:
        said = run(told(fence, "status"))
        now = time.monotonic()
        if said == ON:
            since = now if since is None else since
            if now - since >= fence["quiet"]:
                return was_off
        else:
            since = None
            if said == OFF:
                was_off = True
                run(told(fence, "on"))
            if now >= end:
                says = "off" if said == OFF else f"nothing (it ended with {said})"
                raise Cannot(f"the fence agent's status says {says} after {patience:g} s")
        time.sleep(PAUSE)
