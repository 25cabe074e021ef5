#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""The site's CA and the certificates of its hosts, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_certificate
short_description: Make the certificate of one host, and the CA that signs it
description:
  - Runs on the controller. Makes a CA where there is none, and for a host a key and a certificate for client and server, whose
    subjectAltName has its name, and its addresses where others reach it by them.
  - A certificate is made again when it is missing or damaged, expires soon, has another name or other addresses, or was signed by
    another CA than the current one.
  - To replace the CA without a moment in which hosts do not trust each other, use O(rotation) with V(prepare), V(switch) and
    V(finish), each on all hosts before the next.
  - Keys are never part of the result.
version_added: "0.1.0"
author:
  - The Remus for Xen authors
requirements:
  - cryptography >= 42 on the controller
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  directory:
    description: >-
      Folder of the CA. C(ca.pem) in it has the CA's certificate and key; who can read that can make certificates. It is created
      for its owner alone.
    type: path
    required: true
  name:
    description: Name of the host, as its peers call it.
    type: str
    required: true
  addresses:
    description: Addresses of the host that its certificate names, too. Agents need none; a witness is reached by its own.
    type: list
    elements: str
    default: []
  days:
    description: How long a new certificate is valid, but never longer than the CA.
    type: int
    default: 365
  renew_days:
    description: A certificate with fewer days left is made again.
    type: int
    default: 60
  ca_days:
    description: How long a new CA is valid.
    type: int
    default: 3650
  rotation:
    description:
      - With V(prepare) a second CA is made, which hosts trust beside the current one.
      - With V(switch) that one becomes the current one and signs; hosts trust the old one too.
      - With V(finish) the old one is trusted no more, and removed.
      - With V(none) all stays as it is.
    type: str
    choices: [none, prepare, switch, finish]
    default: none
seealso:
  - module: remus_tls_files
"""

EXAMPLES = r"""
- name: Make the certificate of this host
  remus_certificate:
    directory: "{{ inventory_dir }}/pki"
    name: "{{ inventory_hostname }}"
  delegate_to: localhost
"""

RETURN = r"""
folder:
  description: Folder on the controller with C(ca.pem) (all CAs to trust), C(host.pem) and C(host.key) of the host.
  returned: success
  type: str
present:
  description: Are these files there? Not in check mode before they were made.
  returned: success
  type: bool
reason:
  description: Why the certificate was made, or would be; empty where it stays.
  returned: success
  type: str
days_left:
  description: Days until the certificate that was found expires; empty where there was none.
  returned: success
  type: float
"""

import contextlib
import fcntl
import ipaddress
import os
import re

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.remus import files
from ansible.module_utils.remus.certificates import (
    Authority,
    CertificateError,
    days_until,
    describe,
    pem_of,
    pem_of_key,
    reason_to_issue,
    usable,
)
from ansible.module_utils.remus.diff import Comparison

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@contextlib.contextmanager
def locked(directory):
    """One at a time: Ansible runs this for several hosts at once, and there is one CA."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Site:
    """The CAs in a folder, as they are and as a run leaves them."""

    def __init__(self, directory):
        self.directory = directory
        self.current = Authority.load(self.path("ca"))
        self.upcoming = Authority.load(self.path("next"))
        self.previous = files.read(self.path("previous"))
        if self.current and self.upcoming and self.current.content == self.upcoming.content:
            self.upcoming = None  # a switch was cut short

    def path(self, name):
        """File of a CA."""
        return os.path.join(self.directory, name + ".pem")

    def plan(self, params):
        """Decide what the CAs shall be."""
        rotation = params["rotation"]
        if self.current is None:
            if rotation != "none":
                raise CertificateError(
                    f"There is no CA in {self.directory} to replace. Next: run this without rotation"
                )
            self.current = Authority.make(params["ca_days"])
        if rotation == "prepare" and self.upcoming is None:
            if self.previous is not None:
                raise CertificateError("A rotation is not finished: previous.pem is there. Next: finish it first")
            self.upcoming = Authority.make(params["ca_days"])
        elif rotation == "switch" and self.upcoming is not None:
            self.previous, self.current, self.upcoming = pem_of(self.current.certificate), self.upcoming, None
        elif rotation == "switch" and self.previous is None:
            raise CertificateError("There is no CA to switch to. Next: prepare it, and run that on all hosts")
        elif rotation == "finish":
            if self.upcoming is not None:
                raise CertificateError("The prepared CA is not in use. Next: switch to it, and run that on all hosts")
            self.previous = None
        if days_until(self.current.certificate) <= 0:
            raise CertificateError(
                f"The CA expired on {self.current.certificate.not_valid_after_utc:%Y-%m-%d}. State left: nothing was changed. "
                f"Next: move {self.directory} away and run this on all hosts, which replaces the CA at once"
            )

    def bundle(self):
        """All certificates that hosts trust, the newest first."""
        known = [authority for authority in (self.upcoming, self.current) if authority is not None]
        found = [pem_of(authority.certificate) for authority in known]
        if self.previous is not None and self.previous not in found:
            found.append(self.previous)
        return b"".join(found)

    def files(self):
        """{path: content, or None for none} of the CAs, in the order in which they are written."""
        return {
            self.path("previous"): self.previous,
            self.path("ca"): self.current.content,
            self.path("next"): None if self.upcoming is None else self.upcoming.content,
        }


def ensure(params, check_mode):
    """Compare, then write what differs. The order is one in which a run that is cut short leaves a usable CA."""
    directory, name = params["directory"], params["name"]
    addresses = list(dict.fromkeys(ipaddress.ip_address(address) for address in params["addresses"]))
    folder = os.path.join(directory, "hosts", name)
    site = Site(directory)
    site.plan(params)
    reason, left = reason_to_issue(folder, name, addresses, site.current, params["renew_days"])
    left_ca = days_until(site.current.certificate)
    if reason.startswith("it expires") and left_ca < params["renew_days"]:
        reason = ""  # a new one could not live longer; the warning says what to do
    wanted = site.files()
    wanted[os.path.join(folder, "ca.pem")] = site.bundle()
    if reason:
        certificate, key = site.current.issue(name, addresses, params["days"])
        wanted[os.path.join(folder, "host.key")] = pem_of_key(key)
        wanted[os.path.join(folder, "host.pem")] = pem_of(certificate)
    comparison = Comparison(directory)
    comparison.add("reason", "", reason)
    changed = {}
    for path, content in wanted.items():
        found = files.read(path)
        if found != content:
            changed[path] = content
            before, after = describe(path, found), describe(path, content)
            comparison.add(path, before, after if before != after else f"{after} (another one)")
        elif content is not None and os.stat(path).st_mode & 0o077:
            changed[path] = content
            comparison.add(path, "others can read it", "only its owner can read it")
    if changed and not check_mode:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # What is to go goes last: a CA that moves from one file to another is never in none.
        for path, content in sorted(changed.items(), key=lambda change: change[1] is None):
            if content is None:
                os.unlink(path)
            else:
                files.replace(path, content, 0o600)
    warnings = []
    if left_ca < params["renew_days"]:
        warnings.append(f"The CA in {directory} expires in {left_ca} days. Next: replace it, see docs/operations.md")
    return {
        "changed": comparison.changed,
        "diff": comparison.as_diff(),
        "folder": folder,
        "present": all(
            files.read(os.path.join(folder, file)) is not None for file in ("ca.pem", "host.pem", "host.key")
        ),
        "reason": reason,
        "days_left": left,
        "warnings": warnings,
    }


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "int", "default": 365},
            "renew_days": {"type": "int", "default": 60},
            "ca_days": {"type": "int", "default": 3650},
            "rotation": {"type": "str", "choices": ["none", "prepare", "switch", "finish"], "default": "none"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not usable():
        module.fail_json(msg=missing_required_lib("cryptography"))
    if NAME.fullmatch(params["name"]) is None:
        module.fail_json(
            msg="{!r} is not a host name. Next: see remus_agent_name in the inventory".format(params["name"])
        )
    for address in params["addresses"]:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            module.fail_json(msg=f"{address!r} is not an IP address. Next: see remus_pki_addresses in the inventory")
    if not 0 < params["renew_days"] < params["days"] <= params["ca_days"]:
        module.fail_json(msg="It must be 0 < renew_days < days <= ca_days, else each run would make new certificates")
    try:
        if not module.check_mode:
            os.makedirs(params["directory"], mode=0o700, exist_ok=True)
        there = os.path.isdir(params["directory"])
        with locked(params["directory"]) if there else contextlib.nullcontext():
            result = ensure(params, module.check_mode)
    except (OSError, CertificateError) as failure:
        module.fail_json(msg=f"The certificate of {params['name']} was not made: {failure}")
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
