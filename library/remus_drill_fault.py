#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""One fault of a drill on one host: begun after its undoing is arranged for, and undone."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_drill_fault
short_description: Begin or undo one fault of a drill on one host
description:
  - Before anything is broken, the commands that undo it are handed to the host's own systemd, which runs them when the time is
    over, whatever becomes of the controller. Both are in C(run_dir), below C(/run), so that nothing of it outlives a boot.
  - The file C(undone) there says that the fault is over, as seen by a look at the host. Undoing may be done twice.
  - Faults that take the host away begin some seconds later, when this module has long answered.
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
  state:
    description:
      - V(begun) begins the fault. In check mode it says what would be done, and whether it could be.
      - V(undone) undoes one that was begun; it is no error when there is none. A fault that cannot be undone is one.
    type: str
    choices: [begun, undone]
    default: begun
  fault:
    description: The fault. Needed for O(state=begun).
    type: str
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
  seconds:
    description: How long it is held. The host undoes it then by itself.
    type: int
    default: 20
  unit:
    description: Unit that is killed, frozen, stopped, or whose writes are stalled.
    type: str
    default: remus-agent.service
  links:
    description: Of faults of links, each path to the other host.
    type: list
    elements: dict
    default: []
    suboptions:
      local:
        description: Address of this host on the path; its interface is the one that is touched.
        type: str
        required: true
      peer:
        description: Address of the other host.
        type: str
        required: true
  delay_ms:
    description: How late what is sent shall be, with O(fault=slow_link).
    type: int
    default: 200
  path:
    description: Something on the file system to which the unit's writes are stalled.
    type: path
    default: /var/lib/remus
  fence:
    description:
      - With O(fault=host_power_loss), name among the agents of the host that is switched off from here, by the fence agent that
        the configuration of this host's agent has for it. Without it this host is reset.
    type: str
  configuration:
    description: Configuration of this host's agent.
    type: path
    default: /etc/remus/agent.toml
  run_dir:
    description: Folder for the two scripts and the marks.
    type: path
    default: /run/remus-drill
seealso:
  - module: remus_drill_plan
"""

EXAMPLES = r"""
- name: Let this host hear nothing of the other one for half a minute
  remus_drill_fault:
    fault: one_way_cut
    seconds: 30
    links:
      - local: 192.0.2.1
        peer: 192.0.2.2

- name: Undo it now
  remus_drill_fault:
    state: undone
"""

RETURN = r"""
begin:
  description: The lines that begin the fault.
  returned: O(state=begun)
  type: list
  elements: str
undo:
  description: The lines that undo it.
  returned: O(state=begun)
  type: list
  elements: str
begins_in:
  description: Seconds until it begins, 0 where it has begun.
  returned: O(state=begun)
  type: int
undone:
  description: >-
    What undid the fault, V(timer) (the host itself), V(now) (this call) or V(nothing) where there was none.
  returned: O(state=undone)
  type: str
by_hand:
  description: The command that undoes it on this host at any time.
  returned: always
  type: str
"""

import json
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import drill_faults
from ansible.module_utils.remus.drill_fences import Cannot, fence_of

UNDO, BEGIN = "remus-drill-undo", "remus-drill-begin"
SOON = 5
"""Seconds until a fault begins that takes the host away: on a busy one even the end of this module takes some."""
GRACE = 5
"""Seconds between the end of the held time and the host's own undoing, so that who holds it may be first. None where the host
cannot be reached meanwhile."""


def interface_of(module, address):
    """The interface that has an address of this host."""
    _rc, out, _err = module.run_command(["ip", "-json", "address", "show", "to", address])
    try:
        found = [entry["ifname"] for entry in json.loads(out or "[]") if entry.get("ifname")]
    except ValueError:
        found = []
    if not found:
        raise Cannot(
            f"no interface has the address {address}. Next: correct the inventory, see playbooks/preflight.yml"
        )
    return found[0]


def links_of(module, fault):
    """[{interface, peer}], after a look whether their queues are free."""
    links = [
        {"interface": interface_of(module, link["local"]), "peer": link["peer"]} for link in module.params["links"]
    ]
    if not links:
        raise Cannot(f"{fault} needs links. Next: name at least one")
    for interface in sorted({link["interface"] for link in links}):
        _rc, out, _err = module.run_command(["tc", "-json", "qdisc", "show", "dev", interface])
        try:
            queues = json.loads(out or "[]")
        except ValueError:
            queues = []
        for queue in queues:
            taken = queue.get("kind") in ("ingress", "clsact")
            if fault == "slow_link":
                taken = bool(queue.get("root")) and queue.get("handle", "0:") != "0:"
            if taken:
                raise Cannot(
                    "{} has a queue of its own already ({} {}), which a drill must not replace. Next: choose another fault, or "
                    "remove it: 'tc qdisc show dev {}'".format(
                        interface, queue.get("kind"), queue.get("handle"), interface
                    )
                )
    return links


def prepare(module):
    """The Work, after a look whether it can be done here. Raises Cannot."""
    params = module.params
    fault = params["fault"]
    options = {"unit": params["unit"], "delay_ms": params["delay_ms"], "path": params["path"]}
    if fault in ("slow_link", "link_cut", "one_way_cut"):
        options["links"] = links_of(module, fault)
    if fault == "host_power_loss" and params["fence"]:
        options["fence"] = fence_of(params["configuration"], params["fence"])
    made = drill_faults.work(fault, **options)
    for program in (*made.needs, "systemd-run"):
        if module.get_bin_path(program) is None:
            raise Cannot(f"{program} is not installed here. Next: install it, or choose another fault")
    if fault == "disk_stall" and not has_controller("io"):
        raise Cannot(
            "the kernel's controller 'io' is not there, so writes cannot be stalled. Next: choose another fault"
        )
    return made


def has_controller(name, path=f"{drill_faults.CGROUPS}/cgroup.controllers"):
    """Does the kernel offer this controller to control groups?"""
    try:
        return name in Path(path).read_text().split()
    except OSError:
        return False


def by_hand(run_dir):
    """What an operator types."""
    return f"sh {run_dir}/undo.sh"


def free(run_dir):
    """Refuse while another drill is not undone here."""
    if os.path.exists(f"{run_dir}/undo.sh") and not os.path.exists(f"{run_dir}/undone"):
        raise Cannot(
            f"a fault of another drill is not undone here. Next: 'sh {run_dir}/undo.sh' on this host undoes it"
        )


def begins_in(params):
    """Seconds: 0 for one that begins before this module answers."""
    return SOON if params["fault"] in drill_faults.DEFERRED and not params["fence"] else 0


def begin(module, made):
    """Arrange for the end, then begin."""
    params = module.params
    run_dir, fault = params["run_dir"], params["fault"]
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    for name in ("begun", "undone", "not-undone"):
        Path(f"{run_dir}/{name}").unlink(missing_ok=True)
    for name, text in (
        ("undo.sh", drill_faults.undo_script(fault, made, run_dir)),
        ("begin.sh", drill_faults.begin_script(fault, made, run_dir)),
    ):
        Path(f"{run_dir}/{name}").write_text(text)
    soon = begins_in(params)
    after = params["seconds"] + (soon or GRACE) + made.longest
    # A timer of that name is one of a drill that is over: undone, but before its time.
    module.run_command(["systemctl", "stop", f"{UNDO}.timer"])
    rc, _out, err = module.run_command(drill_faults.timer(UNDO, after, f"{run_dir}/undo.sh"))
    if rc != 0:
        Path(f"{run_dir}/undone").touch()
        raise Cannot(f"systemd does not take the timer that would undo it: {err.strip()}. Nothing was broken")
    if soon:
        rc, _out, err = module.run_command(drill_faults.timer(BEGIN, soon, f"{run_dir}/begin.sh"))
    else:
        rc, _out, err = module.run_command(["/bin/sh", f"{run_dir}/begin.sh"])
    if rc != 0:
        undo(module)
        raise Cannot(f"{fault} could not be begun: {err.strip()}. It was undone. Next: choose another fault")


def clear(run_dir):
    """What is undone needs no scripts any more; the mark stays."""
    for name in ("undo.sh", "begin.sh"):
        Path(f"{run_dir}/{name}").unlink(missing_ok=True)


def undo(module):
    """Undo it unless that was done already; who did it. Raises Cannot."""
    run_dir = module.params["run_dir"]
    if not os.path.exists(f"{run_dir}/undo.sh"):
        return "nothing"
    already = os.path.exists(f"{run_dir}/undone")
    if module.check_mode:
        return "timer" if already else "now"
    if already:
        clear(run_dir)
        return "timer"
    rc, _out, err = module.run_command(["/bin/sh", f"{run_dir}/undo.sh"])
    if rc != 0:
        raise Cannot(
            f"the fault is not undone: {err.strip() or 'it is still seen'}. The host tries it once more by itself when its time "
            f"is over. Next: look at the lines of {run_dir}/undo.sh on this host and run them one by one"
        )
    module.run_command(["systemctl", "stop", f"{UNDO}.timer"])
    clear(run_dir)
    return "now"


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["begun", "undone"], "default": "begun"},
            "fault": {"type": "str", "choices": list(drill_faults.FAULTS)},
            "seconds": {"type": "int", "default": 20},
            "unit": {"type": "str", "default": "remus-agent.service"},
            "links": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"local": {"type": "str", "required": True}, "peer": {"type": "str", "required": True}},
            },
            "delay_ms": {"type": "int", "default": 200},
            "path": {"type": "path", "default": "/var/lib/remus"},
            "fence": {"type": "str"},
            "configuration": {"type": "path", "default": "/etc/remus/agent.toml"},
            "run_dir": {"type": "path", "default": "/run/remus-drill"},
        },
        required_if=[("state", "begun", ("fault",))],
        supports_check_mode=True,
    )
    hand = by_hand(module.params["run_dir"])
    try:
        if module.params["state"] == "undone":
            undone = undo(module)
            module.exit_json(changed=undone == "now", undone=undone, by_hand=hand)
        made = prepare(module)
        free(module.params["run_dir"])
        if not module.check_mode:
            begin(module, made)
    except Cannot as cannot:
        module.fail_json(msg=f"{cannot}.", by_hand=hand)
    soon = begins_in(module.params)
    module.exit_json(changed=True, begin=made.begin, undo=made.undo, begins_in=soon, by_hand=hand)


if __name__ == "__main__":
    main()
