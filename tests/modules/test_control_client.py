"""What a module says when its agent answers badly, in part, or too late, or may not be asked: what is left, and what next."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.modules.conftest import RunModule, ScriptedAgent
from tests.modules.test_protection import NONE, YES, status


@pytest.fixture
def client() -> Any:
    """The module that all of them ask through. Imported here: conftest.py makes it importable."""
    from ansible.module_utils.remus import client

    return client


def protect(agent: ScriptedAgent, run_module: RunModule, **answers: Any) -> dict[str, Any]:
    """The result of protecting a guest that is not, with an agent whose answers are these."""
    agent.answers = {"status": NONE, "probe": YES, **answers}
    return run_module("remus_protection", name="web1", peer="beta", socket=agent.path)


def test_a_request_that_changes_something_may_have_been_carried_out_in_part(
    agent: ScriptedAgent, run_module: RunModule
) -> None:
    result = protect(agent, run_module, protect=b'{"id": 3, "res')
    assert result["error"]["code"] == "agent-unavailable"
    assert "State left: the request may have been carried out in part; ask for the status." in result["msg"]
    assert "Next: look at 'systemctl status remus-agent'" in result["msg"]


def test_a_question_leaves_nothing(agent: ScriptedAgent, run_module: RunModule) -> None:
    assert "State left" not in protect(agent, run_module, probe=b'{"id": 2, "res')["msg"]


def test_a_question_that_is_not_answered_in_time(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"agent": b"HANG"}
    result = run_module("remus_protection_info", timeout=1, socket=agent.path)
    assert result["error"]["code"] == "agent-timeout"
    assert "did not answer 'agent' within 1 s" in result["msg"]
    assert "State left" not in result["msg"]
    assert "Next: " in result["msg"]


def test_an_error_that_is_none(agent: ScriptedAgent, run_module: RunModule) -> None:
    assert protect(agent, run_module, status={"error": "no"})["error"]["code"] == "agent-protocol"


@pytest.mark.parametrize(
    ("method", "answer", "name"),
    [
        ("list", {}, None),
        ("list", None, None),
        ("list", {"domains": None}, None),
        ("list", {"domains": [3]}, None),
        ("status", 3, "web1"),
        ("status", {}, "web1"),
        ("agent", [[]], None),
        ("events", {}, "web1"),
    ],
)
def test_a_result_of_another_shape(
    agent: ScriptedAgent, run_module: RunModule, method: str, answer: Any, name: str | None
) -> None:
    agent.answers = {"agent": {}, "status": NONE, "list": {"domains": []}, method: answer}
    result = run_module("remus_protection_info", name=name, events=1, socket=agent.path)
    assert (result["error"]["code"], result["error"]["operation"]) == ("agent-protocol", method)
    assert f"it was asked '{method}' on {agent.path}" in result["msg"]
    assert "State left" not in result["msg"]
    assert "Next: see with 'journalctl -u remus-agent'" in result["msg"]


def test_a_request_whose_answer_makes_no_sense_may_have_been_carried_out(
    agent: ScriptedAgent, run_module: RunModule
) -> None:
    result = protect(agent, run_module, protect=3)
    assert result["error"]["code"] == "agent-protocol"
    assert "State left: the request may have been carried out; ask for the status." in result["msg"]


def test_an_answer_without_an_end(
    agent: ScriptedAgent, run_module: RunModule, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_LINE", 100_000)
    result = protect(agent, run_module, status=b"x" * 150_000)
    assert result["error"]["code"] == "agent-protocol"
    assert "a line of more than 100000 bytes" in result["msg"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "run the task with become: true"),
        (errno.ENOENT, "playbooks/site.yml"),
        (errno.ECONNREFUSED, "journalctl -u remus-agent"),
    ],
)
def test_whoever_cannot_ask_is_told_how(
    run_module: RunModule, client: Any, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(self: Any, deadline: float) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(client.ControlClient, "_connect", refuse)
    result = run_module("remus_protection", name="web1", peer="beta")
    assert result["error"]["code"] == "agent-unavailable"
    assert words in result["msg"]


def test_a_rival_with_another_wish_is_told(agent: ScriptedAgent, run_module: RunModule) -> None:
    rival = {"error": {"code": "already-protected", "message": "web1 is protected by gamma"}}
    result = protect(agent, run_module, status=[NONE, status(peer="gamma")], protect=rival)
    assert result["error"]["code"] == "other-peer"
    assert "protected by gamma, not by beta" in result["msg"]


@pytest.mark.parametrize("module", ["remus_failover", "remus_switchover"])
def test_no_agent(run_module: RunModule, tmp_path: Any, module: str) -> None:
    more: dict[str, Any] = {"to": "beta"}
    if module == "remus_failover":
        more = {"fenced": {"host": "alpha", "method": "operator", "evidence": "seen"}}
    result = run_module(module, name="web1", socket=str(tmp_path / "none.sock"), **more)
    assert result["error"]["code"] == "agent-unavailable"
