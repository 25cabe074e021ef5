# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules that ask the agent about a domain have in common."""

from __future__ import annotations

import time

from ansible.module_utils.remus.errors import AgentTimeout

PRIMARY_STATES = ("connecting", "seeding", "protected", "silent")
"""States of a primary in which its protection is wanted and being worked for."""
NOT_ASKED = "it was not asked"
"""Why there is no answer of a host, where nobody has tried."""


def common_spec(**more):
    """The argument specification that every such module starts from."""
    spec = {"socket": {"type": "path", "default": "/run/remus/agent.sock"}}
    spec.update(more)
    return spec


def facts_of(status):
    """(role, state, peer) of a status; a domain that the agent does not know has role none."""
    if status is None:
        return "none", "absent", None
    return status.get("role", "none"), status.get("state"), status.get("peer")


def silent_because(answer):
    """Why an agent said nothing, or None. answer: the result of remus_protection_info as it is, also of a failure."""
    return None if "agent" in answer else answer.get("msg") or NOT_ASKED


def runs_after_failover(status):
    """Does this status say that the guest was taken over and runs on this host?"""
    return status is not None and status.get("state") == "active"


def wait_for(client, name, accept, deadline, what, interval=0.5, clock=time.monotonic, pause=time.sleep):
    """Ask for the status until accept(status) is true; return that status.

    deadline: on `clock`. Raises AgentTimeout with the last state that was seen.
    """
    while True:
        status = client.status(name)
        if accept(status):
            return status
        if clock() >= deadline:
            state = facts_of(status)[1]
            reason = (status or {}).get("reason")
            raise AgentTimeout(
                "{} is not {} in time; its state is '{}'{}".format(name, what, state, f" ({reason})" if reason else ""),
                domain=name,
                left="the agent keeps trying",
                hint=f"look at 'remusctl events {name}' on this host; a longer timeout may be all it needs",
            )
        pause(interval)
