#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Which releases of the agent a host has, and which of them runs."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_release_info
short_description: Read which releases of the remus-agent are installed, in use, and running
description:
  - Looks at the folder of releases that C(remus_release) makes, and at the processes of its services. It changes nothing.
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
  prefix:
    description: Folder that holds all releases.
    type: path
    default: /opt/remus
  services:
    description: Units whose processes are looked at.
    type: list
    elements: str
    default: [remus-supervisor, remus-agent]
seealso:
  - module: remus_release
  - module: remus_upgrade_plan
"""

EXAMPLES = r"""
- name: Look which release runs
  remus_release_info:
  register: releases
"""

RETURN = r"""
current:
  description: The release that the link C(current) leads to, or null.
  returned: success
  type: str
previous:
  description: The release to go back to, or null where there is none.
  returned: success
  type: str
releases:
  description: >-
    Every release that is installed whole, by its name, with C(protocol), the version of the protocol between agents that it
    speaks, or null where it does not say so.
  returned: success
  type: dict
  sample: {"0.1.0-1f2e3d4c5b": {"protocol": 2}}
running:
  description: >-
    The release that each of O(services) runs, or null where it runs none. It is another one than C(current) until its restart.
  returned: success
  type: dict
  sample: {"remus-agent": "0.1.0-1f2e3d4c5b"}
"""

import glob
import os
import re
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus.running import interpreter_of, release_of

MARK = ".complete"
PROTOCOL = re.compile(r"^PROTOCOL: Final = (\d+)$", re.MULTILINE)
SAYS_PROTOCOL = "lib/python*/site-packages/remus_agent/protocol/replication/messages.py"
"""Read and not run: a release that is not in use yet may need what this host has only afterwards."""


def protocol_of(folder):
    """Version of the protocol between agents, or None."""
    for path in glob.glob(os.path.join(glob.escape(folder), SAYS_PROTOCOL)):
        with open(path, encoding="utf-8") as source:
            found = PROTOCOL.search(source.read())
        if found:
            return int(found.group(1))
    return None


def installed(prefix):
    """{release: {protocol}} of everything that is whole."""
    found = {}
    for mark in sorted(glob.glob(os.path.join(glob.escape(prefix), "*", MARK))):
        folder = os.path.dirname(mark)
        if not os.path.islink(folder):
            found[os.path.basename(folder)] = {"protocol": protocol_of(folder)}
    return found


def link(prefix, name):
    """Where one of the links leads, or None."""
    path = os.path.join(prefix, name)
    return os.path.basename(os.readlink(path)) if os.path.islink(path) else None


def running(prefix, service):
    """The release that a service runs, by the interpreter that its process was started with, or None."""
    done = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", service],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    pid = done.stdout.decode("utf-8", "replace").strip()
    if not pid.isdigit() or pid == "0":
        return None
    try:
        return release_of(prefix, interpreter_of(Path("/proc", pid)))
    except OSError:
        return None


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/remus"},
            "services": {"type": "list", "elements": "str", "default": ["remus-supervisor", "remus-agent"]},
        },
        supports_check_mode=True,
    )
    prefix = module.params["prefix"]
    try:
        module.exit_json(
            changed=False,
            current=link(prefix, "current"),
            previous=link(prefix, "previous"),
            releases=installed(prefix),
            running={service: running(prefix, service) for service in module.params["services"]},
        )
    except OSError as failure:
        module.fail_json(msg=f"The releases below {prefix} cannot be read: {failure}. Next: run it as root.")


if __name__ == "__main__":
    main()
