"""Every command that destroys something asks before, and can be tried without changing anything."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from fake_agent import STATUS, FakeAgent, fails, gives
from terminal import TerminalText

from remus_agent.cli import main as cli

UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
PROOF = ["--fenced-host", "alpha", "--fenced-method", "power-off", "--evidence", "lamp is off"]
DESTRUCTIVE: dict[str, list[str]] = {
    "unprotect": ["unprotect", "redis1"],
    "unprotect by force": ["unprotect", "redis1", "--force"],
    "pause": ["pause", "redis1", "--for", "30m"],
    "failover": ["failover", "redis1", *PROOF],
    "switchover": ["switchover", "redis1"],
    "forget": ["forget", UUID],
}
ANSWER: dict[str, Any] = {
    **STATUS,
    "to": "beta",
    "uuid": UUID,
    "record": {
        "name": "redis1",
        "owner": "alpha",
        "generation": 3,
        "state": "protected",
        "backup": "beta",
        "reason": "x",
    },
}


@pytest.mark.parametrize("command", DESTRUCTIVE.values(), ids=DESTRUCTIVE)
def test_without_a_yes_nothing_is_changed(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = gives(**ANSWER)
    monkeypatch.setattr(sys, "stdin", TerminalText("n\n"))
    assert cli.main(command) == 3
    assert "Continue? [y/N]" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli.main(command) == 2
    assert "add --yes" in capsys.readouterr().err
    assert all(request.method == "status" or request.params.get("dry_run") for request in agent.requests)


@pytest.mark.parametrize("command", DESTRUCTIVE.values(), ids=DESTRUCTIVE)
def test_with_a_yes_it_is_done_once(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    agent.answers = gives(**ANSWER)
    monkeypatch.setattr(sys, "stdin", TerminalText("y\n"))
    assert cli.main(command) == 0
    assert [r.method for r in agent.requests if r.method == command[0] and not r.params.get("dry_run")] == [command[0]]


@pytest.mark.parametrize("command", DESTRUCTIVE.values(), ids=DESTRUCTIVE)
def test_a_trial_asks_nobody_and_changes_nothing(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = gives(**ANSWER)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for more in (["--dry-run"], ["--dry-run", "--yes"]):
        assert cli.main([*command, *more]) == 0
        out, err = capsys.readouterr()
        assert "redis1" in out
        assert err == ""
    assert cli.main(["-o", "json", *command, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert all(request.method == "status" or request.params.get("dry_run") is True for request in agent.requests)


def test_what_is_moved_is_what_was_confirmed(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = gives(domain="redis1", to="beta", generation=7)
    monkeypatch.setattr(sys, "stdin", TerminalText("y\n"))
    assert cli.main(["switchover", "redis1"]) == 0
    assert [(r.params["dry_run"], r.params.get("expected_generation")) for r in agent.requests] == [
        (True, None),
        (False, 7),
    ]
    asked = capsys.readouterr().err
    assert "With a witness it is protected there by itself" in asked
    assert "without one not before somebody says so" in asked


@pytest.mark.parametrize(
    ("status", "force", "said"),
    [
        (
            {"role": "backup", "state": "orphaned"},
            True,
            "(orphaned, epoch 41 of generation 3) would be discarded for good.",
        ),
        ({"role": "none", "state": "unprotected"}, True, "Nothing: redis1 is unprotected."),
        ({"role": "none", "state": "paused"}, False, "Its pause would end"),
        ({"state": "stood-down"}, True, "it would be destroyed."),
        ({"state": "starting"}, True, "was built here to run, and never ran: it would be destroyed."),
        ({"state": "silent"}, True, "you vouch that its copy will not be activated"),
        ({}, False, "beta discards its copy first, then held output flows. From then on redis1 is gone when"),
    ],
)
def test_what_unprotect_would_do(
    agent: FakeAgent, status: dict[str, Any], force: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = gives(**(STATUS | status))
    assert cli.main(["unprotect", "redis1", "--dry-run", *(["--force"] if force else [])]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {},
            "redis1 (protected) would end for a time: beta discards its copy first, then held output flows; after 30m00s",
        ),
        ({"role": "none", "state": "paused"}, "The pause of redis1 would be counted anew: after 30m00s"),
    ],
)
def test_what_pause_would_do(
    agent: FakeAgent, status: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = gives(**(STATUS | status))
    assert cli.main(["pause", "redis1", "--for", "30m", "--dry-run"]) == 0
    assert said in capsys.readouterr().out


def test_nothing_is_asked_where_nothing_would_end(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.answers = gives(**(STATUS | {"role": "none", "state": "unprotected"}))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(["unprotect", "redis1"]) == 0


@pytest.mark.parametrize("command", [DESTRUCTIVE["unprotect"], DESTRUCTIVE["pause"]], ids=["unprotect", "pause"])
def test_what_ends_is_what_was_confirmed(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr(sys, "stdin", TerminalText("yes\n"))
    assert cli.main(command) == 0
    trial, done = agent.requests
    assert trial.params["dry_run"] is True
    assert done.params == {name: value for name, value in trial.params.items() if name != "dry_run"} | {
        "expected": {"role": "primary", "generation": 3}
    }


@pytest.mark.parametrize("command", [DESTRUCTIVE["unprotect"], DESTRUCTIVE["pause"]], ids=["unprotect", "pause"])
@pytest.mark.parametrize("how", [[], ["--dry-run"]], ids=["in earnest", "as a trial"])
def test_what_is_refused_is_refused_before_anybody_is_asked(
    agent: FakeAgent, command: list[str], how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = fails(code="refused", message="the backup can't be asked", left="the guest runs", hint="repair it")
    assert cli.main([*command, *how]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "Continue?" not in err
    assert "state left: the guest runs" in err


def test_forget_without_a_record(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = gives(uuid=UUID, record=None)
    assert cli.main(["forget", UUID, "--dry-run"]) == 0
    assert "there is nothing to remove" in capsys.readouterr().out
