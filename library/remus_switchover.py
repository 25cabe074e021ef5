#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Move a protected guest to its backup."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_switchover
short_description: Move a protected guest to its backup, with nothing lost
description:
  - Asks the C(remus-agent) of the host where the guest runs for one last checkpoint, after which the guest goes on at its backup.
    Its clients keep their connections.
  - Until the guest is handed over every failure leaves it running where it is. What cannot be decided is reported, with the
    guest down on the old host, never with two running.
  - Afterwards the guest is unprotected on its new host; M(remus_protection) protects it there.
  - A guest that runs on the wanted host already is left alone, so a second run changes nothing.
version_added: "0.1.0"
author:
  - The Remus for Xen authors
requirements:
  - a running C(remus-agent) on the host the module runs on
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  name:
    description: Name of the guest.
    type: str
    required: true
  to:
    description: Host that shall run it, as the agents know it. Refused when that is neither this host nor the backup.
    type: str
    required: true
  expected_generation:
    description: Refuse when the protection has another generation, that is when ownership changed since it was looked at.
    type: int
  timeout:
    description: Seconds that the last checkpoint may take; after that the guest goes on where it was.
    type: int
    default: 60
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/remus/agent.sock
seealso:
  - module: remus_protection
  - module: remus_failover
"""

EXAMPLES = r"""
- name: Move web1 to beta
  remus_switchover:
    name: web1
    to: beta
    expected_generation: 3
  delegate_to: alpha

- name: Protect it the other way round
  remus_protection:
    name: web1
    peer: alpha
  delegate_to: beta
"""

RETURN = r"""
protection:
  description: Status of the guest on the old host afterwards; in check mode or when nothing was to be done, as it is now.
  returned: success
  type: dict
  sample: {"domain": "web1", "role": "none", "state": "handed-over", "generation": 3}
already_there:
  description: Did the guest run on the wanted host already?
  returned: success
  type: bool
seconds:
  description: How long it took, from the request to the agent's answer.
  returned: when changed
  type: float
error:
  description: The failure as data, C(code), C(message), and where known C(left) and C(hint).
  returned: failure
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus.arguments import common_spec, facts_of, runs_after_failover
from ansible.module_utils.remus.client import ControlClient
from ansible.module_utils.remus.diff import Comparison
from ansible.module_utils.remus.errors import RemusClientError

MARGIN = 600
"""Seconds for everything but the last checkpoint."""


def refuse(message, code, domain, hint):
    """An error of this module itself; nothing was changed."""
    return RemusClientError(message, code=code, domain=domain, hint=hint, left="nothing was changed")


def check(params, status):
    """Raise where the guest cannot be moved from this host to the wanted one."""
    name = params["name"]
    role, state, peer = facts_of(status)
    if role != "primary" or runs_after_failover(status):
        raise refuse(
            f"This host does not protect {name}: its role is '{role}', its state '{state}'",
            "wrong-host",
            name,
            "find the host where it is protected with playbooks/status.yml; a guest that runs unprotected "
            "has to be protected first",
        )
    if peer != params["to"]:
        raise refuse(
            "The backup of {} is {}, not {}".format(name, peer, params["to"]),
            "other-backup",
            name,
            "name that host, or protect it to the other one first",
        )
    if state != "protected":
        raise refuse(
            f"{name} is {state}, and only a protected guest can be moved",
            "not-protected",
            name,
            f"wait until it is protected; 'remusctl events {name}' on this host says what holds it up",
        )
    if params["expected_generation"] is not None and params["expected_generation"] != status.get("generation"):
        raise refuse(
            "{} has generation {}, not {}".format(name, status.get("generation"), params["expected_generation"]),
            "stale-generation",
            name,
            "ownership changed since it was looked at; look again, then decide again",
        )


def switchover(client, params, check_mode):
    """Read, plan, check, apply."""
    name = params["name"]
    status = client.status(name)
    host = client.call("agent", {}).get("host")
    comparison = Comparison(f"host of {name}")
    runs_here = status is not None and (
        facts_of(status)[0] == "primary" or facts_of(status)[1] in ("unprotected", "paused")
    )
    if runs_here and host == params["to"]:
        return {"changed": False, "diff": comparison.as_diff(), "protection": status, "already_there": True}
    check(params, status)
    comparison.add("host", host, params["to"])
    result = {"changed": True, "diff": comparison.as_diff(), "protection": status, "already_there": False}
    if check_mode:
        client.call("switchover", {"domain": name, "timeout": params["timeout"], "dry_run": True})
        return result
    request = {"domain": name, "timeout": params["timeout"], "expected_generation": status["generation"]}
    started = time.monotonic()
    answer = client.call("switchover", request, timeout=params["timeout"] + MARGIN)
    result["seconds"] = round(time.monotonic() - started, 3)
    result["protection"] = answer.get("status")
    return result


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec=common_spec(
            name={"type": "str", "required": True},
            to={"type": "str", "required": True},
            expected_generation={"type": "int"},
            timeout={"type": "int", "default": 60},
        ),
        supports_check_mode=True,
    )
    try:
        with ControlClient(module.params["socket"]) as client:
            result = switchover(client, module.params, module.check_mode)
    except RemusClientError as failure:
        module.fail_json(**failure.as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
