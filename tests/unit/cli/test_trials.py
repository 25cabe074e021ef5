"""Every command that destroys something asks before, and can be tried without changing anything."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from fake_agent import STATUS, FakeAgent, gives
from terminal import TerminalText

from remus_agent.cli import main as cli

UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
PROOF = ["--fenced-host", "alpha", "--fenced-method", "power-off", "--evidence", "lamp is off"]
DESTRUCTIVE: dict[str, list[str]] = {
    "unprotect": ["unprotect", "redis1", "--force"],
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
        ({"role": "backup", "state": "ready"}, False, "Refused without --force: the copy of redis1"),
        ({"role": "none", "state": "unprotected"}, True, "Nothing: redis1 is unprotected."),
        ({"role": "none", "state": "paused"}, False, "Its pause would end"),
        ({"state": "stood-down"}, True, "it would be destroyed."),
        ({"state": "stood-down"}, False, "Refused without --force: redis1 is paused here because beta owns it."),
        ({"state": "silent"}, True, "you vouch that its copy will not be activated"),
        ({}, False, "beta discards its copy first, then held output flows."),
    ],
)
def test_what_unprotect_would_do(
    agent: FakeAgent, status: dict[str, Any], force: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = gives(**(STATUS | status))
    assert cli.main(["unprotect", "redis1", "--dry-run", *(["--force"] if force else [])]) == 0
    assert said in capsys.readouterr().out


def test_forget_without_a_record(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = gives(uuid=UUID, record=None)
    assert cli.main(["forget", UUID, "--dry-run"]) == 0
    assert "there is nothing to remove" in capsys.readouterr().out
