#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""In which order the agents of a pair are brought to another release, and what stands against it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_upgrade_plan
short_description: Decide in which order agents get another release, and whether now
description:
  - Runs on the controller over what C(remus_protection_info) and C(remus_release_info) returned for every host. It changes
    nothing.
  - Hosts that keep copies come before hosts where guests run. Two agents that have a guest in common must speak the same version
    of their protocol after each single step.
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
  hosts:
    description:
      - What is known of each host, by its name in the inventory. C(agent) is the result of C(remus_protection_info) there as it
        is, also of a failure; C(current), C(previous), C(releases) and C(running) are what C(remus_release_info) says.
      - C(release) and C(protocol) are those of the release that it shall run; without O(back) they are needed.
      - C(notes) is what C(remus_notes_info) says; with O(back), what waits there to run stands against it.
    type: dict
    required: true
  back:
    description: >-
      Go back to the previous release of each host. Neither a protection that is interrupted stands against that nor an agent that
      does not answer; what an agent has noted as about to run does, whether it answers or not.
    type: bool
    default: false
  accept_unprotected:
    description: Go on although guests are not protected that should be.
    type: bool
    default: false
seealso:
  - module: remus_notes_info
  - module: remus_release_info
  - module: remus_topology
"""

EXAMPLES = r"""
- name: Decide who is first
  remus_upgrade_plan:
    hosts:
      alpha:
        agent: {agent: {host: alpha}, domains: [{domain: web1, role: primary, state: protected, peer: beta}]}
        current: 0.1.0-aaaa
        releases: {0.1.0-aaaa: {protocol: 2}}
        running: {remus-agent: 0.1.0-aaaa}
        release: 0.2.0-bbbb
        protocol: 2
      beta:
        agent: {agent: {host: beta}, domains: [{domain: web1, role: backup, state: ready, peer: alpha}]}
        current: 0.1.0-aaaa
        releases: {0.1.0-aaaa: {protocol: 2}}
        running: {remus-agent: 0.1.0-aaaa}
        release: 0.2.0-bbbb
        protocol: 2
  delegate_to: localhost
  register: plan
"""

RETURN = r"""
steps:
  description: >-
    The hosts in the order in which they are done. C(host); C(before), the release that its services run, or null; C(release),
    which they shall run; C(needed), whether something is to be changed for that; C(guests), with which the host has to do;
    C(earlier), the hosts that are changed before it.
  returned: success
  type: list
  elements: dict
guests:
  description: Every guest that is protected now, with C(name) and C(hosts), the two hosts that have to do with it.
  returned: success
  type: list
  elements: dict
reasons:
  description: What stands against it, each with the next step; empty where nothing does.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus.arguments import silent_because

OVER = ("unprotected", "failed", "discarded", "stale", "absent", "active")
"""States in which this host's agent holds nothing of a guest that a restart could interrupt."""
INTERRUPTED = ("connecting", "seeding", "silent", "solo", "receiving", "orphaned")
"""States in which a guest is not protected but shall be."""


def asked(facts):
    """The answer of a host's agent, or of its failure."""
    return facts.get("agent") or {}


def domains(facts):
    """Statuses that a host's agent gave."""
    return asked(facts).get("domains") or []


def by_guest(hosts):
    """{guest: {host: status}} of everything that agents look after."""
    guests = {}
    for host, facts in hosts.items():
        for status in domains(facts):
            if status.get("role") in ("primary", "backup") and status.get("state") not in OVER:
                guests.setdefault(status["domain"], {})[host] = status
    return guests


def health(guests, back, accept_unprotected):
    """Why agents must not be restarted at this moment."""
    reasons = []
    for name, statuses in sorted(guests.items()):
        said = ", ".join(f"{host} says {status.get('state')}" for host, status in statuses.items())
        owners = [host for host, status in statuses.items() if status.get("role") == "primary"]
        states = {status.get("state") for status in statuses.values()}
        if len(owners) > 1:
            reasons.append(
                f"{name} is claimed by {' and '.join(owners)} at once ({said}). Next: docs/runbook.md, 'RemusTwoOwners'"
            )
        elif states - {"protected", "ready", *INTERRUPTED}:
            reasons.append(
                f"{name} is changing its state or its host ({said}). Next: wait until that is over, or look it up in "
                "docs/runbook.md, then run this again"
            )
        elif "protected" not in states and not (back or accept_unprotected):
            reasons.append(
                f"{name} is not protected ({said}). Next: 'remusctl events {name} --problems' says why; when it is protected "
                "again, or its protection was ended, run this again. To go on nevertheless: -e remus_upgrade_unprotected=true"
            )
    return reasons


def noted(host, facts):
    """What waits on a host to run, and its agent does not say so itself: a release from before may destroy it."""
    notes = facts.get("notes") or {}
    if notes and facts.get("current") and "starting" not in notes:
        return [
            f"what waits on {host} to run is not known: {notes.get('msg')}. Next: remove the reason, then run this again"
        ]
    said = [status["domain"] for status in domains(facts)]
    reasons = []
    for note in notes.get("starting") or []:
        if note["name"] in said:
            continue
        by = f"an operator's word, that {note['word']}" if note.get("word") else "the witness's word, or its old host's"
        reasons.append(
            f"{note['name']} is built on {host} and about to run there by {by}, which the agent of {host} does not say. It "
            f"stands paused, as {note['name']} or {note['working_name']}, and a release from before may destroy it at once. "
            f"Next: have the agent of {host} answer ('journalctl -u remus-agent' there says why it does not) and finish what "
            "waits, or finish it by hand: docs/runbook.md, 'A guest is `starting`'; then run this again"
        )
    for note in notes.get("unreadable") or []:
        reasons.append(
            f"{note['path']} on {host} cannot be read ({note['problem']}), so nobody knows whether a guest is built there that a "
            "release from before may destroy at once. Next: docs/runbook.md, 'A protection was not resumed', then run this again"
        )
    return reasons


def target(facts, back):
    """(release, protocol) that a host shall run; None where there is none."""
    if not back:
        return facts.get("release"), facts.get("protocol")
    release = facts.get("previous")
    known = (facts.get("releases") or {}).get(release)
    return (release, known.get("protocol")) if known else (None, None)


def usable(host, facts, back):
    """Why a host cannot be brought to its release at all."""
    silent = silent_because(asked(facts))
    # Going back is what helps an agent that does not start.
    if silent and not (back and facts.get("current")):
        return [
            f"{host} does not answer: {silent}. Next: 'journalctl -u remus-agent' there says why; where a run was interrupted "
            f"that had written the files of another release, 'playbooks/site.yml -e remus_target={host}' finishes it"
        ]
    if not facts.get("current"):
        return [f"{host} has no release of the agent. Next: playbooks/site.yml installs the first one"]
    if target(facts, back)[0]:
        return []
    previous = facts.get("previous")
    if not back:
        return [f"nobody says which release {host} shall run. Next: run playbooks/upgrade.yml as a whole"]
    missing = (
        f"the previous release of {host}, {previous}, is not installed any more"
        if previous
        else f"{host} has no previous release"
    )
    return [
        f"{missing}; it has {facts['current']}. Next: check out the version that you want, and run playbooks/upgrade.yml "
        "from there"
    ]


def steps(hosts, guests, back):
    """Hosts that keep copies first, then by the number of guests that run there, then as the inventory has them."""

    def runs(host):
        return sum(1 for statuses in guests.values() if (statuses.get(host) or {}).get("role") == "primary")

    found = []
    for host in sorted(hosts, key=runs):
        facts = hosts[host]
        release = target(facts, back)[0]
        processes = list((facts.get("running") or {}).values())
        found.append(
            {
                "host": host,
                "before": next((one for one in reversed(processes) if one), None),
                "release": release,
                # Files that its agent has not read are there from a run that was interrupted, also in what it undid.
                "needed": facts.get("current") != release
                or any(one != release for one in processes)
                or bool(asked(facts).get("unread")),
                "guests": sorted(name for name, statuses in guests.items() if host in statuses),
                "earlier": [step["host"] for step in found if step["needed"]],
            }
        )
    return found


def languages(order, hosts, guests, back):
    """Pairs that could not talk to each other for a while, or for good."""
    reasons = []
    speaks = {}
    for step in order:
        facts = hosts[step["host"]]
        speaks[step["host"]] = ((facts.get("releases") or {}).get(step["before"] or facts.get("current")) or {}).get(
            "protocol"
        )
    for step in order:
        host = step["host"]
        if not step["needed"]:
            continue
        speaks[host] = target(hosts[host], back)[1]
        for other in sorted(
            {other for statuses in guests.values() if host in statuses for other in statuses if other != host}
        ):
            if speaks[host] is None or speaks[host] != speaks[other]:
                common = sorted(name for name, statuses in guests.items() if host in statuses and other in statuses)
                reasons.append(
                    f"{host} with {step['release']} would speak protocol {speaks[host] or 'unknown'} and {other} protocol "
                    f"{speaks[other] or 'unknown'}, so {', '.join(common)} could not stay protected. Next: end its protection "
                    "(playbooks/unprotect.yml), run this again, and protect it again"
                )
    return reasons


def plan(hosts, back, accept_unprotected):
    """The module's result."""
    guests = by_guest(hosts)
    reasons = [reason for host, facts in hosts.items() for reason in usable(host, facts, back)]
    reasons += health(guests, back, accept_unprotected)
    if back:
        reasons += [reason for host, facts in hosts.items() for reason in noted(host, facts)]
    order = steps(hosts, guests, back)
    if not reasons:
        reasons += languages(order, hosts, guests, back)
    protected = [
        {"name": name, "hosts": sorted(statuses)}
        for name, statuses in sorted(guests.items())
        if "protected" in {status.get("state") for status in statuses.values()}
    ]
    return {"steps": order, "guests": protected, "reasons": reasons}


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "required": True},
            "back": {"type": "bool", "default": False},
            "accept_unprotected": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.exit_json(
        changed=False, **plan(module.params["hosts"], module.params["back"], module.params["accept_unprotected"])
    )


if __name__ == "__main__":
    main()
