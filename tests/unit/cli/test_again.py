"""reprotect, pause and resume: what they ask the agent for."""

from __future__ import annotations

from typing import Any

import pytest
from fake_agent import STATUS, FakeAgent, gives

from remus_agent.cli import main as cli
from remus_agent.cli.argument_types import period
from remus_agent.protocol import control


def answers(agent: FakeAgent, **status: Any) -> None:
    """The domain's status, two peers, and a probe that says yes."""
    results: dict[str, dict[str, Any]] = {
        "status": STATUS | status,
        "agent": {"peers": {"beta": {}, "gamma": {}}},
        "probe": {"ok": True, "reasons": [], "facts": {}},
        "protect": STATUS,
    }
    agent.answers = lambda request: [control.encode_result(request.id, results[request.method])]


@pytest.mark.parametrize("state", ["active", "solo", "silent", "failed"])
def test_reprotect_goes_toward_the_former_host(agent: FakeAgent, state: str) -> None:
    answers(agent, state=state, peer="alpha")
    assert cli.main(["reprotect", "redis1"]) == 0
    assert [request.method for request in agent.requests] == ["status", "protect"]
    assert agent.requests[1].params == {"domain": "redis1", "peer": "alpha", "wait": True, "timeout": 900.0}


def test_reprotect_toward_another_host_and_as_a_trial(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    answers(agent, state="active", peer="alpha")
    assert cli.main(["reprotect", "redis1", "--peer", "gamma", "--dry-run"]) == 0
    assert [request.method for request in agent.requests] == ["status", "probe"]
    assert agent.requests[1].params == {"domain": "redis1", "peer": "gamma"}
    assert "redis1 can be protected on gamma." in capsys.readouterr().out
    agent.answers = lambda r: [
        control.encode_result(r.id, STATUS | {"state": "solo"} if r.method == "status" else {"ok": False})
    ]
    assert cli.main(["reprotect", "redis1", "--dry-run"]) == 3


def test_reprotect_where_nobody_knows_the_former_host(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    answers(agent, role="none", state="unprotected", peer=None)
    assert cli.main(["reprotect", "redis1"]) == 2
    assert "--peer beta or gamma" in capsys.readouterr().err
    agent.answers = lambda r: [
        control.encode_result(
            r.id,
            {"agent": {"peers": {"beta": {}}}, "status": {"role": "none", "state": "unprotected"}}.get(
                r.method, STATUS
            ),
        )
    ]
    assert cli.main(["reprotect", "redis1"]) == 0
    assert agent.requests[-1].params["peer"] == "beta"


def test_reprotect_is_refused_where_it_makes_no_sense(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    answers(agent, role="backup", state="orphaned", peer="alpha")
    assert cli.main(["reprotect", "redis1"]) == 3
    assert "this host holds a copy of it (orphaned)" in capsys.readouterr().err
    answers(agent)
    assert cli.main(["reprotect", "redis1"]) == 5
    assert {request.method for request in agent.requests} == {"status"}


def test_pause_and_resume(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    paused = {"domain": "redis1", "role": "none", "state": "paused", "peer": "beta", "since": None}
    agent.answers = gives(**paused, reason="paused until 2026-01-02T03:04:05+00:00 (new switch)")
    assert cli.main(["pause", "redis1", "--for", "1h30m", "--reason", "new switch", "--yes"]) == 0
    assert agent.requests[0].params == {"domain": "redis1", "seconds": 5400.0, "reason": "new switch", "timeout": 120.0}
    shown = capsys.readouterr().out
    assert "paused until 2026-01-02T03:04:05+00:00 (new switch)" in shown
    assert "docs/runbook.md#a-protection-is-paused" in shown
    agent.answers = gives(**STATUS)
    assert cli.main(["resume", "redis1", "--no-wait"]) == 0
    assert agent.requests[1].params == {"domain": "redis1", "wait": False, "timeout": 900.0}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800), ("1h1m1s", 3661)]
)
def test_times(text: str, seconds: int) -> None:
    assert period(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "30 m", "-1m", "1.5h", "0s", "8d", "m", "1h30", "30x"])
def test_what_is_no_time(agent: FakeAgent, text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["pause", "redis1", f"--for={text}", "--yes"])
    assert caught.value.code == 2
    assert agent.requests == []
