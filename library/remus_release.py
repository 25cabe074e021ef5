#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Versioned installations of the agent on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_release
short_description: Unpack a release of the remus-agent, or switch to it
description:
  - Unpacks the wheels of one tar archive into a virtual environment of its own, without pip, compiler or network, and tries to
    import every command of the release before it counts as installed.
  - Switching is the atomic replacement of the symbolic link C(current). Services are not touched.
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
  release:
    description: Name of the release, which becomes its folder.
    type: str
    required: true
  state:
    description:
      - With V(installed) the release lies complete in its folder.
      - With V(current) the link C(current) leads to it, and older releases beyond O(keep) are removed, but none that a process
        still runs. The link C(previous) leads to the release that was current before; going back to that one leaves it as it is,
        so that going back twice is going back once.
    type: str
    choices: [installed, current]
    default: installed
  archive:
    description: Tar archive on this host that holds the wheels. Needed where the release is not installed yet; removed then.
    type: path
  project:
    description: Name of the wheel whose commands are created.
    type: str
    default: remus_agent
  prefix:
    description: Folder that holds all releases.
    type: path
    default: /opt/remus
  folders:
    description: Folders to create with O(state=installed), where they are missing.
    type: list
    elements: path
    default: []
  units:
    description: Names of systemd units that O(state=current) takes from the folder C(units) of the release's main package.
    type: list
    elements: str
    default: []
  unit_folder:
    description: Where units are put.
    type: path
    default: /etc/systemd/system
  enable:
    description: >-
      Have O(units) started at boot, and systemd read them again where they changed, now or since it has read them. Both at once,
      since each reading takes systemd a while on a small dom0.
    type: bool
    default: false
  links:
    description: Commands of the current release that get a link elsewhere, as pairs of link and command.
    type: dict
    default: {}
  keep:
    description: >-
      How many releases stay, the current one included. The previous one is the last that goes; one that a process still runs
      stays in addition, and goes with a later run.
    type: int
    default: 2
seealso:
  - module: remus_release_info
"""

EXAMPLES = r"""
- name: Unpack it
  remus_release:
    release: 0.1.0-1f2e3d4c
    archive: /var/cache/remus/0.1.0-1f2e3d4c.tar

- name: Switch to it
  remus_release:
    release: 0.1.0-1f2e3d4c
    state: current
    units: [remus-agent.service]
    links:
      /usr/local/sbin/remusctl: remusctl
"""

RETURN = r"""
path:
  description: Folder of the release.
  returned: success
  type: str
complete:
  description: Was the release installed already?
  returned: when O(state=installed)
  type: bool
site_packages:
  description: Folder of its Python packages.
  returned: success
  type: str
units_changed:
  description: Units that were replaced.
  returned: when O(state=current)
  type: list
  elements: str
removed:
  description: Older releases that were removed, or would be.
  returned: when O(state=current)
  type: list
  elements: str
seconds:
  description: How long each step took.
  returned: when something was unpacked
  type: dict
"""

import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import files
from ansible.module_utils.remus.diff import Comparison
from ansible.module_utils.remus.running import in_use
from ansible.module_utils.remus.unpacking import MARK, ReleaseError, install, remove, site_packages


def replace_link(target, link):
    """Point a symbolic link at target in one step; target None removes it."""
    if target is None:
        os.unlink(link)
        return
    beside = f"{link}.{os.getpid()}.new"
    os.symlink(target, beside)
    os.replace(beside, link)


def read_link(link):
    """Where a link leads, or None; anything else in its place is an error."""
    if os.path.islink(link):
        return os.readlink(link)
    if os.path.lexists(link):
        raise ReleaseError(f"{link} is not a symbolic link. Next: move it away, then run this again.")
    return None


def previous_release(prefix, release):
    """The release to go back to once this one is current, or None. Not one that an interrupted run made current and never ran."""
    current, previous = (read_link(os.path.join(prefix, name)) for name in ("current", "previous"))
    if current in (None, release) or previous == release:
        return previous
    used = in_use(prefix)
    return previous if previous in used and current not in used else current


def older_releases(prefix, release, keep, previous):
    """Releases to remove: all but this one, the previous one and the newest others, keep in number, and those that still run."""
    others = []
    if os.path.isdir(prefix):
        for name in os.listdir(prefix):
            mark = os.path.join(prefix, name, MARK)
            if name != release and not os.path.islink(os.path.join(prefix, name)) and os.path.isfile(mark):
                others.append((name == previous, os.stat(mark).st_mtime, name))
    others.sort(reverse=True)
    older = [name for dummy, dummy2, name in others[max(0, keep - 1) :]]
    used = in_use(prefix) if older else set()  # of an upgrade that was interrupted before the restart
    return [name for name in older if name not in used]


def units_to_write(params, folder):
    """{path: content} of the units that differ from the release's."""
    source = os.path.join(site_packages(folder), params["project"], "units")
    units = {}
    for name in params["units"]:
        wanted = files.read(os.path.join(source, name))
        if wanted is None:
            raise ReleaseError("Release {} has no unit {}; the release in use stays.".format(params["release"], name))
        path = os.path.join(params["unit_folder"], name)
        if files.read(path) != wanted:
            units[path] = wanted
    return units


def units_to_enable(params, folder):
    """Units whose link in the folder of their target is missing; those without a target are left alone."""
    missing = []
    for name in params["units"] if params["enable"] else []:
        content = files.read(os.path.join(site_packages(folder), params["project"], "units", name)) or b""
        target = re.search(rb"^WantedBy=(\S+)", content, re.MULTILINE)
        if target:
            link = os.path.join(params["unit_folder"], target.group(1).decode("ascii") + ".wants", name)
            if not os.path.islink(link):
                missing.append(name)
    return missing


def systemctl(*words):
    """Run systemctl; its failure is an error."""
    done = subprocess.run(["systemctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise ReleaseError(
            "systemctl {} failed: {}. State left: the new release is current, its units are written. "
            "Next: repair what it names, then run this again.".format(
                " ".join(words), done.stdout.decode("utf-8", "replace").strip()
            )
        )


def outdated(params):
    """Does systemd know a unit by what it was before? The reading failed, or was none of this module's then."""
    if not (params["enable"] and params["units"]):
        return False
    asked = ["systemctl", "show", "--property=NeedDaemonReload", "--value", *params["units"]]
    done = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise ReleaseError(
            f"systemd does not say whether it has read the units: {said.strip()}. State left: nothing was changed. "
            "Next: repair what it names, then run this again."
        )
    return "yes" in said.split()


def ensure_installed(params, folder, check_mode):
    """The release lies complete in its folder."""
    complete = os.path.isfile(os.path.join(folder, MARK))
    comparison = Comparison(folder)
    comparison.add("release", "installed" if complete else "absent", "installed")
    missing = [path for path in params["folders"] if not os.path.isdir(path)]
    comparison.add("folders", [], missing)
    result = {"changed": comparison.changed, "diff": comparison.as_diff(), "complete": complete}
    if check_mode:
        return result
    before = os.umask(0o022)  # root's own may be narrower, and the agent's administration group runs remusctl
    try:
        for path in missing:
            os.makedirs(path, mode=0o755)
        if not complete:
            if not params["archive"]:
                raise ReleaseError("Release {} is not installed and no archive was named.".format(params["release"]))
            os.makedirs(params["prefix"], mode=0o755, exist_ok=True)
            result["seconds"] = install(params, folder)
    finally:
        os.umask(before)
    return result


def ensure_current(params, folder, check_mode):
    """The links lead to the release and old ones are gone."""
    prefix = params["prefix"]
    previous = previous_release(prefix, params["release"])
    removed = older_releases(prefix, params["release"], params["keep"], previous)
    if previous in removed:
        previous = None
    # Before the link that decides: whoever is interrupted between the two can still tell where he came from.
    wanted = {os.path.join(prefix, "previous"): previous, os.path.join(prefix, "current"): params["release"]}
    for link, command in params["links"].items():
        wanted[link] = os.path.join(prefix, "current", "bin", command)
    comparison = Comparison(prefix)
    for link, target in sorted(wanted.items()):
        comparison.add(link, read_link(link), target)
    complete = os.path.isfile(os.path.join(folder, MARK))
    if not complete and not check_mode:
        raise ReleaseError("Release {} is not installed; the release in use stays.".format(params["release"]))
    units = units_to_write(params, folder) if complete else dict.fromkeys(params["units"])
    for path in sorted(units):
        comparison.add(path, "other" if os.path.exists(path) else "absent", "of the release")
    enable = units_to_enable(params, folder) if complete else list(params["units"]) if params["enable"] else []
    comparison.add("enabled", [], enable)
    unread = complete and not units and outdated(params)
    comparison.add("systemd", "has not read the units" if unread else "has read them", "has read them")
    comparison.add("removed", [], removed)
    result = {"changed": comparison.changed, "diff": comparison.as_diff(), "removed": removed}
    result["units_changed"] = sorted(units)
    if check_mode or not comparison.changed:
        return result
    for path, content in units.items():
        files.replace(path, content, 0o644)
    for link, target in wanted.items():
        if read_link(link) != target:
            replace_link(target, link)
    if enable:
        systemctl("--no-reload", "enable", *enable)
    if params["enable"] and (enable or units or unread):
        systemctl("daemon-reload")
    for name in removed:
        remove(prefix, name)
    return result


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["installed", "current"], "default": "installed"},
            "archive": {"type": "path"},
            "project": {"type": "str", "default": "remus_agent"},
            "prefix": {"type": "path", "default": "/opt/remus"},
            "folders": {"type": "list", "elements": "path", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "enable": {"type": "bool", "default": False},
            "unit_folder": {"type": "path", "default": "/etc/systemd/system"},
            "links": {"type": "dict", "default": {}},
            "keep": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    folder = os.path.join(module.params["prefix"], module.params["release"])
    ensure = ensure_installed if module.params["state"] == "installed" else ensure_current
    try:
        result = ensure(module.params, folder, module.check_mode)
    except (OSError, ReleaseError) as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(path=folder, site_packages=site_packages(folder), **result)


if __name__ == "__main__":
    main()
