#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Take a guest over after its host died."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_failover
short_description: Let the backup take over a guest whose host is dead
description:
  - Asks the C(remus-agent) of the host that holds the copy to start the guest from the last committed checkpoint.
  - Two running copies of one guest destroy its data, so a proof that the old host is dead is demanded in O(fenced) and recorded.
    A host that merely does not answer is not proven dead.
  - A guest that was already taken over is left alone, so a second run changes nothing.
version_added: "0.1.0"
author:
  - The Remus for Xen authors
requirements:
  - a running C(remus-agent) on the host the module runs on
attributes:
  check_mode:
    description: >-
      Can run in check_mode and return changed status prediction without modifying target. The agent is asked whether it would do
      it, which can take as long as it listens for the old primary.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  name:
    description: Name of the guest.
    type: str
    required: true
  fenced:
    description: Proof that the old primary no longer runs.
    type: dict
    required: true
    suboptions:
      host:
        description: Name of the old primary, as the agents know it.
        type: str
        required: true
      method:
        description: How it was made sure, for example V(status-command) or V(operator).
        type: str
        required: true
      evidence:
        description: What was seen, in words for the record.
        type: str
        required: true
  accept_loss:
    description:
      - Where the witness cannot be asked, or does not offer the copy, start it all the same. The old host may have run on alone;
        whatever it has told clients since the copy was made is lost then. It is recorded as a possible loss.
      - Changes nothing where there is no witness, or where it gives its word.
    type: bool
    default: false
  expected_generation:
    description: Refuse when the copy has another generation, that is when ownership changed since it was looked at.
    type: int
  expected_session:
    description: Refuse when the copy belongs to another replication session than this.
    type: str
  timeout:
    description: Seconds for the guest to run.
    type: int
    default: 180
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/remus/agent.sock
seealso:
  - module: remus_protection_info
  - module: remus_protection
"""

EXAMPLES = r"""
- name: Take web1 over, alpha was switched off
  remus_failover:
    name: web1
    expected_generation: 3
    fenced:
      host: alpha
      method: ipmi
      evidence: "ipmitool power status: off, 2026-11-23T06:40:02Z"
"""

RETURN = r"""
protection:
  description: Status of the guest afterwards; in check mode, as it is now.
  returned: success
  type: dict
  sample: {"domain": "web1", "role": "backup", "state": "active", "generation": 4, "committed_epoch": 812}
already_active:
  description: Was the guest already taken over by this host?
  returned: success
  type: bool
seconds:
  description: How long the take-over took, from the request to the agent's answer.
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


def refuse(message, code, domain, hint):
    """An error of this module itself; nothing was changed."""
    return RemusClientError(message, code=code, domain=domain, hint=hint, left="nothing was changed")


def check(params, status):
    """Raise where this host may not or cannot take the guest over."""
    name = params["name"]
    role, state, peer = facts_of(status)
    look = "find the host that holds the copy with playbooks/status.yml"
    if role == "primary":
        raise refuse(f"This host is the primary of {name}, which runs here", "wrong-host", name, look)
    if role != "backup" or state == "discarded":
        raise refuse(f"This host holds no copy of {name}", "no-copy", name, look)
    if not status.get("committed_epoch"):
        raise refuse(
            f"The copy of {name} was never complete: no epoch was committed",
            "no-commit",
            name,
            f"start the guest afresh from its disk with 'xl create', or repair {peer}",
        )
    if peer is not None and params["fenced"]["host"] != peer:
        raise refuse(
            "The proof is about {}, but the primary of {} was {}".format(params["fenced"]["host"], name, peer),
            "other-host-fenced",
            name,
            f"make sure that {peer} is off and give the proof for it",
        )
    for option, fact in (("expected_generation", "generation"), ("expected_session", "session")):
        if params[option] is not None and str(params[option]) != str(status.get(fact)):
            raise refuse(
                f"{name} has {fact} {status.get(fact)}, not {params[option]}",
                "stale-" + fact,
                name,
                "ownership changed since it was looked at; look again, then decide again",
            )


def took_over_alone(params, status):
    """Has this host taken the guest over by itself, with its witness's word, from the host that the proof is about?"""
    return facts_of(status) == ("primary", "solo", params["fenced"]["host"])


def failover(client, params, check_mode):
    """Read, plan, check, apply, read again."""
    name = params["name"]
    status = client.status(name)
    comparison = Comparison(f"owner of {name}")
    if runs_after_failover(status) or took_over_alone(params, status):
        return {"changed": False, "diff": comparison.as_diff(), "protection": status, "already_active": True}
    check(params, status)
    comparison.add("state", status.get("state"), "active")
    result = {"changed": True, "diff": comparison.as_diff(), "protection": status, "already_active": False}
    request = {"domain": name, "fenced": params["fenced"]}
    if params["accept_loss"]:
        request["accept_loss"] = True
    for option, fact in (("expected_generation", "generation"), ("expected_session", "session")):
        if status.get(fact) is not None:
            request[option] = status[fact]
    if check_mode:  # the agent alone knows whether the primary still talks, and what the witness says
        client.call("failover", {**request, "dry_run": True}, timeout=params["timeout"])
        return result
    started = time.monotonic()
    client.call("failover", request, timeout=params["timeout"])
    result["seconds"] = round(time.monotonic() - started, 3)
    result["protection"] = client.status(name)
    return result


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec=common_spec(
            name={"type": "str", "required": True},
            fenced={
                "type": "dict",
                "required": True,
                "options": {
                    "host": {"type": "str", "required": True},
                    "method": {"type": "str", "required": True},
                    "evidence": {"type": "str", "required": True},
                },
            },
            accept_loss={"type": "bool", "default": False},
            expected_generation={"type": "int"},
            expected_session={"type": "str"},
            timeout={"type": "int", "default": 180},
        ),
        supports_check_mode=True,
    )
    try:
        with ControlClient(module.params["socket"]) as client:
            result = failover(client, module.params, module.check_mode)
    except RemusClientError as failure:
        module.fail_json(**failure.as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
