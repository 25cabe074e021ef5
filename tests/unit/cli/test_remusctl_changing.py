"""Commands of `remusctl` that change something: what they ask the agent for, and what they want confirmed."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from fake_agent import STATUS, Answers, FakeAgent
from terminal import TerminalText

from remus_agent.cli import main as cli
from remus_agent.errors import FenceTimeout, SwitchoverError, SwitchoverInDoubt, WitnessUnknown
from remus_agent.protocol import control
from remus_agent.protocol.control import Progress


def test_protect_shows_progress_and_then_the_status(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda r: [
        control.encode_progress(r.id, Progress(phase="seeding", done=1, total=4, unit="pages", elapsed=0.5)),
        control.encode_progress(r.id + 7, Progress(phase="another request")),
        control.encode_result(r.id, STATUS),
    ]
    assert cli.main(["protect", "redis1", "--peer", "beta", "--interval-ms", "50"]) == 0
    out, err = capsys.readouterr()
    assert err == "[0.5s] seeding 25% (1/4 pages)\n"
    assert "redis1" in out
    assert agent.requests[0].method == "protect"
    assert agent.requests[0].params == {
        "domain": "redis1",
        "peer": "beta",
        "interval_ms": 50,
        "wait": True,
        "timeout": 900.0,
    }


def test_protect_without_waiting(agent: FakeAgent) -> None:
    assert cli.main(["protect", "redis1", "--peer", "beta", "--no-wait"]) == 0
    assert agent.requests[0].params == {"domain": "redis1", "peer": "beta", "wait": False, "timeout": 900.0}


def failover(*more: str) -> list[str]:
    proof = ["--fenced-host", "alpha", "--fenced-method", "power-off", "--evidence", "lamp is off"]
    return ["failover", "redis1", *proof, *more]


def test_failover_with_yes_asks_nothing(agent: FakeAgent) -> None:
    assert cli.main(failover("--expected-generation", "3", "--yes")) == 0
    assert [r.method for r in agent.requests] == ["failover"]
    assert agent.requests[0].params == {
        "domain": "redis1",
        "fenced": {"host": "alpha", "method": "power-off", "evidence": "lamp is off"},
        "expected_generation": 3,
    }


def test_a_loss_is_accepted_only_where_that_is_said_and_confirmed(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", TerminalText("yes\n"))
    assert cli.main(failover("--accept-loss")) == 0
    assert agent.requests[1].params["accept_loss"] is True
    assert "you accept that loss" in capsys.readouterr().err


def test_failover_carries_out_what_was_confirmed(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", TerminalText("yes\n"))
    assert cli.main(failover()) == 0
    assert [r.method for r in agent.requests] == ["status", "failover"]
    assert agent.requests[1].params["expected_generation"] == STATUS["generation"]
    assert agent.requests[1].params["expected_session"] == STATUS["session"]
    assert "epoch 41 of generation 3" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "exit_code"), [("", 3), ("n\n", 3), ("maybe\n", 3)])
def test_anything_but_yes_changes_nothing(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", TerminalText(answer))
    assert cli.main(failover()) == exit_code
    assert cli.main(["unprotect", "redis1", "--force"]) == exit_code
    assert [r.method for r in agent.requests if not r.params.get("dry_run")] == ["status"]


def test_without_a_terminal_yes_must_be_given(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert cli.main(failover()) == 2
    assert "add --yes" in capsys.readouterr().err
    assert {r.method for r in agent.requests} == {"status"}


def test_unprotect_with_yes_asks_nothing(agent: FakeAgent) -> None:
    assert cli.main(["unprotect", "redis1", "--yes"]) == 0
    assert cli.main(["unprotect", "redis1", "--force", "--yes"]) == 0
    assert [(r.method, r.params["force"]) for r in agent.requests] == [("unprotect", False), ("unprotect", True)]


def test_fence_check(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"host": "beta", "agent": "fence_ipmilan", "required": True, "power": "on", "unknown_options": []}
    agent.answers = lambda request: [control.encode_result(request.id, found)]
    assert cli.main(["fence-check", "beta"]) == 0
    assert (agent.requests[-1].method, agent.requests[-1].params) == ("fence-check", {"host": "beta"})
    shown = capsys.readouterr().out
    assert "fence_ipmilan, which works" in shown
    assert "power:" in shown
    found["unknown_options"] = ["ipaddres"]
    assert cli.main(["fence-check", "beta"]) == 2
    assert "ipaddres" in capsys.readouterr().out
    failure = FenceTimeout("fence_ipmilan did not end within 60 s and was killed", operation="monitor of beta")
    agent.answers = lambda request: [control.encode_error(request.id, failure)]
    assert cli.main(["fence-check", "beta"]) == 18
    assert "did not end within 60 s" in capsys.readouterr().err


UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
RECORD = {
    "owner": "alpha",
    "generation": 5,
    "state": "protected",
    "backup": "beta",
    "name": "web1",
    "reason": "the backup holds a committed copy",
    "changed_by": "alpha",
}


def forgets(record: dict[str, Any] | None) -> Answers:
    def answer(request: control.Request) -> list[bytes]:
        changed = record is not None and not request.params.get("dry_run", False)
        return [control.encode_result(request.id, {"uuid": UUID, "changed": changed, "record": record})]

    return answer


def test_forget_with_yes_asks_nothing_and_says_what_was_removed(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = forgets(RECORD)
    assert cli.main(["forget", UUID, "--yes"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"The record of web1 is removed: uuid: {UUID} owner: alpha generation: 5 state: protected" in shown
    assert "reason: the backup holds a committed copy changed by: alpha" in shown
    assert shown.endswith("next: if beta still has a copy of it: remusctl unprotect web1 --force there")
    assert cli.main(["-o", "json", "forget", UUID, "--force", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out) == {"uuid": UUID, "changed": True, "record": RECORD}
    assert [(r.method, r.params) for r in agent.requests] == [
        ("forget", {"uuid": UUID, "force": False}),
        ("forget", {"uuid": UUID, "force": True}),
    ]


def test_forget_removes_what_was_confirmed(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = forgets(RECORD | {"reason": "\x1b[2J", "backup": None})
    monkeypatch.setattr(sys, "stdin", TerminalText("yes\nyes\n"))
    assert cli.main(["forget", UUID]) == 0
    out, err = capsys.readouterr()
    assert "web1 is owned by alpha (generation 5, protected: ?[2J)" in err
    assert "gone for good and that the guest runs nowhere" not in err
    assert "next:" not in out
    assert cli.main(["forget", UUID, "--force"]) == 0
    assert "You made sure that alpha is gone for good and that the guest runs nowhere" in capsys.readouterr().err
    assert [r.params for r in agent.requests] == [
        {"uuid": UUID, "force": False, "dry_run": True},
        {"uuid": UUID, "force": False, "expected_generation": 5},
        {"uuid": UUID, "force": True, "dry_run": True},
        {"uuid": UUID, "force": True, "expected_generation": 5},
    ]


@pytest.mark.parametrize(("stdin", "exit_code"), [(TerminalText("n\n"), 3), (io.StringIO("yes\n"), 2)])
def test_forget_that_nobody_confirms_changes_nothing(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO, exit_code: int
) -> None:
    agent.answers = forgets(RECORD)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["forget", UUID]) == exit_code
    assert [r.params["dry_run"] for r in agent.requests] == [True]


@pytest.mark.parametrize("more", [[], ["--yes"]])
def test_forget_without_a_record(agent: FakeAgent, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = forgets(None)
    assert cli.main(["forget", UUID, *more]) == 0
    assert capsys.readouterr().out == f"The witness has no record of {UUID}: nothing was changed.\n"
    assert len(agent.requests) == 1
    assert cli.main(["-o", "json", "forget", UUID, *more]) == 0
    assert json.loads(capsys.readouterr().out) == {"uuid": UUID, "changed": False, "record": None}


def test_forget_of_which_nobody_knows_whether_it_was_done(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    error = WitnessUnknown("no answer", operation="forget", left="it may be gone", hint="run it again: that is safe")
    agent.answers = lambda request: [control.encode_error(request.id, error)]
    assert cli.main(["forget", UUID, "--yes"]) == 17
    assert "run it again: that is safe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (UUID.upper(), f"which would be {UUID}"),
        (UUID.replace("-", ""), f"which would be {UUID}"),
        (f"{{{UUID}}}", f"which would be {UUID}"),
        (f" {UUID}", "is not a UUID"),
        (UUID[:-1], "is not a UUID"),
        ("web1", "is not a UUID"),
        ("", "is not a UUID"),
    ],
)
def test_forget_takes_a_uuid_in_its_usual_form_only(
    agent: FakeAgent, wrong: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["forget", wrong, "--yes"])
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "xl list -v" in shown
    assert agent.requests == []


def test_switchover_asks_for_what_it_is_told(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"domain": "redis1", "to": "beta"})]
    assert cli.main(["switchover", "redis1", "--timeout", "20", "--dry-run"]) == 0
    assert "could be moved to beta" in capsys.readouterr().out
    assert cli.main(["switchover", "redis1", "--expected-generation", "3", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "runs on beta" in shown
    assert "with a witness it is protected there by itself" in shown
    assert [request.params for request in agent.requests] == [
        {"domain": "redis1", "timeout": 20.0, "dry_run": True},
        {"domain": "redis1", "timeout": 60.0, "dry_run": False, "expected_generation": 3},
    ]


@pytest.mark.parametrize(("error", "exit_code"), [(SwitchoverError, 19), (SwitchoverInDoubt, 20)])
def test_switchover_tells_by_its_exit_code_what_was_left(
    agent: FakeAgent, error: type[SwitchoverError], exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = lambda r: [control.encode_error(r.id, error("why", left="what was left"))]
    assert cli.main(["switchover", "redis1", "--yes"]) == exit_code
    assert "what was left" in capsys.readouterr().err
