#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""A bridge over a port of the host, to which the port's address moves."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: xen_host_bridge
short_description: Make a bridge over a port with ifupdown, on trial until it is kept
description:
  - Turns what C(/etc/network/interfaces) says of a port into the same of a bridge over that port, so that the port's address
    moves to the bridge. A port without an address gets a bridge without one.
  - With O(state=present) the host moves the address by itself a few seconds later, and back after O(seconds), unless
    O(state=kept) comes in between. Whoever gives that has reached the host over the bridge. Until then the files are as before.
  - It refuses what it does not understand, before anything is changed.
version_added: "0.1.0"
author:
  - The Remus for Xen authors
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  bridge:
    description: Name of the bridge.
    type: str
    required: true
  port:
    description: Name of the interface that becomes its port.
    type: str
    required: true
  state:
    description:
      - V(present) begins, unless the bridge is there.
      - V(tried) says whether the bridge is up on trial.
      - V(kept) makes it last.
    type: str
    choices: [present, tried, kept]
    default: present
  seconds:
    description: How long the bridge is up on trial before the host takes it away again.
    type: int
    default: 120
  token:
    description: With O(state=kept), what O(state=tried) returned.
    type: str
seealso:
  - module: xen_host_info
"""

EXAMPLES = r"""
- name: Begin
  xen_host_bridge:
    bridge: xenbr0
    port: eno1

- name: Read the token over the new network
  xen_host_bridge:
    bridge: xenbr0
    port: eno1
    state: tried
  register: tried
  until: tried.up
  retries: 60

- name: Keep it
  xen_host_bridge:
    bridge: xenbr0
    port: eno1
    state: kept
    token: "{{ tried.token }}"
"""

RETURN = r"""
up:
  description: Whether the bridge is up on trial.
  returned: when O(state=tried)
  type: bool
token:
  description: What O(state=kept) needs.
  returned: when O(state=tried) and RV(up) is true
  type: str
"""

import glob
import json
import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import bridge_plan, files, interfaces
from ansible.module_utils.remus.bridge_trial import UNIT, Trial

INTERFACES = "/etc/network/interfaces"
SYS = "/sys/class/net"
RUN = "/run/remus-bridge"


def configuration(path):
    """{path: text} of a file and all that it takes in. Bytes of another encoding are kept, see files.as_bytes."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as source:
            text = source.read()
    except OSError:
        return {}
    found = {path: text}
    for word, pattern in interfaces.sources(text):
        whole = os.path.join(os.path.dirname(path), pattern)
        names = sorted(glob.glob(whole if word == "source" else os.path.join(whole, "*")))
        for name in names:
            wanted = word == "source" or re.match(r"^[A-Za-z0-9_-]+$", os.path.basename(name))
            if wanted and name not in found and os.path.isfile(name):
                found.update(configuration(name))
    return found


def addressed(port):
    """Has the port an address that it did not make up itself?"""
    done = subprocess.run(["ip", "-json", "address", "show", "dev", port], capture_output=True, text=True, check=False)
    facts = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    found = [address for entry in facts for address in entry.get("addr_info", []) if address.get("scope") == "global"]
    return any(address["family"] == "inet" or not address.get("dynamic") for address in found)


def kernel(bridge, port):
    """What the kernel has of both."""
    master = os.path.join(SYS, port, "master")
    return {
        "port": os.path.isdir(os.path.join(SYS, port)),
        "master": os.path.basename(os.readlink(master)) if os.path.islink(master) else None,
        "bridge": os.path.isdir(os.path.join(SYS, bridge)),
        "addressed": addressed(port),
    }


def present(params, check):
    """Begin, where there is something to do. Raises Refused."""
    bridge, port, trial = params["bridge"], params["port"], Trial(RUN)
    if trial.going_on:  # of a run that was interrupted; what the kernel has of it would be taken for somebody else's
        raise interfaces.Refused(f"{bridge} is on trial now. Next: wait {params['seconds']} seconds and begin again")
    plan = bridge_plan.plan(bridge, port, INTERFACES, configuration(INTERFACES), kernel(bridge, port))
    if plan is None:
        return {"changed": False}
    if not check:
        script = trial.prepare(bridge, port, plan.alone, plan.known, params["seconds"])
        try:
            trial.begin(script)
        except (OSError, subprocess.CalledProcessError):
            trial.forget()
            raise
    return {"changed": True, "diff": plan.as_diff()}


def tried(bridge):
    """Whether it is up. Raises Refused where it never will be."""
    trial = Trial(RUN)
    if trial.undone:
        raise interfaces.Refused(
            f"{bridge} could not be kept, and the network is as it was. Next: see 'journalctl -u {UNIT}' on the host"
        )
    return {"changed": False, "up": trial.token is not None, **({"token": trial.token} if trial.token else {})}


def kept(params, check):
    """Write what was tried. Raises Refused."""
    bridge, port, trial = params["bridge"], params["port"], Trial(RUN)
    live = dict(kernel(bridge, port), master=None, bridge=False, addressed=False)  # as before the trial
    plan = bridge_plan.plan(bridge, port, INTERFACES, configuration(INTERFACES), live)
    if plan is None or (not check and not trial.keep(params["token"], plan.path, plan.after)):
        raise interfaces.Refused(
            f"{bridge} is not on trial any more. Next: see 'journalctl -u {UNIT}' on the host, and begin again"
        )
    return {"changed": True}


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "bridge": {"type": "str", "required": True},
            "port": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "tried", "kept"], "default": "present"},
            "seconds": {"type": "int", "default": 120},
            "token": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "present":
            result = present(module.params, module.check_mode)
        elif module.params["state"] == "tried":
            result = tried(module.params["bridge"])
        else:
            result = kept(module.params, module.check_mode)
    except interfaces.Refused as refused:
        module.fail_json(msg=files.readable(str(refused)))
    except subprocess.CalledProcessError as failure:
        module.fail_json(msg=f"systemd did not take it: {failure.stderr.strip()}")
    except OSError as failure:
        module.fail_json(msg=f"{failure}. The files are as before.")
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
