#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Who is who, decided from what the hosts said."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_topology
short_description: Decide from live answers which host runs a guest and which holds its copy
description:
  - Runs on the controller over what C(remus_protection_info) and C(xen_host_info) returned for every host. It changes nothing and
    trusts no inventory for roles.
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
  guests:
    description: Guests to look at.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the guest.
        type: str
        required: true
      hosts:
        description: The two hosts of the pair, by their names in the inventory.
        type: list
        elements: str
        required: true
      interval_ms:
        description: Only passed on.
        type: int
      output_limit_bytes:
        description: Only passed on.
        type: int
      disks:
        description: Only passed on.
        type: list
        elements: dict
      members:
        description: Of a consistency group, the guests that it consists of, each with its C(name). It runs where they run.
        type: list
        elements: dict
  hosts:
    description:
      - What each host said, by its name in the inventory. C(agent_name) is its name among the agents, C(agent) the result of
        C(remus_protection_info) there and C(toolstack) that of C(xen_host_info) with its domains, as they are, also of a failure.
        Without one of them that one was not asked.
    type: dict
    required: true
seealso:
  - module: remus_protection_info
  - module: xen_host_info
"""

EXAMPLES = r"""
- name: Decide who is who
  remus_topology:
    guests:
      - name: web1
        hosts: [alpha, beta]
    hosts:
      alpha: {agent_name: alpha, agent: "{{ alpha_agent }}", toolstack: "{{ alpha_xen }}"}
      beta: {agent_name: beta, agent: "{{ beta_agent }}", toolstack: "{{ beta_xen }}"}
  delegate_to: localhost
  register: topology
"""

RETURN = r"""
guests:
  description: One entry for each guest, in order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the guest.
      type: str
    owner:
      description: Host where the guest runs, as far as can be told, or null.
      type: str
    holder:
      description: Host that holds a copy it could take the guest over from, or null.
      type: str
    other:
      description: The host of the pair that is not the owner, or null.
      type: str
    peer:
      description: Name of that other host among the agents, or null.
      type: str
    protected:
      description: Does the owner say that the guest is protected?
      type: bool
    replicating:
      description: Does the owner work for its protection, protected at this moment or not?
      type: bool
    taken_over:
      description: Does the guest run where it was taken over?
      type: bool
    status:
      description: Status by host.
      type: dict
    unsure:
      description: Hosts that answer and cannot say which domains they run, each with the reason.
      type: dict
    problems:
      description: What stands against protecting it, each with the next step.
      type: list
      elements: str
    mixed:
      description: What its two hosts have in different versions, each with the next step.
      type: list
      elements: str
    verdict:
      description: One line for people.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus.arguments import NOT_ASKED, PRIMARY_STATES, silent_because


def heard(host, said):
    """What the answers of a host mean."""
    agent, toolstack = said.get("agent") or {}, said.get("toolstack") or {}
    of_agent, of_xen = agent.get("agent") or {}, toolstack.get("host") or {}
    return {
        "agent_name": said.get("agent_name") or host,
        "seen": "agent" in agent or "host" in toolstack,
        "error": silent_because(agent),
        "version": of_agent.get("release") or of_agent.get("version"),
        "xen_version": of_agent.get("xen_version"),
        "domains": agent.get("domains") or [],
        "running": of_xen.get("domains") or [],
        "autostart": of_xen.get("autostart") or [],
        "bridges": of_xen.get("bridges"),
        # Without one, what is not in `running` does not run.
        "toolstack_error": of_xen.get("toolstack_error") if "host" in toolstack else toolstack.get("msg") or NOT_ASKED,
    }


def status_of(host, name):
    """The status that a host's agent gave for a guest, or None."""
    for status in host["domains"]:
        if status.get("domain") == name:
            return status
    return None


def holders(statuses):
    """(hosts with the primary role, hosts with a usable copy, hosts that took over)."""
    primaries, copies, taken = [], [], []
    for host, status in statuses.items():
        role, state = status.get("role"), status.get("state")
        if state == "active":
            taken.append(host)
        elif role == "primary":
            primaries.append(host)
        elif role == "backup" and state != "discarded":
            copies.append(host)
    return primaries, copies, taken


def domains_of(guest):
    """What the toolstacks know of it: itself, or the members of a group."""
    return [member.get("name") for member in guest.get("members") or []] or [guest["name"]]


def apart(guest, running):
    """Members of a group that run on different hosts. running: names by host."""
    if not guest.get("members") or len(running) < 2:
        return None
    shown = "; ".join(f"{', '.join(sorted(names))} on {host}" for host, names in sorted(running.items()))
    return (
        f"the members of group {guest['name']} run on different hosts ({shown}). Next: bring them together on one host, "
        "with 'xl migrate' or by starting them there"
    )


def find_owner(guest, hosts, statuses, unsure, problems):
    """The one host where the guest runs, or None with the reason added to problems."""
    name = guest["name"]
    primaries, copies, taken = holders(statuses)
    running = {}
    for host in guest["hosts"]:
        there = {domain.get("name") for domain in hosts.get(host, {}).get("running", [])}.intersection(
            domains_of(guest)
        )
        if there and host not in copies:
            running[host] = there
    runs = [
        host
        for host in guest["hosts"]
        if host in running or (host not in copies and statuses.get(host, {}).get("state") in ("unprotected", "paused"))
    ]
    claims = sorted(set(primaries + taken + runs))
    divided = apart(guest, running)
    if divided and not primaries and not taken:
        problems.append(divided)
        return None
    if len(claims) > 1:
        problems.append(
            "{0} is claimed by {1} at once. Next: find out which of them clients reach, pause the other with "
            "'xl pause {0}', and only then destroy it".format(name, " and ".join(claims))
        )
        return None
    if claims:
        return claims[0]
    unknown = [host for host in unsure if host not in copies]
    for host in unknown:
        problems.append(
            f"nobody knows whether {name} runs on {host}, whose toolstack says: {unsure[host]}. Next: have 'xl list' work "
            "there, and do not start the guest elsewhere before"
        )
    if unknown:
        return None
    if all(hosts.get(host, {}).get("seen") for host in guest["hosts"]):
        problems.append(
            "{} runs on neither {}. Next: start it there with 'xl create', or take it over with playbooks/failover.yml".format(
                name, " nor ".join(guest["hosts"])
            )
        )
    return None


def elsewhere(guest, hosts, statuses):
    """A protection or a copy whose other side is not the guest's other host: the inventory and the agents disagree."""
    problems = []
    for host, status in statuses.items():
        others = [hosts.get(other, {}).get("agent_name") or other for other in guest["hosts"] if other != host]
        works = status.get("role") == "primary" and status.get("state") in PRIMARY_STATES
        keeps = status.get("role") == "backup" and status.get("state") not in ("active", "discarded")
        if (works or keeps) and status.get("peer") and status["peer"] not in others:
            problems.append(
                "{} says that {} of {} is {}, but the inventory pairs it with {}. Next: correct hosts in remus_guests, "
                "or end the protection there with 'remusctl unprotect {}'".format(
                    host,
                    "the backup" if works else "the primary",
                    guest["name"],
                    status["peer"],
                    ", ".join(others) or "nobody",
                    guest["name"],
                )
            )
    return problems


def started_at_boot(guest, hosts):
    """A host that comes back after a failover would start a second copy of a guest that runs on the other one."""
    problems = []
    for host in guest["hosts"]:
        for started in hosts.get(host, {}).get("autostart") or []:
            if started["guest"] is None:
                problems.append(
                    "nobody can tell which guest {0} starts from {1} when it boots. Next: remove it there, or correct it until "
                    "'grep name {1}' shows name = \"NAME\"".format(host, started["file"])
                )
            elif started["guest"] in domains_of(guest):
                problems.append(
                    "{} starts {} from {} when it boots, also while the guest runs on the other host. Next: remove that link, or "
                    "move that file to another folder".format(host, started["guest"], started["file"])
                )
    return problems


def unbridged(guest, owner, hosts):
    """A bridge of the guest that its other host does not have: when the copy shall run, its interface could not be made there."""
    running = [domain for domain in hosts.get(owner, {}).get("running", []) if domain.get("name") in domains_of(guest)]
    wanted = sorted({bridge for domain in running for bridge in domain.get("bridges") or []})
    problems = []
    for host in guest["hosts"]:
        there = hosts.get(host, {}).get("bridges")
        for bridge in wanted if there is not None and host != owner else []:
            if bridge not in there:
                problems.append(
                    "{} is on the bridge {} of {}, and {} has no bridge of that name, so it could not run there. Next: make one "
                    "on {}, or put the guest on a bridge that both have".format(
                        guest["name"], bridge, owner, host, host
                    )
                )
    return problems


def mixed_versions(guest, hosts):
    """What the hosts of a guest have in different versions, as far as their agents answer."""
    reasons = []
    for key, what, remedy in (
        ("version", "agent", "bring both to one release with playbooks/upgrade.yml"),
        ("xen_version", "Xen", "install the same Xen on both: a checkpoint of one cannot be restored by the other"),
    ):
        found = {host: hosts.get(host, {}).get(key) for host in guest["hosts"]}
        if len({version for version in found.values() if version}) > 1:
            said = ", ".join(f"{host} has {version}" for host, version in found.items())
            reasons.append(f"different versions of {what}: {said}. Next: {remedy}")
    return reasons


def verdict(entry, statuses):
    """One line for people."""
    name, owner = entry["name"], entry["owner"]
    status = statuses.get(owner) or {}
    if entry["taken_over"]:
        return "{}: runs unprotected on {}, taken over at epoch {} (generation {})".format(
            name, owner, status.get("committed_epoch"), status.get("generation")
        )
    if owner and status.get("role") == "primary":
        return "{}: {}, {} -> {}, generation {}, committed epoch {}, {} bytes held".format(
            name,
            status.get("state"),
            owner,
            status.get("peer"),
            status.get("generation"),
            status.get("committed_epoch"),
            status.get("held_bytes"),
        )
    if owner:
        return f"{name}: unprotected, runs on {owner}"
    if entry["holder"]:
        copy = statuses[entry["holder"]]
        return "{}: owner unknown, {} holds a copy ({}, committed epoch {}) of {}".format(
            name, entry["holder"], copy.get("state"), copy.get("committed_epoch"), copy.get("peer")
        )
    return f"{name}: seen nowhere"


def decide(guest, hosts):
    """The entry of one guest."""
    statuses, unsure, problems = {}, {}, []
    for host in guest["hosts"]:
        facts = hosts.get(host)
        if facts is None:
            problems.append(f"{host} is not in the inventory's group of hosts. Next: add it")
            continue
        if facts["error"]:
            problems.append("{} does not answer: {}".format(host, facts["error"]))
        if facts["seen"] and facts["toolstack_error"]:
            unsure[host] = facts["toolstack_error"]
        status = status_of(facts, guest["name"])
        if status is not None:
            statuses[host] = status
    owner = find_owner(guest, hosts, statuses, unsure, problems)
    problems += elsewhere(guest, hosts, statuses)
    problems += started_at_boot(guest, hosts)
    problems += unbridged(guest, owner, hosts)
    _dummy, copies, taken = holders(statuses)
    others = [host for host in guest["hosts"] if host != owner]
    other = others[0] if owner and len(others) == 1 else None
    state = (statuses.get(owner) or {}).get("state")
    entry = dict(
        guest,
        owner=owner,
        holder=copies[0] if copies else None,
        other=other,
        peer=hosts.get(other, {}).get("agent_name", other) if other else None,
        protected=state == "protected",
        replicating=state in PRIMARY_STATES,
        taken_over=owner is not None and owner in taken,
        status=statuses,
        unsure=unsure,
        problems=problems,
        mixed=mixed_versions(guest, hosts),
    )
    entry["verdict"] = verdict(entry, statuses)
    return entry


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "guests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "hosts": {"type": "list", "elements": "str", "required": True},
                    "interval_ms": {"type": "int"},
                    "output_limit_bytes": {"type": "int"},
                    "disks": {"type": "list", "elements": "dict"},
                    "members": {"type": "list", "elements": "dict"},
                },
            },
            "hosts": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    hosts = {name: heard(name, said) for name, said in module.params["hosts"].items()}
    guests = [decide(guest, hosts) for guest in module.params["guests"]]
    module.exit_json(changed=False, guests=guests)


if __name__ == "__main__":
    main()
