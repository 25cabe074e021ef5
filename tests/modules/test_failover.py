"""remus_failover: never without a proof, never a stale copy, never twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.modules.conftest import RunModule, ScriptedAgent
from tests.modules.test_protection import NONE, UNKNOWN, status

COPY = status("backup", "orphaned", "alpha")
ACTIVE = status("backup", "active", "alpha", generation=4)
PROOF = {"host": "alpha", "method": "status-command", "evidence": "printed off"}


@pytest.mark.parametrize("check", [False, True])
def test_takes_over(agent: ScriptedAgent, run_module: RunModule, check: bool) -> None:
    agent.answers = {"status": [COPY, ACTIVE], "failover": ACTIVE}
    result = run_module(
        "remus_failover", check=check, name="web1", fenced=PROOF, expected_generation=3, socket=agent.path
    )
    assert result["changed"] is True
    assert result["diff"] == {
        "before": {"state": "orphaned"}, "after": {"state": "active"},
        "before_header": "owner of web1 (now)", "after_header": "owner of web1 (then)",
    }  # fmt: skip
    assert agent.mutating == ([] if check else ["failover"])
    assert agent.requests[1][1].get("dry_run", False) is check
    if not check:
        assert agent.requests[1][1] == {
            "domain": "web1", "fenced": PROOF, "expected_generation": 3, "expected_session": "s1",
        }  # fmt: skip
        assert result["protection"]["generation"] == 4


def test_check_mode_is_refused_where_the_agent_would_refuse(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": COPY, "failover": {"error": {"code": "authority", "message": "the primary is alive"}}}
    result = run_module("remus_failover", check=True, name="web1", fenced=PROOF, socket=agent.path)
    assert result["failed"]
    assert "the primary is alive" in result["msg"]
    assert agent.mutating == []


def test_a_loss_is_accepted_only_where_that_is_said(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": [COPY, ACTIVE], "failover": ACTIVE}
    run_module("remus_failover", name="web1", fenced=PROOF, accept_loss=True, socket=agent.path)
    assert agent.requests[1][1]["accept_loss"] is True


def test_second_run_is_unchanged(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": [COPY, ACTIVE], "failover": ACTIVE}
    options: dict[str, Any] = {"name": "web1", "fenced": PROOF, "expected_generation": 3, "socket": agent.path}
    first = run_module("remus_failover", **options)
    second = run_module("remus_failover", **options)
    assert (first["changed"], second["changed"], second["already_active"]) == (True, False, True)
    assert agent.mutating == ["failover"]


def test_a_host_that_was_faster_by_its_witness_needs_nothing(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": status("primary", "solo", "alpha", generation=3)}
    result = run_module("remus_failover", name="web1", fenced=PROOF, socket=agent.path)
    assert (result["changed"], result["already_active"]) == (False, True)
    agent.answers = {"status": status("primary", "solo", "gamma", generation=3)}
    assert run_module("remus_failover", name="web1", fenced=PROOF, socket=agent.path)["failed"]
    assert agent.mutating == []


@pytest.mark.parametrize(
    ("now", "options", "code"),
    [
        (status(), {}, "wrong-host"),
        (NONE, {}, "no-copy"),
        (UNKNOWN, {}, "no-copy"),
        (status("backup", "discarded", "alpha"), {}, "no-copy"),
        (status("backup", "receiving", "alpha", committed_epoch=0), {}, "no-commit"),
        (COPY, {"expected_generation": 2}, "stale-generation"),
        (COPY, {"expected_session": "s0"}, "stale-session"),
        (COPY, {"fenced": dict(PROOF, host="gamma")}, "other-host-fenced"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_refuses(
    agent: ScriptedAgent, run_module: RunModule, now: Any, options: dict[str, Any], code: str, check: bool
) -> None:
    agent.answers = {"status": now, "failover": ACTIVE}
    result = run_module(
        "remus_failover", check=check, **{"name": "web1", "fenced": PROOF, "socket": agent.path, **options}
    )
    assert result["failed"]
    assert result["error"]["code"] == code
    assert "Next: " in result["msg"]
    assert agent.mutating == []


@pytest.mark.parametrize("part", ["host", "method", "evidence"])
def test_proof_is_demanded(run_module: RunModule, part: str) -> None:
    proof = {name: value for name, value in PROOF.items() if name != part}
    result = run_module("remus_failover", name="web1", fenced=proof)
    assert result["failed"]
    assert part in result["msg"]


def test_the_agents_refusal_is_told(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": COPY, "failover": {"error": {
        "code": "authority", "message": "the primary's connection lives", "left": "nothing changed", "hint": "fence alpha",
    }}}  # fmt: skip
    result = run_module("remus_failover", name="web1", fenced=PROOF, socket=agent.path)
    assert result["error"]["code"] == "authority"
    assert "Next: fence alpha." in result["msg"]
    assert result["error"]["operation"] == "failover"


def test_timeout_says_that_it_may_go_on(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": COPY, "failover": b"HANG"}
    result = run_module("remus_failover", name="web1", fenced=PROOF, timeout=0, socket=agent.path)
    assert result["error"]["code"] == "agent-timeout"
    assert "may still be going on" in result["msg"]
