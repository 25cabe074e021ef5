#!/usr/bin/python
# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""The witness as a host of the pair sees it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: remus_witness_info
short_description: Look at every node of the witness from this host, with every reason against using it
description:
  - Connects to each node as the agent of this host does, with its certificate, and asks etcd for its version, its leader and its
    alarms, and whether a majority answers. Before certificates are installed it only sees whether the nodes can be reached.
  - It changes nothing, and needs neither the agent nor any package on the host. The hosts' clocks do not matter to a witness,
    but to certificates.
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
  nodes:
    description: The nodes of the witness.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the node, for people.
        type: str
        required: true
      address:
        description: Address or name at which agents reach it.
        type: str
        required: true
      port:
        description: Its TCP port for agents.
        type: int
        default: 2379
  tls_dir:
    description: Folder on this host with C(ca.pem), C(host.pem) and C(host.key).
    type: path
    default: /etc/remus/tls
  required:
    description: >-
      It is a reason that nobody listens on a node, or that this host has no certificates. With false that may be before the
      installation.
    type: bool
    default: false
  warn_days:
    description: Warn of certificates with fewer days left.
    type: int
    default: 30
  timeout:
    description: Seconds to connect to a node, and as many for each answer.
    type: int
    default: 5
seealso:
  - module: remus_certificate
  - module: xen_host_info
"""

EXAMPLES = r"""
- name: Look at the witness
  remus_witness_info:
    nodes:
      - name: witness1
        address: 198.51.100.3
    required: true
  register: witness
"""

RETURN = r"""
nodes:
  description: One entry for each node, in order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    state:
      description: >-
        C(healthy), C(no-majority), C(alarm), C(refused) (TLS or etcd refuses this host), C(closed) (nobody listens),
        C(unreachable), C(open) (it listens; this host has no certificates to ask with).
      type: str
    detail:
      description: What was said, where it is not healthy.
      type: str
    version:
      description: Of etcd; empty where it was not said.
      type: str
    days_left:
      description: Days until the node's certificate expires, null where it was not shown.
      type: float
days_left:
  description: Days until this host's certificate expires, null where there is none.
  returned: success
  type: float
reasons:
  description: Everything that stands against using the witness, each with the next step.
  returned: success
  type: list
  elements: str
hints:
  description: What works now and will not for long, each with the next step.
  returned: success
  type: list
  elements: str
"""

import http.client
import json
import os
import socket
import ssl
import time

from ansible.module_utils.basic import AnsibleModule

OLDEST = (3, 4)
"""Of etcd's versions the first with the interface that agents use."""
LARGEST = 1 << 20
ELECTION = 5.0
"""Seconds for the nodes to agree on a new leader, before there counts as none."""
EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED"""


class Refused(Exception):
    """The node is there, and does not answer as it should; the text says how."""


def days_until(not_after):
    """Days until a certificate expires, negative afterwards; its date as the module ssl shows it."""
    return round((ssl.cert_time_to_seconds(not_after) - time.time()) / 86400, 1)


def credentials(directory):
    """(context, days that the own certificate has left, what is wrong with the files); no context where they cannot be used. Both
    None where there are no files."""
    paths = [os.path.join(directory, name) for name in ("ca.pem", "host.pem", "host.key")]
    if not any(os.path.exists(path) for path in paths):
        return None, None, None
    try:
        context = ssl.create_default_context(cafile=paths[0])
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(paths[1], paths[2])
        # There is no public way to look at a certificate that is not a peer's.
        days = days_until(ssl._ssl._test_decode_cert(paths[1])["notAfter"])
    except (OSError, ValueError) as failure:
        return None, None, f"{', '.join(paths)} cannot be used: {failure}"
    return context, days, None


class Node:
    """One node, and what was found."""

    def __init__(self, given, timeout):
        self.name, self.address, self.port = given["name"], given["address"], given["port"]
        self.timeout = timeout
        self.found = {"name": self.name, "state": "healthy", "detail": "", "version": "", "days_left": None}

    @property
    def where(self):
        """For messages."""
        return f"{self.name} ({self.address} port {self.port})"

    def look(self, context):
        """Find out all that can be known."""
        try:
            with socket.create_connection((self.address, self.port), self.timeout):
                pass
        except ConnectionRefusedError:
            return self._is("closed", "nobody listens there")
        except OSError as failure:
            return self._is("unreachable", str(failure))
        if context is None:
            return self._is("open", "")
        try:
            self._ask_all(context)
            end = time.monotonic() + ELECTION
            while self.found["state"] == "no-majority" and time.monotonic() < end:
                time.sleep(0.5)
                self._is("healthy", "")
                self._ask_all(context)
        except ssl.SSLCertVerificationError as failure:
            expired = failure.verify_code == EXPIRED
            self._is(
                "refused",
                "its certificate has expired" if expired else f"its certificate is refused: {failure.verify_message}",
            )
        except (OSError, http.client.HTTPException, ValueError, Refused) as failure:
            self._is("refused", str(failure) or type(failure).__name__)
        return None

    def _is(self, state, detail):
        self.found.update(state=state, detail=detail)

    def _ask_all(self, context):
        status = self._ask(context, "maintenance/status", {})
        self.found["version"] = str(status.get("version", ""))
        if status.get("leader", "0") in ("0", 0):
            return self._is("no-majority", "it has no leader")
        try:
            # The way in which agents read: it takes a majority.
            self._ask(context, "kv/range", {"key": "L3JlbXVzL3YxLw=="})
        except (Refused, TimeoutError) as failure:
            return self._is("no-majority", str(failure) or "no answer in time")
        alarms = self._ask(context, "maintenance/alarm", {"action": "GET"}).get("alarms", [])
        names = sorted({str(alarm.get("alarm", "?")) for alarm in alarms})
        return self._is("alarm", ", ".join(names)) if names else None

    def _ask(self, context, what, payload):
        connection = http.client.HTTPSConnection(self.address, self.port, timeout=self.timeout, context=context)
        try:
            connection.connect()
            self.found["days_left"] = days_until(connection.sock.getpeercert()["notAfter"])
            connection.request("POST", f"/v3/{what}", json.dumps(payload), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read(LARGEST)
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(f"{what}: status {response.status}: {body[:200].decode(errors='replace').strip()}")
        return json.loads(body)


def old(version):
    """Whether a version of etcd is too old, or none."""
    try:
        return tuple(int(part) for part in version.split(".")[:2]) < OLDEST
    except ValueError:
        return True


RENEW = "run playbooks/site.yml --tags remus_pki"
NEXT = {
    "unreachable": "check its address, that the machine is on, and the network and firewall between the two",
    "closed": "look at 'systemctl status etcd' there, or run playbooks/witness.yml",
    "refused": f"{RENEW}, and look at 'journalctl -u etcd' there",
    "no-majority": "look at 'systemctl status etcd' on all nodes of the witness",
    "alarm": "see the alarm NOSPACE in docs/operations.md (compact, defragment, then 'etcdctl alarm disarm')",
}


def judge(nodes, own_days, wrong, required, warn_days):
    """(reasons, hints), all at once. One node of three that fails is a hint: a majority is left."""
    reasons, hints = [], []
    if wrong is not None:
        reasons.append(f"{wrong}. Next: {RENEW}")
    elif own_days is None and required:
        reasons.append(
            "this host has no certificates, and the witness accepts certificates only. Next: run playbooks/site.yml"
        )
    elif own_days is not None and own_days <= 0:
        reasons.append(f"the certificate of this host has expired {-own_days} days ago. Next: {RENEW}")
    elif own_days is not None and own_days < warn_days:
        hints.append(f"the certificate of this host expires in {own_days} days. Next: {RENEW}")
    bad = [node for node in nodes if node.found["state"] not in ("healthy", "open")]
    not_yet = [] if required else [node for node in bad if node.found["state"] == "closed"]
    failed = [node for node in bad if node not in not_yet]
    majority = len(nodes) - len(bad) > len(nodes) // 2
    for node in failed:
        state, detail = node.found["state"], node.found["detail"]
        what = {"alarm": f"has the alarm {detail}", "no-majority": f"has no majority: {detail}"}.get(
            state, f"is {state}: {detail}"
        )
        (hints if majority and state != "alarm" else reasons).append(
            f"the witness {node.where} {what}. Next: {NEXT[state]}"
        )
    for node in not_yet:
        hints.append(f"nobody listens at the witness {node.where} yet. Next: {NEXT['closed']}")
    for node in nodes:
        days = node.found["days_left"]
        if days is not None and days < warn_days:
            hints.append(f"the certificate of the witness {node.where} expires in {days} days. Next: {RENEW}")
        if node.found["version"] and old(node.found["version"]):
            reasons.append(f"the witness {node.where} runs etcd {node.found['version']}. Next: install 3.4 or newer")
    return reasons, hints


def look(params):
    """Everything that is found."""
    context, own_days, wrong = credentials(params["tls_dir"])
    nodes = [Node(given, params["timeout"]) for given in params["nodes"]]
    for node in nodes:
        node.look(context)
    reasons, hints = judge(nodes, own_days, wrong, params["required"], params["warn_days"])
    return {
        "changed": False,
        "nodes": [node.found for node in nodes],
        "days_left": own_days,
        "reasons": reasons,
        "hints": hints,
    }


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 2379},
                },
            },
            "tls_dir": {"type": "path", "default": "/etc/remus/tls"},
            "required": {"type": "bool", "default": False},
            "warn_days": {"type": "int", "default": 30},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    module.exit_json(**look(module.params))


if __name__ == "__main__":
    main()
