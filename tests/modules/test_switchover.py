"""remus_switchover: from a protected guest only, to its backup only, and a second run changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.modules.conftest import RunModule, ScriptedAgent
from tests.modules.test_protection import NONE, UNKNOWN, status

HERE = {"host": "alpha"}
DONE = {"domain": "web1", "to": "beta", "status": {"role": "none", "state": "handed-over"}}


@pytest.mark.parametrize("check", [False, True])
def test_moves_it(agent: ScriptedAgent, run_module: RunModule, check: bool) -> None:
    agent.answers = {"status": status(), "agent": HERE, "switchover": DONE}
    result = run_module(
        "remus_switchover", check=check, name="web1", to="beta", expected_generation=3, socket=agent.path
    )
    assert result["changed"] is True
    assert result["diff"]["before"] == {"host": "alpha"}
    assert result["diff"]["after"] == {"host": "beta"}
    asked = next(params for method, params in agent.requests if method == "switchover")
    assert asked.get("dry_run", False) is check
    if not check:
        assert asked["expected_generation"] == 3
        assert result["protection"]["state"] == "handed-over"


@pytest.mark.parametrize(
    "now", [status(), status("primary", "active", "beta"), NONE], ids=["primary", "active", "none"]
)
def test_left_alone_where_it_shall_run(agent: ScriptedAgent, run_module: RunModule, now: Any) -> None:
    agent.answers = {"status": now, "agent": HERE}
    result = run_module("remus_switchover", name="web1", to="alpha", socket=agent.path)
    assert (result["changed"], result["already_there"]) == (False, True)


@pytest.mark.parametrize(
    ("now", "options", "code"),
    [
        (status("backup", "ready", "alpha"), {}, "wrong-host"),
        (status("primary", "active", "beta"), {}, "wrong-host"),
        (NONE, {}, "wrong-host"),
        (UNKNOWN, {}, "wrong-host"),
        (status(), {"to": "gamma"}, "other-backup"),
        (status("primary", "silent"), {}, "not-protected"),
        (status(), {"expected_generation": 2}, "stale-generation"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_refuses(
    agent: ScriptedAgent, run_module: RunModule, now: Any, options: dict[str, Any], code: str, check: bool
) -> None:
    agent.answers = {"status": now, "agent": HERE, "switchover": DONE}
    result = run_module(
        "remus_switchover", check=check, **{"name": "web1", "to": "beta", "socket": agent.path, **options}
    )
    assert result["failed"]
    assert result["error"]["code"] == code
    assert "Next: " in result["msg"]
    assert agent.mutating == []


def test_the_agents_word_is_told(agent: ScriptedAgent, run_module: RunModule) -> None:
    error = {"code": "switchover-in-doubt", "message": "it was handed over", "left": "down here"}
    agent.answers = {"status": status(), "agent": HERE, "switchover": {"error": error}}
    result = run_module("remus_switchover", name="web1", to="beta", socket=agent.path)
    assert result["error"]["code"] == "switchover-in-doubt"
    assert "down here" in result["msg"]
