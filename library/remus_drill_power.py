#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""A host that the other one's agent has switched off in a drill, switched on again."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_drill_power
short_description: Switch a host on again that was fenced in a drill
description:
  - Runs on a host of the pair, for the other one. An agent that takes a guest over switches the host off from which it takes
    it, where it has a fence agent for that host, and nobody else switches it on again.
  - The host has to be seen on for so long that no takeover which has begun can still switch it off, by what the agent's own
    configuration says (C(detect) of its timeouts, C(timeout) of the fence agent).
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
  fence:
    description: Name among the agents of the other host.
    type: str
    required: true
  state:
    description:
      - V(known) says only which fence agent is configured for it.
      - V(powered) switches it on, again where it has to, until it stays on. In check mode its power is only looked at.
    type: str
    choices: [known, powered]
    default: powered
  configuration:
    description: Configuration of this host's agent.
    type: path
    default: /etc/remus/agent.toml
  timeout:
    description: Seconds for the host to be on.
    type: int
    default: 360
seealso:
  - module: remus_drill_fault
  - module: remus_drill_plan
"""

EXAMPLES = r"""
- name: Have alpha on again
  remus_drill_power:
    fence: alpha
  delegate_to: beta
"""

RETURN = r"""
agent:
  description: The fence agent's program, empty where none is configured.
  returned: success
  type: str
by_hand:
  description: The command that switches the host on from this one; empty where no fence agent is configured.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import drill_fences
from ansible.module_utils.remus.drill_fences import Cannot


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "fence": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["known", "powered"], "default": "powered"},
            "configuration": {"type": "path", "default": "/etc/remus/agent.toml"},
            "timeout": {"type": "int", "default": 360},
        },
        supports_check_mode=True,
    )
    params = module.params
    hand = ""

    def run(line):
        return module.run_command(["/bin/sh", "-c", line])[0]

    try:
        if params["state"] == "known":
            fence = drill_fences.configured(params["configuration"], params["fence"])
        else:
            fence = drill_fences.fence_of(params["configuration"], params["fence"])
        hand = drill_fences.told(fence, "on") if fence else ""
        if params["state"] == "known":
            changed = False
        elif module.check_mode:
            changed = run(drill_fences.told(fence, "status")) == drill_fences.OFF
        else:
            changed = drill_fences.see_on(run, fence, params["timeout"])
    except Cannot as cannot:
        module.fail_json(msg=str(cannot), by_hand=hand)
    module.exit_json(changed=changed, agent=fence["program"] if fence else "", by_hand=hand)


if __name__ == "__main__":
    main()
