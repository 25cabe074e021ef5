#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an inventory, all of it at once."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_inventory
short_description: Name everything that is wrong with the inventory
description:
  - Runs on the controller over the variables of the hosts and of the guests, before any host is asked. It changes nothing, and it
    never fails because of what it finds. What only the hosts can say (devices, networks, Xen) is not its matter.
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
      - The hosts of the group remus_hosts by their names, each with those of its variables that are set. Read are
        C(ansible_host), C(ansible_port), C(ansible_ssh_common_args), C(remus_agent_name), C(remus_agent_peers),
        C(remus_agent_replication_address), C(remus_agent_replication_port), C(remus_agent_tls), C(remus_guests),
        C(remus_monitoring_address), C(remus_pki_enabled), C(remus_replication_address), C(remus_second_address) and
        C(remus_witness_enabled).
    type: dict
    required: true
  witnesses:
    description: The hosts of the group remus_witnesses in the same way. Of them C(remus_witness_address) is read besides.
    type: dict
    default: {}
  guests:
    description: The variable remus_guests, whatever it is.
    type: raw
    default: []
  domain:
    description: Name of the one guest that a playbook was asked to look at. Empty means all.
    type: str
    default: ""
  ansible_version:
    description: Version of ansible-core on the controller.
    type: str
    required: true
seealso:
  - module: remus_topology
"""

EXAMPLES = r"""
- name: Look at the inventory
  remus_inventory:
    ansible_version: "{{ ansible_version.full }}"
    hosts:
      xen1: {remus_replication_address: 192.0.2.1}
      xen2: {remus_replication_address: 192.0.2.2}
    guests: "{{ remus_guests }}"
  delegate_to: localhost
  register: inventory
"""

RETURN = r"""
reasons:
  description: What is wrong, each with the next step; empty where nothing is.
  returned: success
  type: list
  elements: str
  sample: ["xen1 has no remus_replication_address. Next: set its address on the replication network"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus.inventory_guests import guest_reasons
from ansible.module_utils.remus.inventory_hosts import host_reasons, witness_reasons

OLDEST = (2, 19)
"""Of ansible-core: before it, templates of undefined variables behave in another way."""


def version_reasons(version):
    """Is this ansible-core new enough?"""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return [f"ansible-core {version} is too old. Next: install 2.19 or newer"]
    return []


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "required": True},
            "witnesses": {"type": "dict", "default": {}},
            "guests": {"type": "raw", "default": []},
            "domain": {"type": "str", "default": ""},
            "ansible_version": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    reasons = [
        *version_reasons(params["ansible_version"]),
        *host_reasons(params["hosts"]),
        *witness_reasons(params["witnesses"], params["hosts"]),
        *guest_reasons(params["guests"], params["domain"], params["hosts"]),
    ]
    module.exit_json(changed=False, reasons=reasons)


if __name__ == "__main__":
    main()
