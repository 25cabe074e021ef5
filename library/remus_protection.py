#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""State of the protection of one guest."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_protection
short_description: Protect a running Xen guest with checkpoints on another host, or stop doing so
description:
  - Asks the C(remus-agent) of this host, over its local control socket, to replicate a running guest to the agent of
    another host.
  - Run it on the host where the guest runs. The module reads first and does nothing where the guest is protected as wanted.
  - It never restarts a guest and never changes where a guest runs.
version_added: "0.1.0"
author:
  - The Remus for Xen authors
requirements:
  - a running C(remus-agent) on the host the module runs on
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Only requests that change nothing are sent, among them the agent's C(probe), which asks the peer whether it would accept.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  name:
    description: Name of the guest, as C(xl list) shows it.
    type: str
    required: true
  state:
    description:
      - With V(present) the guest is protected; it is an error when it is protected by another O(peer) already.
      - With V(absent) it is not. A guest that runs here goes on running, with its output no longer held.
    type: str
    choices: [present, absent]
    default: present
  peer:
    description: Name of the host that shall hold the copy, as in the agent's configuration (table C(replication.peers)).
    type: str
  interval_ms:
    description:
      - Pause between two checkpoints in milliseconds; V(0) takes them as fast as the link allows.
      - Left out, the agent's configuration decides.
    type: int
  output_limit_bytes:
    description:
      - Most bytes of the guest's output that may be held between two checkpoints. Only read when protection begins.
      - Left out, the agent's configuration decides.
    type: int
  wait:
    description: Return only when the guest is protected, that is after the first checkpoint was committed by the peer.
    type: bool
    default: true
  timeout:
    description: Seconds for the whole operation, seeding included.
    type: int
    default: 900
  force:
    description:
      - Allow O(state=absent) on the host that holds the copy, which throws the copy away.
      - A guest that was taken over and runs on this host is never touched, with or without O(force).
    type: bool
    default: false
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/remus/agent.sock
seealso:
  - module: remus_protection_info
  - module: remus_failover
"""

EXAMPLES = r"""
- name: Protect web1 with host beta
  remus_protection:
    name: web1
    peer: beta

- name: See what would happen, the peer is asked too
  remus_protection:
    name: web1
    peer: beta
  check_mode: true
  diff: true

- name: Stop protecting web1
  remus_protection:
    name: web1
    state: absent

- name: Throw away an orphaned copy on the backup
  remus_protection:
    name: web1
    state: absent
    force: true
"""

RETURN = r"""
protection:
  description: Status of the guest afterwards; in check mode, as it is now. None where the agent does not know the guest.
  returned: success
  type: dict
  contains:
    domain:
      description: Name of the guest.
      type: str
    role:
      description: V(primary), V(backup) or V(none).
      type: str
    state:
      description: State within that role, for example V(protected).
      type: str
    peer:
      description: The other host.
      type: str
    generation:
      description: Number that rises with every change of owner.
      type: int
    committed_epoch:
      description: Last epoch that both hosts hold.
      type: int
    held_bytes:
      description: Output held at present, in bytes.
      type: int
  sample: {"domain": "web1", "role": "primary", "state": "protected", "peer": "beta", "generation": 1, "committed_epoch": 812}
probe:
  description: What both hosts said when they were asked whether protection is possible.
  returned: when protection has to begin
  type: dict
  contains:
    ok:
      description: Is it possible?
      type: bool
    reasons:
      description: Every reason against it, each with C(code), C(message) and C(hint).
      type: list
      elements: dict
    facts:
      description: What was compared.
      type: dict
progress:
  description: The last progress report of the agent.
  returned: when the agent reported any
  type: dict
error:
  description: The failure as data, C(code), C(message), and where known C(operation), C(domain), C(epoch), C(left), C(hint).
  returned: failure
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus.arguments import PRIMARY_STATES, common_spec, facts_of, runs_after_failover, wait_for
from ansible.module_utils.remus.client import ControlClient
from ansible.module_utils.remus.diff import Comparison
from ansible.module_utils.remus.errors import AgentRefused, RemusClientError

# What a protection keeps from its beginning on: option, what it is called, unit.
SETTINGS = (("interval_ms", "an interval", "ms"), ("output_limit_bytes", "a limit of held output", "bytes"))


def refuse(message, code, domain, hint, left=None):
    """An error of this module itself; nothing was changed."""
    return RemusClientError(message, code=code, domain=domain, hint=hint, left=left or "nothing was changed")


def check_present(params, status):
    """Raise where the present state does not allow protection by this peer."""
    name, peer = params["name"], params["peer"]
    role, state, current_peer = facts_of(status)
    if role == "backup" and not runs_after_failover(status):
        raise refuse(
            f"This host holds the copy of {name}; its primary is {current_peer}",
            "wrong-host",
            name,
            f"run this on {current_peer}, where the guest runs",
        )
    if role != "primary":
        return
    if state == "stopping":
        raise refuse(f"Protection of {name} is just being stopped", "stopping", name, "run this again in a moment")
    if state in PRIMARY_STATES and current_peer != peer:
        raise refuse(
            f"{name} is protected by {current_peer}, not by {peer}",
            "other-peer",
            name,
            f"stop that first with playbooks/unprotect.yml, then protect it with {peer}",
        )
    for option, what, unit in SETTINGS:
        wanted, current = params[option], status.get(option)
        if state in PRIMARY_STATES and None not in (wanted, current) and wanted != current:
            raise refuse(
                f"{name} is protected with {what} of {current} {unit}, not {wanted} {unit}",
                "other-settings",
                name,
                "unprotect it and protect it again; this is set when protection begins",
            )


def compare_present(params, status):
    """What must change so that the guest is protected."""
    role, state, peer = facts_of(status)
    comparison = Comparison("protection of {}".format(params["name"]))
    if role == "primary" and state in PRIMARY_STATES:
        return comparison
    comparison.add("protection", "absent", "present")
    comparison.add("state", state, "protected")
    comparison.add("peer", peer, params["peer"])
    return comparison


def ask_both_sides(client, params):
    """The agent's probe; raises with every reason at once where it says no."""
    probe = client.call(
        "probe", {"domain": params["name"], "peer": params["peer"]}, timeout=min(params["timeout"], 120)
    )
    if probe.get("ok"):
        return probe
    reasons = probe.get("reasons") or []
    words = "; ".join(
        str(reason.get("message")) + (f" (next: {reason['hint']})" if reason.get("hint") else "") for reason in reasons
    )
    failure = refuse(
        "{} cannot be protected by {}: {}".format(params["name"], params["peer"], words or "no reason was given"),
        "probe",
        params["name"],
        "repair what is named, then run this again",
    )
    failure.facts["reasons"] = reasons
    raise failure


def protect(client, params, deadline):
    """Begin; a rival that began the same a moment ago is as good."""
    request = {
        "domain": params["name"],
        "peer": params["peer"],
        "wait": params["wait"],
        "timeout": params["timeout"],
    }
    for option, _what, _unit in SETTINGS:
        if params[option] is not None:
            request[option] = params[option]
    try:
        client.call("protect", request, timeout=max(1.0, deadline - time.monotonic()) + 15)
    except AgentRefused as refused:
        if refused.code != "already-protected":
            raise
        check_present(params, client.status(params["name"]))


def ensure_present(client, params, check_mode):
    """Read, plan, check, apply, read again."""
    deadline = time.monotonic() + params["timeout"]
    status = client.status(params["name"])
    check_present(params, status)
    comparison = compare_present(params, status)
    result = {"changed": comparison.changed, "diff": comparison.as_diff(), "protection": status}
    if comparison.changed:
        result["probe"] = ask_both_sides(client, params)
    if check_mode:
        return result
    if comparison.changed:
        protect(client, params, deadline)
        result["protection"] = client.status(params["name"])
    if params["wait"] and facts_of(result["protection"])[1] != "protected":
        result["protection"] = wait_for(
            client, params["name"], lambda seen: facts_of(seen)[1] in ("protected", "failed"), deadline, "protected"
        )
    if facts_of(result["protection"])[1] == "failed":
        raise RemusClientError(
            "Protection of {} failed: {}".format(params["name"], result["protection"].get("reason")),
            code="failed",
            domain=params["name"],
            left="the guest runs unprotected",
            hint="look at 'remusctl events {}' on this host".format(params["name"]),
        )
    return result


def ensure_absent(client, params, check_mode):
    """Read, plan, check, apply, read again."""
    name = params["name"]
    status = client.status(name)
    role, state, peer = facts_of(status)
    comparison = Comparison(f"protection of {name}")
    if role in ("primary", "backup") and not runs_after_failover(status) and state != "discarded":
        comparison.add("protection", "present", "absent")
        comparison.add("role", role, "none")
        comparison.add("peer", peer, None)
    result = {"changed": comparison.changed, "diff": comparison.as_diff(), "protection": status}
    if role == "backup" and comparison.changed and not params["force"]:
        raise refuse(
            "This host holds the copy of {} (primary {}, committed epoch {}); taking it away needs force".format(
                name, peer, status.get("committed_epoch")
            ),
            "copy-would-be-lost",
            name,
            f"run this on {peer}, or set force: true if that host shall lose its copy",
        )
    if check_mode or not comparison.changed:
        return result
    request = {"domain": name, "force": params["force"], "timeout": params["timeout"]}
    client.call("unprotect", request, timeout=params["timeout"] + 15)
    result["protection"] = wait_for(
        client,
        name,
        lambda seen: facts_of(seen)[0] == "none" or facts_of(seen)[1] in ("discarded", "absent"),
        time.monotonic() + params["timeout"],
        "unprotected",
    )
    return result


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec=common_spec(
            name={"type": "str", "required": True},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            peer={"type": "str"},
            interval_ms={"type": "int"},
            output_limit_bytes={"type": "int"},
            wait={"type": "bool", "default": True},
            timeout={"type": "int", "default": 900},
            force={"type": "bool", "default": False},
        ),
        required_if=[("state", "present", ["peer"])],
        supports_check_mode=True,
    )
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    try:
        with ControlClient(module.params["socket"]) as client:
            result = ensure(client, module.params, module.check_mode)
            if client.progress:
                result["progress"] = client.progress[-1]
    except RemusClientError as failure:
        module.fail_json(**failure.as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
