#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Facts of a Xen host that decide whether it can protect guests."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: xen_host_info
short_description: Read what a Xen host is and has
description:
  - Collects in one go what the roles of this bundle check before they change anything. It changes nothing and never fails because
    Xen is absent; absent facts are null.
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
  packages:
    description: Debian packages to look for.
    type: list
    elements: str
    default: []
  kernel_modules:
    description: Kernel modules to look for.
    type: list
    elements: str
    default: []
  grub_settings:
    description: A file that update-grub reads.
    type: path
  domains:
    description: List the domains, which needs the toolstack.
    type: bool
    default: true
seealso:
  - module: remus_protection_info
"""

EXAMPLES = r"""
- name: Look at the host
  xen_host_info:
    packages: [xen-system-amd64]
    kernel_modules: [ifb, sch_plug]
  register: xen_host
"""

RETURN = r"""
host:
  description: The facts.
  returned: success
  type: dict
  contains:
    distribution:
      description: C(ID) of /etc/os-release.
      type: str
    distribution_version:
      description: C(VERSION_ID) of /etc/os-release.
      type: str
    architecture:
      description: Machine type of the kernel.
      type: str
    kernel:
      description: Release of the running kernel.
      type: str
    boot_id:
      description: The kernel's identifier of this boot; two names with the same one are one machine.
      type: str
    python_version:
      description: Version of the Python that runs this module.
      type: str
    control_domain:
      description: Is this the control domain of a running Xen?
      type: bool
    xen_guest:
      description: Is this machine a guest of a Xen of somebody else?
      type: bool
    boot:
      description:
        - What the boot loader does. C(grub), is there Debian's C(update-grub)? C(entry), the title of what /boot/grub/grub.cfg
          starts by default, and C(xen), does that start Xen? Both are null where that file cannot tell. C(outdated), is
          O(grub_settings) newer than that file?
      type: dict
    other_guests:
      description: Processes that run guests of KVM, each as name and number.
      type: list
      elements: str
    xen_version:
      description: Major and minor number of the running Xen, or null.
      type: str
    xen_release:
      description: Full version of the running Xen, or null.
      type: str
    virt_caps:
      description: What the hypervisor can do, for example C(hvm) and C(hap).
      type: list
      elements: str
    free_memory_mib:
      description: Memory that Xen has not given to any domain, in MiB.
      type: int
    toolstack_error:
      description: What C(xl) said when it failed.
      type: str
    missing_packages:
      description: Those of O(packages) that are not installed.
      type: list
      elements: str
    loaded_modules:
      description: Those of O(kernel_modules) that are loaded or built in.
      type: list
      elements: str
    unavailable_modules:
      description: Those of O(kernel_modules) that the running kernel does not have.
      type: list
      elements: str
    settings:
      description:
        - Files that decide what the toolstack does by itself. C(autoballoon) of xl.conf, C(XENDOMAINS_SAVE) and
          C(XENDOMAINS_RESTORE) of xendomains, each as text or null, and C(modules_load), the modules that
          /etc/modules-load.d/remus.conf names.
      type: dict
    autostart:
      description:
        - Files from which xendomains starts guests when the host boots, each with its path, C(file), and the guest that it is the
          configuration of, C(guest), which is null where the file cannot tell. Empty where xendomains is off.
      type: list
      elements: dict
    bridges:
      description: Names of the host's bridges.
      type: list
      elements: str
    domains:
      description: >-
        Every domain but the control domain, each with C(name), C(id), C(memory_mib), C(paused) and C(bridges), the names of those
        that its interfaces are ports of.
      type: list
      elements: dict
"""

import os
import platform
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import boot_menu

MENU = "/boot/grub/grub.cfg"
NET = "/sys/class/net"
NAMED = re.compile(r"""^\s*name\s*=\s*(["'])(.+?)\1""", re.MULTILINE)
ROW = re.compile(r"^(?P<name>\S.*?)\s+(?P<id>\d+)\s+(?P<memory>\d+)\s+\d+\s+(?P<state>[-a-z]{6})\s+[\d.]+\s*$")


def read_text(path):
    """Content of a small file, or None where there is none; comments in it may have any encoding."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read().strip()
    except OSError:
        return None


def run(arguments):
    """(exit status, output) of a command; 127 where it does not exist."""
    try:
        done = subprocess.run(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
            env=dict(os.environ, LC_ALL="C", PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        return 127, str(failure)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def settings():
    """What decides about ballooning, about saved guests and about modules at boot."""
    toolstack_file = assignments(read_text("/etc/xen/xl.conf"))
    xendomains = assignments(read_text("/etc/default/xendomains"))
    at_boot = (read_text("/etc/modules-load.d/remus.conf") or "").splitlines()
    return {
        "autoballoon": toolstack_file.get("autoballoon"),
        "XENDOMAINS_SAVE": xendomains.get("XENDOMAINS_SAVE"),
        "XENDOMAINS_RESTORE": xendomains.get("XENDOMAINS_RESTORE"),
        "modules_load": [line.strip() for line in at_boot if line.strip() and not line.startswith("#")],
    }


def autostart(settings_file="/etc/default/xendomains"):
    """What xendomains starts when the host boots: whatever the shell's * finds in its folder."""
    folder = assignments(read_text(settings_file)).get("XENDOMAINS_AUTO") or ""
    try:
        paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError:
        return []
    # Where nobody can be asked, it is on.
    if not paths or run(["systemctl", "is-enabled", "xendomains.service"])[0] not in (0, 127):
        return []
    return [{"file": path, "guest": configured(path)} for path in paths]


def configured(path):
    """The guest that a configuration is of, by the last name in it, as xl reads it; or None."""
    text = read_text(path) if os.path.isfile(path) else None  # opening a pipe would wait
    names = NAMED.findall(text or "")
    return names[-1][1] if names else None


def assignments(text):
    """name=value lines, as in /etc/os-release; quotes are taken off."""
    facts = {}
    for line in (text or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.lstrip().startswith("#"):
            facts[name.strip()] = value.strip().strip("\"'")
    return facts


def parse_info(text):
    """`xl info` as a dictionary."""
    facts = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts[name.strip()] = value.strip()
    return facts


def parse_list(text):
    """`xl list` as data, without the control domain."""
    domains = []
    for line in text.splitlines():
        row = ROW.match(line)
        if row and int(row.group("id")) != 0:
            domains.append(
                {
                    "name": row.group("name"),
                    "id": int(row.group("id")),
                    "memory_mib": int(row.group("memory")),
                    "paused": "p" in row.group("state"),
                }
            )
    return domains


def interfaces(net):
    """Names of the host's interfaces; none where nobody can tell."""
    try:
        return sorted(os.listdir(net))
    except OSError:
        return []


def bridges(net=NET):
    """Names of its bridges."""
    return [name for name in interfaces(net) if os.path.isdir(os.path.join(net, name, "bridge"))]


def bridges_of(domid, net=NET):
    """Names of the bridges that interfaces of a domain are ports of. One that was given a name of its own is not looked for."""
    ports = [os.path.join(net, name, "brport", "bridge") for name in interfaces(net) if name.startswith(f"vif{domid}.")]
    return sorted({os.path.basename(os.path.realpath(port)) for port in ports if os.path.islink(port)})


def missing_packages(names):
    """Those that dpkg does not have installed."""
    if not names:
        return []
    _dummy, text = run(["dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Status}\n", *list(names)])
    installed = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1] == "installed":
            installed.add(words[0].split(":")[0])
    return [name for name in names if name not in installed]


def kernel_modules(names):
    """(loaded or built in, not available) of the running kernel."""
    loaded, unavailable = [], []
    builtin = read_text(f"/lib/modules/{platform.release()}/modules.builtin") or ""
    built = {os.path.basename(line).split(".")[0].replace("-", "_") for line in builtin.splitlines()}
    for name in names:
        plain = name.replace("-", "_")
        if plain in built or os.path.isdir(f"/sys/module/{plain}"):
            loaded.append(name)
        elif run(["modprobe", "--dry-run", "--quiet", name])[0] != 0:
            unavailable.append(name)
    return loaded, unavailable


def modified(path):
    """When a file was written last, 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0


def boot(grub_settings):
    """What the boot loader starts."""
    there = any(os.access(os.path.join(folder, "update-grub"), os.X_OK) for folder in ("/usr/sbin", "/sbin"))
    outdated = bool(grub_settings) and modified(grub_settings) > modified(MENU)
    return {"grub": there, "outdated": outdated, **boot_menu.starts(read_text(MENU) or "")}


def other_guests(proc="/proc"):
    """Processes that have a virtual machine of KVM open."""
    found = []
    for number in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        folder = os.path.join(proc, number)
        try:
            opened = [os.readlink(os.path.join(folder, "fd", name)) for name in os.listdir(os.path.join(folder, "fd"))]
        except OSError:
            continue  # it has ended, or belongs to the kernel
        if "anon_inode:kvm-vm" in opened:
            found.append("{} ({})".format(read_text(os.path.join(folder, "comm")) or "?", number))
    return found


def toolstack(facts, with_domains):
    """What `xl` says; only asked in a control domain."""
    status, text = run(["xl", "info"])
    if status != 0:
        facts["toolstack_error"] = text.strip()[-500:]
        return
    info = parse_info(text)
    facts["virt_caps"] = info.get("virt_caps", "").split()
    if info.get("free_memory", "").isdigit():
        facts["free_memory_mib"] = int(info["free_memory"])
    if with_domains:
        status, text = run(["xl", "list"])
        if status != 0:
            facts["toolstack_error"] = text.strip()[-500:]
            return
        facts["domains"] = [dict(domain, bridges=bridges_of(domain["id"])) for domain in parse_list(text)]


def read(params):
    """Everything."""
    release = assignments(read_text("/etc/os-release"))
    version = [read_text("/sys/hypervisor/version/" + part) for part in ("major", "minor", "extra")]
    is_xen = read_text("/sys/hypervisor/type") == "xen"
    control_domain = "control_d" in (read_text("/proc/xen/capabilities") or "")
    facts = {
        "distribution": release.get("ID"),
        "distribution_version": release.get("VERSION_ID"),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id"),
        "python_version": platform.python_version(),
        "control_domain": control_domain,
        "xen_guest": is_xen and not control_domain,
        "boot": boot(params["grub_settings"]),
        "other_guests": other_guests(),
        "xen_version": "{}.{}".format(*version[:2]) if is_xen and version[0] else None,
        "xen_release": "{}.{}{}".format(version[0], version[1], version[2] or "") if is_xen and version[0] else None,
        "virt_caps": [],
        "free_memory_mib": None,
        "toolstack_error": None,
        "missing_packages": missing_packages(params["packages"]),
        "settings": settings(),
        "autostart": autostart(),
        "bridges": bridges(),
        "domains": [],
    }
    facts["loaded_modules"], facts["unavailable_modules"] = kernel_modules(params["kernel_modules"])
    if facts["control_domain"]:
        toolstack(facts, params["domains"])
    return facts


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "kernel_modules": {"type": "list", "elements": "str", "default": []},
            "grub_settings": {"type": "path"},
            "domains": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, host=read(module.params))


if __name__ == "__main__":
    main()
