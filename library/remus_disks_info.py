#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What the disks of a host are used for, before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_disks_info
short_description: Look at the devices of disks that shall be protected, with every reason against using them
description:
  - Looks at each device, at who uses it and at the mapper device in front of it, in the kernel's own files. It changes nothing,
    and needs neither the agent nor any package on the host.
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
  disks:
    description: The disks, as C(/etc/remus/disks.toml) has them.
    type: list
    elements: dict
    required: true
    suboptions:
      domain:
        description: Name of the guest.
        type: str
        required: true
      vdev:
        description: Name of the disk in the guest.
        type: str
        required: true
      device:
        description: Local device with the guest's data.
        type: path
        required: true
      metadata:
        description: Device or file for the mirror's metadata.
        type: path
      journal:
        description: Device or file where a backup stages what it has not committed.
        type: path
      journal_bytes:
        description: Only passed on.
        type: int
  files:
    description: Files to look for.
    type: list
    elements: path
    default: []
seealso:
  - module: xen_host_info
"""

EXAMPLES = r"""
- name: Look at the disks
  remus_disks_info:
    disks:
      - domain: db1
        vdev: xvda
        device: /dev/vg0/db1-xvda
  register: disks
"""

RETURN = r"""
disks:
  description: One entry for each disk, in order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of its mapper device.
      type: str
    device:
      description: Its local device.
      type: str
    number:
      description: Major and minor number of the device, or null where it is no block device.
      type: str
    size:
      description: Bytes of the device, or null.
      type: int
    uses:
      description: Who else uses the device.
      type: list
      elements: str
    mapped:
      description: Is its mapper device there?
      type: bool
    protected:
      description: Is its mapper device protected by an agent at this moment?
      type: bool
reasons:
  description: Everything that stands against using these disks, each with the next step.
  returned: success
  type: list
  elements: str
files:
  description: Those of O(files) that are there.
  returned: success
  type: list
  elements: str
nbd_devices:
  description: How many nbd devices the loaded module has; 0 where it is not loaded.
  returned: success
  type: int
"""

import errno
import glob
import os
import re
import stat
import subprocess

from ansible.module_utils.basic import AnsibleModule

SYS = "/sys"
PROC = "/proc"
MIN_BYTES = 1024 * 1024
LEAST = {"metadata": 8 * 1024 * 1024, "journal": 4 * 1024 * 1024}
OURS = re.compile(r"remus-.+-(xvd|hd|sd)[a-z]{1,2}[0-9]{0,3}")


def read_text(path):
    """Content of a small file; nothing where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return ""


def entries(path):
    """Names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def number_of(path):
    """C(major:minor) of a block device, or None."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def size_of(number):
    """Bytes of a device."""
    sectors = read_text(f"{SYS}/dev/block/{number}/size").strip()
    return int(sectors) * 512 if sectors.isdigit() else 0


def mappers():
    """{name: (kernel's name, numbers of what is behind it)} of all mapper devices."""
    found = {}
    for path in glob.glob(f"{SYS}/block/dm-*"):
        name = read_text(f"{path}/dm/name").strip()
        behind = [read_text(f"{path}/slaves/{slave}/dev").strip() for slave in entries(f"{path}/slaves")]
        found[name] = (os.path.basename(path), behind)
    return found


def open_count(name):
    """How many have a mapper device open."""
    try:
        done = subprocess.run(
            ["dmsetup", "info", "--columns", "--noheadings", "--options", "open", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=30,
            env=dict(os.environ, LC_ALL="C", PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    text = done.stdout.decode("utf-8", "replace").strip()
    return int(text) if done.returncode == 0 and text.isdigit() else 0


def mounts(numbers):
    """Where any of these devices is mounted or used for swapping."""
    found = []
    for line in read_text(f"{PROC}/self/mountinfo").splitlines():
        words = line.split()
        if len(words) < 10 or "-" not in words:
            continue
        source = words[words.index("-") + 2]
        if words[2] in numbers or (source.startswith("/dev/") and number_of(source) in numbers):
            found.append(f"mounted at {words[4]}")
    for line in read_text(f"{PROC}/swaps").splitlines()[1:]:
        if number_of(line.split()[0]) in numbers:
            found.append("used for swapping")
    return found


def claimed(path):
    """Does somebody hold the device exclusively?"""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
    except OSError as failure:
        return failure.errno == errno.EBUSY
    return False


def uses(path, number, allowed, known):
    """Who uses a device, besides the mapper devices with these names."""
    base = f"{SYS}/dev/block/{number}"
    parts = [name for name in entries(base) if os.path.isfile(f"{base}/{name}/partition")]
    numbers = {number} | {read_text(f"{base}/{part}/dev").strip() for part in parts}
    found = mounts(numbers)
    names = {kernel: name for name, (kernel, dummy) in known.items()}
    own = False
    for folder in [base] + [f"{base}/{part}" for part in parts]:
        for holder in entries(f"{folder}/holders"):
            name = names.get(holder, holder)
            if name in allowed:
                own = True
            else:
                found.append(f"held by {name}")
    # An agent that holds a backup's copy has the device for itself, and then its mapper device is there and leads nowhere.
    if not found and not own and not any(name in known for name in allowed) and claimed(path):
        found.append("held exclusively by somebody")
    return sorted(set(found))


def look_at_part(disk, name, role, known, reasons):
    """(number, size, uses) of one device of a disk; reasons are added."""
    path = disk[role]
    what = f"{role} of {name}, {path},"
    number = number_of(path)
    correct = "correct disks of {} in remus_guests".format(disk["domain"])
    if number is None:
        if role != "device" and not path.startswith("/dev/") and not os.path.isdir(path):
            return None, None, []
        if os.path.lexists(path):
            reasons.append(f"{what} is not a block device. Next: {correct}")
        else:
            reasons.append(f"{what} does not exist. Next: create it, or {correct}")
        return None, None, []
    size = size_of(number)
    least = LEAST.get(role, MIN_BYTES)
    if size < least:
        reasons.append(f"{what} has {size} bytes, at least {least} are needed. Next: enlarge it, or {correct}")
    allowed = [name] if role == "device" else [f"{name}-md0", f"{name}-md1", name]
    found = uses(path, number, allowed, known)
    if found:
        reasons.append("{} is in use: {}. Next: end that, or {}".format(what, ", ".join(found), correct))
    return number, size, found


def look_at(disk, known, taken, reasons):
    """The entry of one disk; reasons are added."""
    name = "remus-{domain}-{vdev}".format(**disk)
    mine = {}
    for role in ("device", "metadata", "journal"):
        if not disk.get(role):
            continue
        mine[role] = look_at_part(disk, name, role, known, reasons)
        identity = mine[role][0] or os.path.realpath(disk[role])
        if identity in taken:
            reasons.append(
                f"{role} of {name}, {disk[role]}, is also {taken[identity]}. "
                "Next: give each its own device, correct remus_guests"
            )
        else:
            taken[identity] = f"{role} of {name}"
    number, size, found = mine["device"]
    behind = known[name][1] if name in known else []
    protected = f"{name}-tap" in known
    if number is not None and behind and number not in behind and (protected or open_count(name)):
        reasons.append(
            "/dev/mapper/{} is in use and leads to another device ({}) than {}. Next: correct the device, or shut {} down and "
            "run 'remus-disks down {}'".format(name, ", ".join(behind), disk["device"], disk["domain"], name)
        )
    return {
        "name": name,
        "device": disk["device"],
        "number": number,
        "size": size,
        "uses": found,
        "mapped": name in known,
        "protected": protected,
    }


def read(params):
    """Everything."""
    reasons, taken, known = [], {}, mappers()
    disks = params["disks"]
    names = ["remus-{domain}-{vdev}".format(**disk) for disk in disks]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reasons.append(f"{name} is there twice. Next: take one of the two out of remus_guests")
    for name in sorted(known):
        if OURS.fullmatch(name) and name not in names and f"{name}-tap" in known:
            reasons.append(
                f"/dev/mapper/{name} is protected at this moment but is not among the disks. "
                "Next: put it back into remus_guests, or end the protection of its guest first"
            )
    looked = [look_at(disk, known, taken, reasons) for disk in disks]
    return {
        "disks": looked,
        "reasons": reasons,
        "files": [path for path in params["files"] if os.path.isfile(path)],
        "nbd_devices": len(glob.glob(f"{SYS}/block/nbd*")),
    }


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "disks": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "domain": {"type": "str", "required": True},
                    "vdev": {"type": "str", "required": True},
                    "device": {"type": "path", "required": True},
                    "metadata": {"type": "path"},
                    "journal": {"type": "path"},
                    "journal_bytes": {"type": "int"},
                },
            },
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **read(module.params))


if __name__ == "__main__":
    main()
