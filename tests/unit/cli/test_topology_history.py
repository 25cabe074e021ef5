from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fake_agent import FakeAgent, gives

from remus_agent.cli import main as cli
from remus_agent.cli.history import moments_of
from remus_agent.machines.backup import Event as Copied

GUEST: dict[str, Any] = {
    "domain": "redis1",
    "uuid": "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001",
    "runs_on": "alpha",
    "backup": "beta",
    "generation": 3,
    "here": {"host": "alpha", "role": "primary", "state": "protected", "for": 3.0, "last_ack_age": 0.1, "reason": None},
    "there": {"host": "beta", "is": "backup, ready"},
    "record": {"owner": "alpha", "generation": 3, "state": "protected", "backup": "beta", "current": True},
}
PEER = {
    "address": "10.0.0.2:7789",
    "heard": 0.25,
    "second": "10.1.0.2:7790",
    "second_heard": 0.5,
    "second_problem": None,
}
ANSWER: dict[str, Any] = {
    "host": "alpha",
    "peers": {"beta": PEER},
    "witness": {"answers": True, "problem": None},
    "guests": [GUEST],
}


def shown(agent: FakeAgent, capsys: pytest.CaptureFixture[str], **changed: Any) -> str:
    agent.answers = gives(**(ANSWER | changed))
    assert cli.main(["topology"]) == 0
    return capsys.readouterr().out


def test_a_pair_that_is_well(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(agent, capsys).splitlines()
    assert lines[:3] == [
        "seen from alpha",
        "beta: replication 10.0.0.2:7789 heard 0.2s ago; second path 10.1.0.2:7790 heard 0.5s ago",
        "witness: answers",
    ]
    assert re.split(" {2,}", lines[5]) == [
        *(
            "redis1",
            "alpha",
            "beta",
            "3",
            "primary, protected",
            "backup, ready (beta)",
            "alpha/3 protected, backup beta",
        )
    ]
    assert len(lines) == 6
    assert cli.main(["-o", "json", "topology"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_what_is_wrong_is_said(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no second path" in shown(agent, capsys, peers={"beta": PEER | {"second": None}})
    broken = PEER | {"heard": None, "second_heard": None, "second_problem": "does not answer"}
    said = shown(agent, capsys, peers={"beta": broken})
    assert "no session; second path 10.1.0.2:7790 not heard, nothing gets through to it: does not answer" in said
    said = shown(agent, capsys, witness={"answers": False, "problem": "timeout \x1b[2J"})
    assert "witness: DOES NOT ANSWER: timeout ?[2J" in said
    assert "witness: none" in shown(agent, capsys, witness=None)
    old = GUEST | {"record": GUEST["record"] | {"owner": "beta", "current": False}}
    said = shown(agent, capsys, guests=[old])
    assert "beta/3 protected, backup beta (as last read)" in said
    assert "redis1: the record names beta as its owner, and it seems to run on alpha" in said
    unknown = GUEST | {"runs_on": None, "backup": None, "record": None, "here": GUEST["here"] | {"reason": "why"}}
    assert shown(agent, capsys, guests=[unknown]).endswith("redis1: why\n")
    assert "No guest is known" in shown(agent, capsys, guests=[])


def event(second: float, kind: str, **detail: Any) -> dict[str, Any]:
    return {"id": 1, "time": f"2026-01-02T03:04:{second:06.3f}Z", "domain": "redis1", "event": kind, "detail": detail}


TAKEOVER = [
    event(1, "receiving", primary="alpha", session="s"),
    event(2, "ready"),
    event(3, "suspect", silent_for=10.0, primary="alpha"),
    event(3.1, "taking", because=Copied.PRIMARY_GONE.value),
    event(3.5, "ownership", owner="beta", generation=4, reason="its primary is silent on both paths"),
    event(3.6, "activating"),
    event(5, "active", because="the domain runs here"),
]


def test_a_takeover_and_what_came_after_it() -> None:
    back = [
        event(5.1, "seeking"),
        event(5.2, "solo", because="the session failed"),
        event(10, "seeking"),
        event(10.1, "solo", because="the session failed"),
        event(20, "seeking"),
        event(21, "reprotecting"),
        event(31.2, "protected", because="the first epoch of the session is acknowledged"),
        event(32, "ownership", owner="beta", generation=5, reason="the backup holds a committed copy"),
    ]
    taken, protected = moments_of(TAKEOVER + back)
    assert taken == {
        "time": "2026-01-02T03:04:05.000Z",
        "what": "takeover to here",
        "generation": 4,
        "reason": "its primary is silent on both paths",
        "seconds": 2.0,
        "from": "alpha",
    }
    assert (protected["what"], protected["generation"]) == ("protected", 4)


def test_a_failover_by_an_operator_and_a_switchover() -> None:
    asked = [
        event(1, "failover-asked", fenced_host="alpha", method="power-off", evidence="lamp"),
        event(2, "active", because="the domain runs here"),
        event(20, "taking", because=Copied.HANDED_OVER.value),
        event(21, "active", because="the domain runs here"),
    ]
    failover, switchover = moments_of(asked)
    assert (failover["what"], failover["reason"]) == ("failover to here", "alpha was fenced by power-off: lamp")
    assert (switchover["what"], switchover["seconds"]) == ("switchover to here", 1.0)


def test_running_alone_has_a_length() -> None:
    alone = [
        event(1, "protected", because="x"),
        event(2, "silent", because="the session failed", reason="link"),
        event(3, "reconnecting"),
        event(4, "silent", because="the session failed", reason="link"),
        event(5, "going-solo"),
        event(6, "ownership", owner="alpha", generation=7, reason="the backup beta cannot be reached"),
        event(6.5, "solo", because="the witness confirms that only this host may run the guest"),
    ]
    assert [one["what"] for one in moments_of(alone)] == ["protected", "silent", "solo"]
    assert moments_of(alone)[-1]["seconds"] is None
    *_, solo, stood_down = moments_of([*alone, event(16.5, "stood-down", because="paused")])
    assert (solo["seconds"], solo["generation"], stood_down["what"]) == (10.0, 7, "stood-down")


def test_history_in_words(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = gives(events=TAKEOVER)
    assert cli.main(["history", "redis1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TIME", "WHAT", "GENERATION", "FOR", "REASON"]
    assert "takeover to here, from alpha  4           2.0s  its primary is silent on both paths" in lines[1]
    assert agent.requests[0].params == {"domain": "redis1", "limit": 10_000}
    agent.answers = gives(events=[])
    assert cli.main(["history", "redis1"]) == 0
    assert "Nothing became of redis1" in capsys.readouterr().out


def test_events_that_ask_for_something(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    problem = event(1, "silent") | {"means": "output is held", "runbook": "docs/runbook.md#a-guest-is-silent"}
    agent.answers = gives(events=[problem])
    assert cli.main(["events", "--problems"]) == 0
    assert agent.requests[0].params == {"since": 0, "limit": 200, "problems": True}
    assert capsys.readouterr().out.splitlines()[1] == "    output is held: see docs/runbook.md#a-guest-is-silent"
