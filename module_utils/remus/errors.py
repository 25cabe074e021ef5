# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a module and the agent.

RemusClientError
├── AgentUnavailable    no agent listens on the control socket
├── AgentTimeout        it did not answer in time; what it was asked to do may still be going on
├── AgentProtocolError  it answered something that is not the control protocol
└── AgentRefused        it answered with an error of its own; `code` is the agent's
"""

from __future__ import annotations


class RemusClientError(Exception):
    """Base. message: what failed. code: stable, for machines. facts: operation, domain, epoch, left, hint."""

    code = "client"

    def __init__(self, message, code=None, **facts):
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.facts = {name: value for name, value in facts.items() if value is not None}

    @property
    def sentence(self):
        """The message with the state that was left behind and the next step, for `msg`."""
        parts = [self.message.rstrip(".") + "."]
        if self.facts.get("left"):
            parts.append("State left: {}.".format(str(self.facts["left"]).rstrip(".")))
        if self.facts.get("hint"):
            parts.append("Next: {}.".format(str(self.facts["hint"]).rstrip(".")))
        return " ".join(parts)

    def as_result(self):
        """Arguments for AnsibleModule.fail_json."""
        return {"msg": self.sentence, "error": dict(self.facts, code=self.code, message=self.message)}


class AgentUnavailable(RemusClientError):
    """No agent listens on the control socket."""

    code = "agent-unavailable"


class AgentTimeout(RemusClientError):
    """The agent did not answer in time."""

    code = "agent-timeout"


class AgentProtocolError(RemusClientError):
    """The answer is not the control protocol."""

    code = "agent-protocol"


class AgentRefused(RemusClientError):
    """The agent's own error."""

    code = "refused"
