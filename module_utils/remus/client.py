# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Client of the agent's control socket: one JSON object a line, progress lines before the one answer.

Requests of the control protocol that change nothing are in READ_ONLY; modules in check mode send only those.
"""

from __future__ import annotations

import errno
import json
import socket
import time

from ansible.module_utils.remus.errors import AgentProtocolError, AgentRefused, AgentTimeout, AgentUnavailable

DEFAULT_SOCKET = "/run/remus/agent.sock"
PROTOCOL_VERSION = 1
MAX_LINE = 16 * 1024 * 1024
READ_ONLY = frozenset(["agent", "list", "status", "probe", "events", "records"])
NEEDED = {
    "list": {"domains": list},
    "events": {"events": list},
    "status": {"role": str, "state": str, "generation": int},
}
"""What each answer, which is always an object, has to have at least, for what is done with it here."""


class ControlClient:
    """One connection to the local agent. Use it as a context manager.

    path: the control socket. timeout: seconds for an answer where the call names none.
    """

    def __init__(self, path=DEFAULT_SOCKET, timeout=30.0):
        self._path = path
        self._timeout = timeout
        self._socket = None
        self._received = b""
        self._last_id = 0
        self.progress = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def close(self):
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._received = b""

    def call(self, method, params=None, timeout=None):
        """Send one request and return its result.

        Progress lines are collected in `progress`. timeout: seconds for the whole call. Raises AgentUnavailable,
        AgentTimeout, AgentProtocolError, or AgentRefused with the agent's own code and hint.
        """
        limit = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        self._last_id += 1
        request = {"version": PROTOCOL_VERSION, "id": self._last_id, "method": method, "params": params or {}}
        try:
            self._connect(deadline)
            self._socket.settimeout(_remaining(deadline))
            self._socket.sendall(json.dumps(request, separators=(",", ":")).encode("utf-8") + b"\n")
            while True:
                answer = self._read_answer(deadline)
                if answer.get("id") not in (self._last_id, None):
                    continue
                if "progress" in answer:
                    self.progress.append(answer["progress"])
                elif "result" in answer:
                    return _shaped(answer["result"], method)
                elif "error" in answer:
                    raise _refused(answer["error"], method)
                else:
                    raise AgentProtocolError("The agent's answer has no result and no error")
        except AgentProtocolError as failure:
            self.close()
            raise AgentProtocolError(
                f"{failure.message} (it was asked '{method}' on {self._path})",
                operation=method,
                left=None if method in READ_ONLY else "the request may have been carried out; ask for the status",
                hint="see with 'journalctl -u remus-agent' on this host what runs there, and bring its agent to this "
                "bundle's release with playbooks/upgrade.yml",
            ) from failure
        except TimeoutError as failure:
            self.close()
            raise AgentTimeout(
                f"The agent did not answer '{method}' within {limit:g} s",
                operation=method,
                left="the request may still be going on in the agent" if method not in READ_ONLY else None,
                hint="look at 'remusctl list' and 'journalctl -u remus-agent' on this host, then run this again",
            ) from failure
        except OSError as failure:
            self.close()
            raise self._unavailable(failure, method) from failure

    def domains(self):
        """The status of every domain the agent knows."""
        return self.call("list")["domains"]

    def status(self, domain):
        """The status of one domain, or None where the agent knows no such domain."""
        try:
            return self.call("status", {"domain": domain})
        except AgentRefused as refused:
            if refused.code == "domain-not-found":
                return None
            raise

    def _connect(self, deadline):
        if self._socket is not None:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(_remaining(deadline))
        try:
            link.connect(self._path)
        except BaseException:
            link.close()
            raise
        self._socket = link

    def _read_answer(self, deadline):
        while b"\n" not in self._received:
            if len(self._received) > MAX_LINE:
                raise AgentProtocolError(f"The agent sent a line of more than {MAX_LINE} bytes")
            self._socket.settimeout(_remaining(deadline))
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionResetError(errno.ECONNRESET, "the agent closed the connection before it answered")
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        try:
            answer = json.loads(line.decode("utf-8"))
        except ValueError as failure:
            raise AgentProtocolError(f"The agent's answer is not JSON: {failure}") from failure
        if not isinstance(answer, dict):
            raise AgentProtocolError("The agent's answer is not a JSON object")
        return answer

    def _unavailable(self, failure, method):
        if failure.errno in (errno.EACCES, errno.EPERM):
            hint = "run the task with become: true, or as a member of the agent's administration group"
        elif failure.errno == errno.ENOENT:
            hint = "install and start the agent with playbooks/site.yml"
        else:
            hint = "look at 'systemctl status remus-agent' and 'journalctl -u remus-agent' on this host"
        left = None
        if failure.errno in (errno.ECONNRESET, errno.EPIPE) and method not in READ_ONLY:
            left = "the request may have been carried out in part; ask for the status"
        return AgentUnavailable(
            f"No agent answers on {self._path}: {failure.strerror or failure}",
            operation=method,
            left=left,
            hint=hint,
        )


def _remaining(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline")
    return left


def _shaped(result, method):
    """The result of a request, if it is what its readers rely on."""
    if not isinstance(result, dict):
        raise AgentProtocolError("The agent's result is not a JSON object")
    for name, kind in NEEDED.get(method, {}).items():
        if name not in result or not isinstance(result[name], kind):
            raise AgentProtocolError(f"The agent's result has no '{name}' of the expected kind")
        if kind is list and not all(isinstance(one, dict) for one in result[name]):
            raise AgentProtocolError(f"The agent's result has '{name}' that are not JSON objects")
    return result


def _refused(error, method):
    if not isinstance(error, dict):
        return AgentProtocolError("The agent's error is not a JSON object")
    facts = {name: error.get(name) for name in ("operation", "domain", "epoch", "left", "hint")}
    facts["operation"] = facts["operation"] or method
    return AgentRefused(str(error.get("message", "no message")), code=error.get("code", "refused"), **facts)
