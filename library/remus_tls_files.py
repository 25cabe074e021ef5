#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Certificates of the agent on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_tls_files
short_description: Install the agent's certificate, its key and the CAs that it trusts
description:
  - Writes three files, each in one step. The agent reads them again with its next connection; nothing has to be restarted.
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
  directory:
    description: Folder for C(ca.pem), C(host.pem) and C(host.key). Created where it is missing.
    type: path
    default: /etc/remus/tls
  ca:
    description: Certificates in PEM of the CAs to trust.
    type: str
    required: true
  certificate:
    description: Certificate in PEM of this host.
    type: str
    required: true
  key:
    description: Its key in PEM. Neither logged nor part of the result.
    type: str
    required: true
seealso:
  - module: remus_certificate
"""

EXAMPLES = r"""
- name: Install the certificate of this host
  remus_tls_files:
    ca: "{{ lookup('ansible.builtin.file', folder ~ '/ca.pem') }}"
    certificate: "{{ lookup('ansible.builtin.file', folder ~ '/host.pem') }}"
    key: "{{ lookup('ansible.builtin.file', folder ~ '/host.key') }}"
"""

RETURN = r"""
written:
  description: Names of the files that were written, or would be.
  returned: success
  type: list
  elements: str
"""

import hashlib
import os
import ssl
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.remus import files
from ansible.module_utils.remus.diff import Comparison

# A certificate comes after its key and after the CAs: what a reader finds in between is refused, never accepted wrongly.
FILES = (("ca", "ca.pem", 0o644), ("key", "host.key", 0o600), ("certificate", "host.pem", 0o644))


class FilesError(Exception):
    """What is to be installed is of no use; nothing was changed."""


def mode_of(path):
    """Permissions of a file, or None where there is none."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def describe(option, content, mode):
    """What `--diff` says of a file: of a key nothing but that it is there."""
    if content is None:
        return "absent"
    what = "a key" if option == "key" else f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"
    return f"{what}, mode {mode:04o}"


def check(params):
    """Refuse what no agent could use."""
    for option, mark in (("ca", "CERTIFICATE"), ("certificate", "CERTIFICATE"), ("key", "PRIVATE KEY")):
        if f"-----BEGIN {mark}-----" not in params[option]:
            raise FilesError(f"{option} is not in PEM")
    try:
        ssl.create_default_context(cadata=params["ca"])
    except (ValueError, ssl.SSLError) as failure:
        raise FilesError("ca has no certificate that can be read") from failure


def ensure(params, check_mode):
    """Compare, then write what differs."""
    check(params)
    directory = params["directory"]
    comparison = Comparison(directory)
    pending = []
    for option, name, mode in FILES:
        path = os.path.join(directory, name)
        content = params[option].strip().encode() + b"\n"
        found, found_mode = files.read(path), mode_of(path)
        if (found, found_mode) != (content, mode):
            before, after = describe(option, found, found_mode), describe(option, content, mode)
            comparison.add(name, before, after if before != after else f"{after} (another one)")
            pending.append((path, content, mode))
    if pending and not check_mode:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        for path, content, mode in pending:
            files.replace(path, content, mode)
    return {"changed": comparison.changed, "diff": comparison.as_diff(), "written": comparison.names}


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/remus/tls"},
            "ca": {"type": "str", "required": True},
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    try:
        result = ensure(module.params, module.check_mode)
    except (OSError, FilesError) as failure:
        module.fail_json(
            msg=f"The certificate was not installed: {failure}. State left: each file is as before, or new and whole."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
