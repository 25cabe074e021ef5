#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What the agent of this host knows."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_protection_info
short_description: Read which guests are protected, by whom, and how well
description:
  - Asks the C(remus-agent) of this host for its facts and for the status of one guest or of all. It changes nothing.
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
    support: N/A
options:
  name:
    description: Name of one guest; left out, all guests that the agent knows. It is no error when the agent does not know it.
    type: str
  events:
    description: Return up to this many of the newest events as well.
    type: int
    default: 0
  timeout:
    description: Seconds to wait for the agent.
    type: int
    default: 30
  wait:
    description: Try until O(timeout) to reach the agent, as after a start of its service.
    type: bool
    default: false
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/remus/agent.sock
seealso:
  - module: remus_protection
  - module: remus_failover
"""

EXAMPLES = r"""
- name: Ask who is who
  remus_protection_info:
    name: web1
  register: web1

- name: Say it
  ansible.builtin.debug:
    msg: "{{ web1.domains | map(attribute='role') | list }}"
"""

RETURN = r"""
agent:
  description: Facts of the agent.
  returned: success
  type: dict
  contains:
    host:
      description: Name of this host among the agents.
      type: str
    version:
      description: Version of the agent.
      type: str
    release:
      description: >-
        Its release, version and build, as C(remus_release_info) names releases; none where the agent was not installed as one.
      type: str
    xen_version:
      description: Version of Xen.
      type: str
    peers:
      description: Other agents by name, each with C(address) and where known C(reachable).
      type: dict
    shared_cost:
      description:
        - What the agent's own process uses for all guests together, or for none, C(cpu_seconds) since it started and
          C(memory_bytes) now; none where that is not known.
      type: dict
    watchdog:
      description:
        - Of the host's watchdog, none where it is off. C(armed) and C(seconds); C(guests), for which it is armed; C(problem), why
          it is not as it should be, or none.
      type: dict
    tls:
      description: Of the host's certificate, none where connections are not encrypted. C(days_left), or C(error).
      type: dict
    configuration:
      description: SHA-256 of each configuration file as the agent has read it, by its path; none for one that was not there.
      type: dict
unread:
  description:
    - Configuration files that are others now than the agent has read. It reads them when it starts, so it has to be restarted
      for them. Empty also where the agent, or this module, cannot tell.
  returned: success
  type: list
  elements: str
domains:
  description:
    - Status of each guest; empty where the agent does not know O(name).
    - C(cost) is what this host spends on its protection alone, C(cpu_seconds) of dom0's processors since the agent started and
      C(memory_bytes) of dom0 now, and in C(parts) the same of each C(part), which is C(checkpoints), C(copy) or C(disks); none
      where nothing is protected. Of a consistency group each of its C(members) has such a C(cost) of its own, of what is there
      for that guest alone. The event loop, which all guests share, is not in it but in RV(agent.shared_cost).
  returned: success
  type: list
  elements: dict
  sample: [{"domain": "web1", "role": "primary", "state": "protected", "peer": "beta", "committed_epoch": 812}]
events:
  description: Newest events, oldest first.
  returned: when O(events) is above 0
  type: list
  elements: dict
error:
  description: The failure as data.
  returned: failure
  type: dict
"""

import hashlib
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import files
from ansible.module_utils.remus.arguments import common_spec
from ansible.module_utils.remus.client import ControlClient
from ansible.module_utils.remus.errors import AgentUnavailable, RemusClientError


def reach(client, timeout, wait, clock=time.monotonic, pause=time.sleep):
    """The agent's facts; with wait, try until the deadline."""
    deadline = clock() + timeout
    while True:
        try:
            return client.call("agent", timeout=timeout)
        except AgentUnavailable:
            if not wait or clock() >= deadline:
                raise
            pause(0.5)


def unread(digests):
    """Files that are others than the agent has read. digests: what it says of them, None where its release does not."""
    found = []
    for path, digest in sorted((digests or {}).items()):
        try:
            content = files.read(path)
        except OSError:
            continue  # members of the agent's administration group may ask it, and not read them
        if digest != (None if content is None else hashlib.sha256(content).hexdigest()):
            found.append(path)
    return found


def read(client, params):
    """Everything that was asked for."""
    agent = reach(client, params["timeout"], params["wait"])
    result = {"changed": False, "agent": agent, "unread": unread(agent.get("configuration"))}
    if params["name"] is None:
        result["domains"] = client.domains()
    else:
        status = client.status(params["name"])
        result["domains"] = [] if status is None else [status]
    if params["events"] > 0:
        request = {"since": 0, "limit": params["events"]}
        if params["name"] is not None:
            request["domain"] = params["name"]
        result["events"] = client.call("events", request)["events"]
    return result


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec=common_spec(
            name={"type": "str"},
            events={"type": "int", "default": 0},
            timeout={"type": "int", "default": 30},
            wait={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    try:
        with ControlClient(module.params["socket"], timeout=module.params["timeout"]) as client:
            result = read(client, module.params)
    except RemusClientError as failure:
        module.fail_json(**failure.as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
