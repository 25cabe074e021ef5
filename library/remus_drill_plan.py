#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What a drill does where, decided from what the hosts said, and what stands against it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_drill_plan
short_description: Decide what a drill breaks on which host, and whether it may
description:
  - Runs on the controller over an entry of C(remus_topology), which comes from live answers, and what the inventory says of the
    hosts' addresses. It changes nothing.
version_added: "0.1.0"
author:
  - The Remus for Xen authors
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
options:
  guest:
    description: The guest's entry of C(remus_topology).
    type: dict
    required: true
  hosts:
    description:
      - Each of the pair by its name in the inventory. C(agent_name); C(replication) and C(second), its addresses on the two
        paths, the latter empty where there is none; C(watchdog), what its agent says of Xen's watchdog; C(fence_agent), the one
        that its agent has for the other host, empty where it has none.
    type: dict
    required: true
  witnesses:
    description: Hosts of the witness, by their names in the inventory.
    type: list
    elements: str
    default: []
  fault:
    description: What shall be broken.
    type: str
    required: true
    choices:
      - agent_kill
      - agent_freeze
      - slow_link
      - link_cut
      - one_way_cut
      - disk_stall
      - witness_loss
      - host_freeze
      - host_panic
      - host_power_loss
  side:
    description: >-
      Where, as V(primary) or V(backup); of a one-way cut the host that hears nothing. Left out, where the fault is
      most often looked for.
    type: str
    choices: [primary, backup]
  seconds:
    description: How long it is held.
    type: int
    default: 20
  second_path:
    description: Cut the second path as well.
    type: bool
    default: false
  power:
    description: >-
      How a host's power is taken, by itself (V(sysrq)) or by the fence agent that the other host has for it (V(fence)).
    type: str
    choices: [sysrq, fence]
    default: sysrq
  consent:
    description: Name of the guest, given by somebody who agrees that its service may suffer. Empty is none.
    type: str
    default: ""
  demand_consent:
    description: Refuse without O(consent).
    type: bool
    default: true
seealso:
  - module: remus_topology
  - module: remus_drill_fault
"""

EXAMPLES = r"""
- name: Decide what is broken where
  remus_drill_plan:
    guest: "{{ topology.guests | first }}"
    hosts:
      alpha: {agent_name: alpha, replication: 192.0.2.1, second: "", watchdog: null}
      beta: {agent_name: beta, replication: 192.0.2.2, second: "", watchdog: null}
    fault: agent_kill
    consent: web1
  delegate_to: localhost
  register: drill
"""

RETURN = r"""
reasons:
  description: What stands against it, each with the next step; empty where nothing does.
  returned: success
  type: list
  elements: str
sites:
  description: >-
    Where something is broken. C(host); C(fault), C(links), C(witness) (whether the host is one) and C(fence), as
    C(remus_drill_fault) takes them.
  returned: success
  type: list
  elements: dict
side:
  description: The side that is broken, V(primary), V(backup), V(both) or V(witness).
  returned: success
  type: str
reboots:
  description: Whether a host of the pair boots anew.
  returned: success
  type: bool
fenced:
  description: >-
    Hosts that are not heard for a time, so that an agent may take their guests over and switch them off. C(host); C(by), the
    host whose agent does that; C(fence), the first one's name among the agents; C(agent), the fence agent.
  returned: success
  type: list
  elements: dict
expected:
  description: What is to be expected of it, in words.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import drill_faults

USUAL = {
    "agent_kill": "primary",
    "agent_freeze": "primary",
    "slow_link": "primary",
    "link_cut": "both",
    "one_way_cut": "backup",
    "disk_stall": "backup",
    "witness_loss": "witness",
    "host_freeze": "primary",
    "host_panic": "primary",
    "host_power_loss": "primary",
}
SILENCES = ("agent_freeze", "host_freeze", *drill_faults.REBOOTS)
"""Nothing is heard of that host, on any path."""
MAY_SILENCE = ("agent_kill", "disk_stall", *SILENCES)
"""With those where that depends: on how soon another agent is there, and on what the agent has to write."""
MOST_SECONDS = 600
FREEZE_SECONDS = 50
"""systemd kills an agent that says nothing for 60 s: from then on it is not a frozen one any more. Its host may take some seconds
longer to undo it."""


def side_of(params):
    """primary, backup, both or witness."""
    usual = USUAL[params["fault"]]
    return usual if usual in ("both", "witness") else params["side"] or usual


def link(hosts, here, there, second_path):
    """The paths between two hosts, as remus_drill_fault takes them on the first."""
    paths = ("replication", "second") if second_path else ("replication",)
    return [{"local": hosts[here][path], "peer": hosts[there][path]} for path in paths]


def sites_of(params, side, owner, other):
    """Where something is broken."""
    fault, hosts = params["fault"], params["hosts"]
    if side == "witness":
        return [
            {"host": name, "fault": fault, "links": [], "witness": True, "fence": ""} for name in params["witnesses"]
        ]
    places = [owner, other] if side == "both" else [owner if side == "primary" else other]
    found = []
    for place in places:
        there = other if place == owner else owner
        links = link(hosts, place, there, params["second_path"]) if "link" in fault or "cut" in fault else []
        site = {"host": place, "fault": fault, "links": links, "witness": False, "fence": ""}
        if fault == "host_power_loss" and params["power"] == "fence":
            site.update(host=there, fence=hosts[place]["agent_name"])
        found.append(site)
    return found


def fenced_of(params, side, owner, other):
    """Hosts that an agent has fenced when it takes their guests over meanwhile, which it does through a witness alone."""
    fault, hosts = params["fault"], params["hosts"]
    here, there = (owner, other) if side == "primary" else (other, owner)
    silent = []
    if fault in MAY_SILENCE:
        silent = [here]
    elif fault == "link_cut" and params["second_path"]:
        silent = [owner, other]
    elif fault == "one_way_cut" and params["second_path"]:
        silent = [there]  # the host of that side hears nothing of it
    found = []
    for host in silent if params["witnesses"] else ():
        by = other if host == owner else owner
        agent = hosts[by].get("fence_agent")
        if agent:
            found.append({"host": host, "by": by, "fence": hosts[host]["agent_name"], "agent": agent})
    return found


def guest_reasons(guest):
    """Whether the guest is one that a drill may begin with."""
    name = guest["name"]
    reasons = list(guest.get("problems") or [])
    if not guest.get("owner"):
        reasons.append(f"nobody knows where {name} runs. Next: run playbooks/status.yml")
    elif not guest.get("protected"):
        reasons.append(
            "{} is not protected ({}). Next: protect it with protect.yml, or see why with 'remusctl events {} --problems'".format(
                name, guest.get("verdict"), name
            )
        )
    else:
        copy = (guest.get("status") or {}).get(guest.get("other")) or {}
        if copy.get("state") not in ("ready", "receiving"):
            reasons.append(
                "{} says that its copy of {} is {}. Next: wait until it is ready, or look at 'remusctl events {}' there".format(
                    guest.get("other"), name, copy.get("state", "unknown"), name
                )
            )
    return reasons


def fault_reasons(params, side):
    """Whether this fault may be tried with this pair."""
    fault, seconds, hosts = params["fault"], params["seconds"], params["hosts"]
    reasons = []
    if not 1 <= seconds <= MOST_SECONDS:
        reasons.append(f"remus_drill_seconds is {seconds}. Next: choose 1 to {MOST_SECONDS}")
    if fault in ("agent_freeze", "host_freeze") and seconds > FREEZE_SECONDS:
        reasons.append(
            f"after 60 s systemd kills an agent that stands still. Next: set remus_drill_seconds to at most {FREEZE_SECONDS}"
        )
    if fault == "witness_loss" and not params["witnesses"]:
        reasons.append("there is no witness to lose. Next: choose another fault, or set one up (playbooks/witness.yml)")
    if fault in ("host_freeze", *drill_faults.REBOOTS) and side == "primary" and not params["witnesses"]:
        reasons.append(
            f"{fault} takes the guest's host away, and without a witness nobody takes over by himself. Next: set up a witness "
            "(playbooks/witness.yml), or choose -e remus_drill_side=backup"
        )
    cuts = fault in ("link_cut", "one_way_cut", "slow_link")
    if params["second_path"] and not cuts:
        reasons.append(f"remus_drill_second_path is about links, and {fault} is not. Next: leave it out")
    for name, facts in hosts.items() if cuts else ():
        for path, variable in (("replication", "remus_replication_address"), ("second", "remus_second_address")):
            if not facts.get(path) and (path == "replication" or params["second_path"]):
                reasons.append(f"{name} has no {variable}. Next: set it, or leave that path as it is")
    for name, facts in hosts.items():
        watchdog = facts.get("watchdog") or {}
        limit = (watchdog.get("seconds") or 0) / 3
        if watchdog.get("armed") and fault in ("agent_freeze", "host_freeze") and seconds >= limit:
            reasons.append(
                f"Xen's watchdog would reset {name} after {watchdog['seconds']} s. Next: set remus_drill_seconds below "
                f"{limit:.0f}"
            )
    return reasons


def expectation(params, side):
    """What is to be expected, in one sentence."""
    witnessed, fault = bool(params["witnesses"]), params["fault"]
    held = "Output is held until acknowledgements come again; then the guest is protected again by itself."
    alone = "Output is held; where it lasts, the guest runs on alone, and is protected again afterwards."
    if side == "primary" and fault in SILENCES and witnessed:
        return "Where it lasts, the backup takes the guest over, and its clients' connections go on there."
    if fault in ("link_cut", "one_way_cut") and params["second_path"] and witnessed:
        return "One host goes on by the witness's word, the other stands down until they hear each other again."
    special = {
        "slow_link": "Every checkpoint takes longer to be acknowledged, so replies are late; nothing else changes.",
        "witness_loss": "Protection goes on, and nobody changes roles until the witness is back.",
        "agent_kill": "Output is held until a new agent has protected the guest again; the guest itself is not stopped.",
    }
    return special.get(fault, alone if witnessed else held)


def warning(fenced):
    """What consent covers where agents have fence agents."""
    return " ".join(
        "{host} may be powered off, with every guest that runs there: the agent of {by} has it fenced by {agent} when it takes a "
        "guest over. Consent covers that, and {by} switches {host} on again at the end.".format(**one)
        for one in fenced
    )


def plan(params):
    """The module's result."""
    guest = params["guest"]
    side = side_of(params)
    owner, other = guest.get("owner"), guest.get("other")
    known = owner in params["hosts"] and other in params["hosts"]
    fenced = fenced_of(params, side, owner, other) if known else []
    reasons = []
    if params["demand_consent"] and params["consent"] != guest["name"]:
        reasons.append(
            "a drill breaks something on purpose, and nobody has agreed to that for {0}. {1}Next: where its service may suffer, "
            "add -e remus_drill_consent={0}; --check tells what would be done".format(
                guest["name"], f"{warning(fenced)} " if fenced else ""
            )
        )
    reasons += guest_reasons(guest)
    reasons += fault_reasons(params, side)
    return {
        "reasons": reasons,
        "side": side,
        "sites": sites_of(params, side, owner, other) if known else [],
        "reboots": params["fault"] in drill_faults.REBOOTS,
        "fenced": fenced,
        "expected": " ".join(filter(None, [expectation(params, side), warning(fenced)])),
    }


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "guest": {"type": "dict", "required": True},
            "hosts": {"type": "dict", "required": True},
            "witnesses": {"type": "list", "elements": "str", "default": []},
            "fault": {"type": "str", "required": True, "choices": list(drill_faults.FAULTS)},
            "side": {"type": "str", "choices": ["primary", "backup"]},
            "seconds": {"type": "int", "default": 20},
            "second_path": {"type": "bool", "default": False},
            "power": {"type": "str", "choices": ["sysrq", "fence"], "default": "sysrq"},
            "consent": {"type": "str", "default": ""},
            "demand_consent": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **plan(module.params))


if __name__ == "__main__":
    main()
