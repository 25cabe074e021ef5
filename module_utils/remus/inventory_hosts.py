# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the hosts and the witnesses of an inventory, told from their variables alone.

Every function returns reasons: sentences without a full stop, each with the next step.
"""

from __future__ import annotations

import ipaddress

PORT = 7789
"""Of the agents, where the inventory names none."""


def address_of(text):
    """A host's address in its one form, or None where the text is no address of a single host."""
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_multicast else address


def truth(value):
    """A variable as Ansible's filter bool reads it."""
    return str(value).strip().lower() in ("true", "yes", "on", "1", "y", "t")


def shared(hosts, key):
    """[(names, value)] of everything that several hosts have in common; key(facts): None where it does not count."""
    found = {}
    for name, facts in hosts.items():
        value = key(facts)
        if value is not None:
            found.setdefault(value, []).append(name)
    return [(" and ".join(names), value) for value, names in found.items() if len(names) > 1]


def machine(facts):
    """How ssh reaches a host, or None where the inventory says nothing of it: its name is the address then."""
    where = facts.get("ansible_host")
    if not where:
        return None
    return str(where), str(facts.get("ansible_port") or 22), str(facts.get("ansible_ssh_common_args") or "")


def agent_name(name, hosts):
    """A host's name among the agents."""
    return str(hosts[name].get("remus_agent_name") or name)


def replication_address(facts):
    """The address of a host on the replication network, as it is written, or an empty text."""
    return str(facts.get("remus_agent_replication_address") or facts.get("remus_replication_address") or "")


def speaks_tls(facts):
    """Will this host's agent use TLS?"""
    return truth(facts.get("remus_agent_tls", facts.get("remus_pki_enabled", False)))


def host_reasons(hosts):
    """Of the group remus_hosts."""
    reasons = []
    if len(hosts) < 2:
        reasons.append("the group remus_hosts has fewer than two hosts. Next: see inventories/example/hosts.yml")
    for name, facts in hosts.items():
        reasons += own_addresses(name, facts)
        reasons += own_peers(name, hosts)
    for names, address in shared(hosts, lambda facts: address_of(replication_address(facts))):
        reasons.append(f"{names} have the same remus_replication_address {address}. Next: give each its own")
    for variable in ("remus_second_address", "remus_monitoring_address"):
        for names, address in shared(hosts, lambda facts, name=variable: address_of(facts.get(name))):
            reasons.append(f"{names} have the same {variable} {address}. Next: give each its own")
    for names, where in shared(hosts, machine):
        reasons.append(
            f"{names} are the same machine, {where[0]} port {where[1]}: nothing of a pair survives it. "
            "Next: correct ansible_host of one of them, or take it out of the inventory"
        )
    by_agent = {name: {"agent": agent_name(name, hosts)} for name in hosts}
    for names, agent in shared(by_agent, lambda facts: facts["agent"]):
        reasons.append(f"{names} have the same remus_agent_name {agent}. Next: give each its own")
    secured = [name for name, facts in hosts.items() if speaks_tls(facts)]
    if secured and len(secured) < len(hosts):
        plain = [name for name in hosts if name not in secured]
        reasons.append(
            f"{', '.join(secured)} will use TLS and {', '.join(plain)} will not, so they do not reach each other. "
            "Next: set remus_pki_enabled alike for all hosts"
        )
    return reasons


def own_addresses(name, facts):
    """Of the addresses of one host."""
    reasons = []
    variables = ("remus_second_address", "remus_monitoring_address")
    replication = replication_address(facts)
    if not replication:
        reasons.append(f"{name} has no remus_replication_address. Next: set its address on the replication network")
    elif address_of(replication) is None:
        reasons.append(
            f"remus_replication_address of {name} is '{replication}', not the address of one host. Next: correct it"
        )
    for variable in variables:
        text = facts.get(variable)
        if text and address_of(text) is None:
            reasons.append(
                f"{variable} of {name} is '{text}', not the address of one host. Next: correct it, or leave it out"
            )
    second = address_of(facts.get("remus_second_address"))
    if second is not None and second == address_of(replication):
        reasons.append(
            f"remus_second_address of {name} is its remus_replication_address, so both paths would be lost together. "
            "Next: set its address on another network, or leave it out"
        )
    return reasons


def own_peers(name, hosts):
    """Of the peers that one host names itself; without remus_agent_peers they are all other hosts, which is right."""
    peers = hosts[name].get("remus_agent_peers")
    if peers is None:
        return []
    if not isinstance(peers, dict):
        return [f"remus_agent_peers of {name} is not a dictionary. Next: name: address:port, or leave it out"]
    reasons = []
    agents = {agent_name(other, hosts): facts for other, facts in hosts.items() if other != name}
    own = agent_name(name, hosts)
    for peer, where in peers.items():
        if peer == own:
            reasons.append(f"remus_agent_peers of {name} names the host itself. Next: take {peer} out of it")
        elif peer not in agents:
            reasons.append(
                f"remus_agent_peers of {name} names {peer}, which is no agent of the group remus_hosts "
                f"({', '.join(sorted(agents))}). Next: correct the name, or take it out"
            )
        else:
            facts = agents[peer]
            host, _dummy, port = str(where).rpartition(":")
            wanted = replication_address(facts)
            wanted_port = str(facts.get("remus_agent_replication_port") or PORT)
            if (address_of(host.strip("[]")), port) != (address_of(wanted), wanted_port):
                reasons.append(
                    f"remus_agent_peers of {name} has {peer} at {where}, but its agent listens at {wanted} port {wanted_port}. "
                    "Next: correct one of the two"
                )
    return reasons


def witness_reasons(witnesses, hosts):
    """Of the group remus_witnesses."""
    reasons = []
    if len(witnesses) not in (0, 1, 3):
        reasons.append(
            f"the group remus_witnesses has {len(witnesses)} hosts ({', '.join(witnesses)}), it must have one or three: "
            "a majority of two is both. Next: remove one, or add a third"
        )
    variables = ("remus_second_address", "remus_monitoring_address")
    theirs = {address_of(facts.get(variable)) for facts in hosts.values() for variable in variables}
    theirs |= {address_of(replication_address(facts)) for facts in hosts.values()}
    machines = {machine(facts) for facts in hosts.values()}
    for name, facts in witnesses.items():
        text = facts.get("remus_witness_address")
        address = address_of(text)
        is_host = machine(facts) is not None and machine(facts) in machines
        if name in hosts or is_host or (address is not None and address in theirs):
            reasons.append(
                f"witness {name} is one of the hosts of remus_hosts: it would be lost together with the guests that it has to "
                "decide about. Next: use a third machine"
            )
        if not text:
            reasons.append(
                f"witness {name} has no remus_witness_address. Next: set the address at which the agents reach it"
            )
        elif address is None:
            reasons.append(
                f"remus_witness_address of {name} is '{text}', not the address of one host. Next: correct it"
            )
    for names, address in shared(witnesses, lambda facts: address_of(facts.get("remus_witness_address"))):
        reasons.append(
            f"two witnesses have the same remus_witness_address: {names}, {address}. Next: give each its own"
        )
    plain = [
        name
        for name, facts in hosts.items()
        if truth(facts.get("remus_witness_enabled", True)) and not speaks_tls(facts)
    ]
    if witnesses and plain:
        reasons.append(
            f"the witness accepts certificates only, and {', '.join(plain)} will have none. "
            "Next: set remus_pki_enabled to true for all hosts and witnesses, or remus_witness_enabled to false"
        )
    return reasons
