#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What an agent has noted of guests that were about to run, without asking it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_notes_info
short_description: Read which guests an agent has noted that wait to run, also where it does not answer
description:
  - Looks at the records of guests in the agent's state folder. It changes nothing, and asks nobody.
  - An agent notes a guest as about to run when it is built from a copy, whole, and paused. Where that agent ends there, the next
    one finishes it, or lets it wait for an operator. A release from before may not know what the note says, and destroys what was
    built.
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
    description: The agent's state folder.
    type: path
    default: /var/lib/remus
seealso:
  - module: remus_protection_info
  - module: remus_upgrade_plan
"""

EXAMPLES = r"""
- name: See what waits to run
  remus_notes_info:
  register: notes
"""

RETURN = r"""
starting:
  description: Guests and consistency groups that were about to run there, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    peer:
      description: The host that it came from.
      type: str
    working_name:
      description: Name of its domain unless it was given its own already.
      type: str
    word:
      description: The operator's word by which it was to run; none where it was the witness's, or the other host's.
      type: str
unreadable:
  description: Records that cannot be read, so that nobody knows what waits.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    problem:
      description: Why.
      type: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import files


def noted(path):
    """What one record says of a guest that was about to run; None where none was. Raises OSError, ValueError."""
    content = files.read(path)
    if content is None:
        return None  # removed meanwhile
    record = json.loads(content)
    if not isinstance(record, dict) or "name" not in record:
        raise ValueError("it is no record of a guest")
    if not record.get("starting"):
        return None
    return {
        "name": record["name"],
        "peer": record.get("peer"),
        "working_name": record["starting"],
        "word": record.get("override") or None,
    }


def read(state):
    """The module's result."""
    folder = os.path.join(state, "guests")
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []  # no agent has noted anything yet
    except OSError as problem:
        return {"starting": [], "unreadable": [{"path": folder, "problem": str(problem)}]}
    starting, unreadable = [], []
    for path in (os.path.join(folder, name) for name in names if name.endswith(".json") and not name.startswith(".")):
        try:
            found = noted(path)
        except (OSError, ValueError) as problem:
            unreadable.append({"path": path, "problem": str(problem)})
            continue
        if found is not None:
            starting.append(found)
    return {"starting": starting, "unreadable": unreadable}


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"state": {"type": "path", "default": "/var/lib/remus"}}, supports_check_mode=True
    )
    module.exit_json(changed=False, **read(module.params["state"]))


if __name__ == "__main__":
    main()
