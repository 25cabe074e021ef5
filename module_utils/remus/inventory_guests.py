# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the variable remus_guests, told from the inventory alone.

Every function returns reasons: sentences without a full stop, each with the next step.
"""

from __future__ import annotations

import re

from ansible.module_utils.remus.inventory_hosts import agent_name

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,126}")
"""As the agents accept it: it becomes part of file names."""
GROUPED = 48
MARKS = ("--of-", "--incoming-")
"""Of a group and its members, as the agents accept them: copies of members are called after both."""
GROUPED_RULE = f"a group and its members have at most {GROUPED} characters, without {' and '.join(MARKS)}"
EXAMPLE = "see inventories/example/group_vars/all.yml"
KEYS = ("name", "hosts", "interval_ms", "output_limit_bytes", "disks", "members")
MEMBER_KEYS = ("name", "disks")
MOST_MEMBERS = 8
"""As the agents accept them."""
DISK_KEYS = ("vdev", "device", "metadata", "journal", "journal_bytes", "per_host")
PER_HOST_KEYS = ("device", "metadata", "journal", "journal_bytes")


def guest_reasons(guests, domain, hosts):
    """Of all guests. domain: the one that is asked for, or empty. hosts: variables by host, as in inventory_hosts."""
    if not isinstance(guests, list):
        return [f"remus_guests is not a list. Next: {EXAMPLE}"]
    reasons = different_lists(guests, hosts)
    names = []
    for number, guest in enumerate(guests, 1):
        if not isinstance(guest, dict):
            reasons.append(f"entry {number} of remus_guests is not a dictionary. Next: {EXAMPLE}")
            continue
        name = guest.get("name")
        if not name:
            reasons.append(f"entry {number} of remus_guests has no name. Next: name it as xl list shows it")
        elif not accepted(str(name), grouped=bool(guest.get("members"))):
            reasons.append(
                f"entry {number} of remus_guests is named '{name}', which no agent accepts. Next: rename it; {GROUPED_RULE}"
            )
        label = str(name or f"of entry {number}")
        names.append(str(name or ""))
        reasons += unknown_keys(guest, KEYS, f"guest {label}")
        reasons += pair_reasons(label, guest.get("hosts"), hosts)
        reasons += number_reasons(guest, f"guest {label}", {"interval_ms": 0, "output_limit_bytes": 1})
        reasons += disk_reasons(label, guest)
        reasons += member_reasons(label, guest)
        names += member_names(guest)
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        reasons.append(f"guest {name}: a guest is twice in remus_guests. Next: remove one of the two")
    units = [str(guest.get("name") or "") for guest in guests if isinstance(guest, dict)]
    if domain and domain in names and domain not in units:
        group = next(guest["name"] for guest in guests if isinstance(guest, dict) and domain in member_names(guest))
        reasons.append(
            f"remus_domain is {domain}, a member of the group {group}: it is protected with the others or not at all. "
            f"Next: use remus_domain={group}"
        )
    elif domain and domain not in units:
        known = ", ".join(name for name in units if name) or "empty"
        reasons.append(
            f"remus_domain is {domain}, which is not in remus_guests ({known}). "
            "Next: correct the name, or add the guest to the inventory"
        )
    return reasons


def accepted(name, grouped):
    """Do the agents accept this name?"""
    fits = len(name) <= GROUPED and not any(mark in name for mark in MARKS)
    return NAME.fullmatch(name) is not None and (fits or not grouped)


def different_lists(guests, hosts):
    """A list of its own on one host would be ignored by some playbooks and used by others. Their disks may differ: templates."""
    different = [
        name
        for name, facts in hosts.items()
        if "remus_guests" in facts and pairs(facts["remus_guests"]) != pairs(guests)
    ]
    if not different:
        return []
    return [
        f"remus_guests of {', '.join(different)} is not the list that the controller sees. "
        "Next: set it once for all, in group_vars/all.yml"
    ]


def pairs(guests):
    """[(name, hosts)], or whatever is there instead."""
    if not isinstance(guests, list):
        return guests
    return [(guest.get("name"), guest.get("hosts")) if isinstance(guest, dict) else guest for guest in guests]


def pair_reasons(label, pair, hosts):
    """Of the two hosts of a guest."""
    if not isinstance(pair, list):
        return [f"hosts of guest {label} is not a list. Next: name its two hosts, {EXAMPLE}"]
    reasons = []
    shown = ", ".join(map(str, pair)) or "none"
    needs = f"guest {label} needs two different hosts of the group remus_hosts, it has {shown}"
    twice = sorted({str(name) for name in pair if pair.count(name) > 1})
    unknown = [str(name) for name in pair if name not in hosts]
    if twice:
        reasons.append(f"{needs}: {', '.join(twice)} twice. Next: correct its hosts in remus_guests")
    if len(pair) > 2 and not twice:
        reasons.append(f"{needs}: {len(pair)} of them, and one keeps its copy. Next: leave two of them in remus_guests")
    if len(pair) < 2:
        reasons.append(f"{needs}. Next: name both in remus_guests")
    if unknown:
        reasons.append(
            f"{needs}: {', '.join(unknown)} unknown to that group. Next: correct the name, or add the host to the inventory"
        )
    if len(pair) == 2 and not unknown and not twice:
        for one, other in (pair, reversed(pair)):
            peers = hosts[one].get("remus_agent_peers")
            if isinstance(peers, dict) and agent_name(other, hosts) not in peers:
                reasons.append(
                    f"remus_agent_peers of {one} does not name {agent_name(other, hosts)}, which is the other host of "
                    f"guest {label}. Next: add it, or leave remus_agent_peers out"
                )
    return reasons


def member_names(guest):
    """Of a consistency group, as far as they are names."""
    members = guest.get("members")
    if not isinstance(members, list):
        return []
    return [str(member["name"]) for member in members if isinstance(member, dict) and member.get("name")]


def member_reasons(label, guest):
    """Of the members of a consistency group."""
    members = guest.get("members")
    if members is None:
        return []
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        return [f"members of guest {label} is not a list of dictionaries. Next: {EXAMPLE}"]
    reasons = []
    if not 2 <= len(members) <= MOST_MEMBERS:
        reasons.append(
            f"group {label} has {len(members)} members; 2 to {MOST_MEMBERS} are possible. Next: correct its members"
        )
    if guest.get("disks"):
        reasons.append(f"group {label} has disks of its own. Next: write them to the members that they belong to")
    for number, member in enumerate(members, 1):
        name = str(member.get("name") or "")
        what = f"member {name or number} of group {label}"
        if not name:
            reasons.append(f"{what} has no name. Next: name it as xl list shows it")
        elif not accepted(name, grouped=True):
            reasons.append(f"{what} has a name that no agent accepts. Next: rename the guest; {GROUPED_RULE}")
        reasons += unknown_keys(member, MEMBER_KEYS, what)
        reasons += disk_reasons(name or str(number), {"disks": member.get("disks"), "hosts": guest.get("hosts")})
    return reasons


def unknown_keys(entry, known, what):
    """A key that nobody reads is a mistake, or a wish that would be ignored without a word."""
    wrong = [str(key) for key in entry if key not in known]
    if not wrong:
        return []
    return [
        f"{what} has {', '.join(wrong)}, which nobody reads; allowed: {', '.join(known)}. Next: correct the spelling"
    ]


def number_reasons(entry, what, least):
    """least: the smallest value by key."""
    reasons = []
    for key, smallest in least.items():
        value = entry.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not str(value).isdigit() or int(value) < smallest:
            reasons.append(f"{key} of {what} is '{value}', not a whole number of at least {smallest}. Next: correct it")
    return reasons


def disk_reasons(label, guest):
    """Of the disks of a guest."""
    disks = guest.get("disks")
    if disks is None:
        return []
    if not isinstance(disks, list):
        return [f"disks of guest {label} is not a list. Next: {EXAMPLE}"]
    reasons, vdevs = [], []
    pair = guest.get("hosts")
    for number, disk in enumerate(disks, 1):
        if not isinstance(disk, dict):
            reasons.append(f"disk {number} of guest {label} is not a dictionary. Next: {EXAMPLE}")
            continue
        what = f"disk {disk.get('vdev') or number} of guest {label}"
        if not disk.get("vdev") or not disk.get("device"):
            reasons.append(f"disk {number} of guest {label} has no vdev or no device. Next: set both, {EXAMPLE}")
        vdevs.append(disk.get("vdev"))
        reasons += unknown_keys(disk, DISK_KEYS, what)
        reasons += number_reasons(disk, what, {"journal_bytes": 1})
        reasons += elsewhere(what, disk.get("per_host"), pair if isinstance(pair, list) else [])
    if any(vdev and vdevs.count(vdev) > 1 for vdev in vdevs):
        reasons.append(f"guest {label} has a vdev twice in its disks. Next: correct one of them")
    return reasons


def elsewhere(what, per_host, pair):
    """Of what is different on one host."""
    if per_host is None:
        return []
    if not isinstance(per_host, dict):
        return [f"per_host of {what} is not a dictionary. Next: {EXAMPLE}"]
    reasons = []
    wrong = [str(name) for name in per_host if name not in pair]
    if wrong:
        reasons.append(f"{what} has per_host for {', '.join(wrong)}, which are not its hosts. Next: correct the names")
    for name, values in per_host.items():
        if isinstance(values, dict):
            reasons += unknown_keys(values, PER_HOST_KEYS, f"per_host of {name} for {what}")
    return reasons
