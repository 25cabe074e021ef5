"""The agents' control sockets, over ssh: independent of the project's own command line and modules."""

from __future__ import annotations

import json
import math
from typing import Any

from pair.hosts import GUEST, CommandFailed, on

SOCKET = "/run/remus/agent.sock"
Status = dict[str, Any]


class AgentError(Exception):
    """The agent answered with an error. facts: all of it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(json.dumps(facts))
        self.facts = facts
        self.code: str = facts.get("code", "")
        self.message: str = facts.get("message", "")


def ask(host: str, method: str, /, timeout: float = 60, **params: Any) -> dict[str, Any]:
    """The result of a control request. Raises AgentError, or CommandFailed when there is no agent."""
    request = json.dumps({"version": 1, "id": 1, "method": method, "params": params})
    # No Python: to start one takes an emulated host a second, and much here is asked again and again.
    said = on(host, f"nc -N -w {math.ceil(timeout)} -U {SOCKET}", stdin=f"{request}\n", timeout=timeout + 30)
    for line in said.split("\n")[:-1]:  # an agent may die within one; one that only says how far it is has neither
        answer = json.loads(line)
        if "error" in answer:
            raise AgentError(answer["error"])
        if "result" in answer:
            result: dict[str, Any] = answer["result"]
            return result
    raise CommandFailed(f"no answer from the agent of {host} to {method} within {timeout:g} s")


def status(host: str, domain: str = GUEST) -> Status:
    """The agent's view of a domain; `{"role": "none"}` when it knows nothing of it."""
    try:
        return ask(host, "status", domain=domain)
    except AgentError as error:
        if error.code == "domain-not-found":
            return {"domain": domain, "role": "none", "state": None}
        raise


def answers(host: str) -> bool:
    """Whether the host's agent answers at all."""
    try:
        ask(host, "agent", timeout=40)
    except (CommandFailed, AgentError):
        return False
    return True


def protected(state: Status) -> bool:
    """Whether a primary's status says that its domain is protected."""
    return (state["role"], state["state"]) == ("primary", "protected")


def probe_reasons(host: str, peer: str, domain: str = GUEST) -> dict[str, str]:
    """Why the pair would refuse to protect a domain: message by code."""
    found = ask(host, "probe", timeout=120, domain=domain, peer=peer)
    return {reason["code"]: reason["message"] for reason in found["reasons"]}


def session(state: Status) -> tuple[Any, Any]:
    """What names one replication session."""
    return state.get("session"), state.get("generation")
