from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_agent import STATUS, Answers, FakeAgent, Terminal, fails

from remus_agent.cli import main as cli
from remus_agent.cli import progress, reading, render
from remus_agent.errors import FenceTimeout, SwitchoverError, SwitchoverInDoubt, WitnessUnknown
from remus_agent.protocol import control
from remus_agent.protocol.control import Progress


def test_list(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"domains": [STATUS]})]
    assert cli.main(["list"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["DOMAIN", "ROLE", "STATE", "PEER"]
    assert row.split()[:4] == ["redis1", "primary", "protected", "beta"]
    assert "64.0 KiB" in row
    assert agent.requests[0].method == "list"


def test_no_domains(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"domains": []})]
    assert cli.main(["status"]) == 0
    assert "No domain" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["-o", "json", "status", "redis1"], ["status", "redis1", "-o", "json"]])
def test_json_is_what_the_agent_answered(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == STATUS
    assert agent.requests[0].params == {"domain": "redis1"}


def test_status_in_words(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "redis1"]) == 0
    shown = capsys.readouterr().out
    assert "protected for 1m15s" in shown
    assert "64.0 KiB in 7 frames" in shown
    assert "120 pages, down 2.5 ms" in shown


def test_disks_in_words(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    disk = {"vdev": "xvda", "mode": "copying", "size": 1 << 30, "done": 1 << 29, "total": 1 << 30, "sent": 1 << 20}
    disks = [
        disk,
        disk | {"vdev": "xvdb", "mode": "replicating", "bytes_last": 4096},
        disk | {"vdev": "xvdc", "mode": "tracking"},
    ]
    agent.answers = lambda request: [control.encode_result(request.id, STATUS | {"disks": disks})]
    assert cli.main(["status", "redis1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "disk xvda: copying, 1.0 GiB, 50% copied, 1.0 MiB sent" in shown
    assert "disk xvdb: replicating, 1.0 GiB, 4.0 KiB in the last epoch" in shown
    assert shown.endswith("disk xvdc: tracking, 1.0 GiB")


def test_members_in_words(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        {"domain": "app1", "memory_kib": 131072, "pages_last": 12, "down_ms_last": 1.5},
        {"domain": "db1", "memory_kib": 262144, "pages_last": 90, "down_ms_last": 2.25},
    ]
    agent.answers = lambda request: [control.encode_result(request.id, STATUS | {"members": members})]
    assert cli.main(["status", "redis1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "member app1: 128.0 MiB, last checkpoint 12 pages, down 1.5 ms" in shown
    assert shown.endswith("member db1: 256.0 MiB, last checkpoint 90 pages, down 2.2 ms")
    agent.answers = lambda request: [control.encode_result(request.id, STATUS | {"role": "backup", "members": members})]
    assert cli.main(["status", "redis1"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith("member db1: 256.0 MiB")


def test_costs_in_words(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        {"part": "checkpoints", "cpu_seconds": 700.0, "memory_bytes": 8 << 20},
        {"part": "disks", "cpu_seconds": 3.25, "memory_bytes": 38 << 20},
    ]
    cost = {"cpu_seconds": 703.25, "memory_bytes": 46 << 20, "parts": parts}
    agent.answers = lambda request: [control.encode_result(request.id, STATUS | {"cost": cost})]
    assert cli.main(["status", "redis1"]) == 0
    said = "cost on this host: 11m43s of processor time, 46.0 MiB (checkpoints 11m40s, 8.0 MiB; disks 3.2s, 38.0 MiB)"
    assert " ".join(capsys.readouterr().out.split()).endswith(said)
    shared = {"cpu_seconds": 62.0, "memory_bytes": 60 << 20}
    agent.answers = lambda request: [control.encode_result(request.id, {"host": "alpha", "shared_cost": shared})]
    assert cli.main(["agent"]) == 0
    assert "shared by all guests: 1m02s of processor time, 60.0 MiB" in capsys.readouterr().out
    agent.answers = lambda request: [control.encode_result(request.id, {"host": "alpha", "shared_cost": None})]
    assert cli.main(["agent"]) == 0
    assert "shared" not in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("error", 1),
        ("internal", 1),
        ("something-new", 1),
        ("config", 2),
        ("refused", 3),
        ("domain-not-found", 4),
        ("already-protected", 5),
        ("stream", 6),
        ("replication", 6),
        ("peer-timeout", 7),
        ("guest-ended", 8),
        ("output-buffer", 9),
        ("journal", 10),
        ("authority", 11),
    ],
)
def test_exit_codes(agent: FakeAgent, code: str, exit_code: int) -> None:
    agent.answers = fails(code=code, message="no")
    assert cli.main(["status", "redis1"]) == exit_code


def test_an_error_of_several_lines_is_shown_in_lines() -> None:
    shown = render.error({"message": "two reasons:\n1. one\n2. \x1b[2Jtwo", "hint": "read"}, "remus-disks")
    assert shown.splitlines() == ["remus-disks: two reasons:", "  1. one", "  2. ?[2Jtwo", "  next: read"]


def test_an_error_in_words_and_as_json(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {
        "code": "peer-refused",
        "message": "too little memory",
        "operation": "protect",
        "domain": "redis1",
        "left": "nothing was changed",
        "hint": "free 1 GiB on beta",
    }
    agent.answers = fails(**facts)
    assert cli.main(["protect", "redis1", "--peer", "beta"]) == 7
    assert capsys.readouterr().err.splitlines() == [
        "remusctl: protect, domain redis1: too little memory",
        "  state left: nothing was changed",
        "  next: free 1 GiB on beta",
    ]
    assert cli.main(["-o", "json", "protect", "redis1", "--peer", "beta"]) == 7
    assert json.loads(capsys.readouterr().err) == {"error": facts}


def test_no_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--socket", str(tmp_path / "none.sock"), "list"]) == 12
    err = capsys.readouterr().err
    assert "no agent answers on" in err
    assert "systemctl start remus-agent" in err


def test_a_dead_agents_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert cli.main(["--socket", str(tmp_path / "dead.sock"), "list"]) == 12


def test_an_agent_that_dies_in_the_middle(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda _: []
    assert cli.main(["unprotect", "redis1"]) == 12
    assert "may be carried out in part" in capsys.readouterr().err


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"id":1}\n', b"\xff\n"])
def test_an_agent_that_talks_nonsense(agent: FakeAgent, line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda _: [line]
    assert cli.main(["list"]) == 6
    assert "Traceback" not in capsys.readouterr().err


def test_answers_that_lack_fields_are_shown_as_far_as_they_go(agent: FakeAgent) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {})]
    for arguments in (["list"], ["status", "a"], ["agent"], ["events"]):
        assert cli.main(arguments) == 0


def test_a_defect_ends_in_a_message(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"domains": 5})]
    assert cli.main(["list"]) == 1
    err = capsys.readouterr().err
    assert "this should not happen" in err
    assert "Traceback" not in err


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
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert cli.main(failover("--accept-loss")) == 0
    assert agent.requests[1].params["accept_loss"] is True
    assert "you accept that loss" in capsys.readouterr().err


def test_failover_carries_out_what_was_confirmed(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert cli.main(failover()) == 0
    assert [r.method for r in agent.requests] == ["status", "failover"]
    assert agent.requests[1].params["expected_generation"] == STATUS["generation"]
    assert agent.requests[1].params["expected_session"] == STATUS["session"]
    assert "epoch 41 of generation 3" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "exit_code"), [("", 3), ("n\n", 3), ("maybe\n", 3)])
def test_anything_but_yes_changes_nothing(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert cli.main(failover()) == exit_code
    assert cli.main(["unprotect", "redis1", "--force"]) == exit_code
    assert {r.method for r in agent.requests} == {"status"}


def test_without_a_terminal_yes_must_be_given(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert cli.main(failover()) == 2
    assert "add --yes" in capsys.readouterr().err
    assert {r.method for r in agent.requests} == {"status"}


def test_unprotect_without_force_asks_nothing(agent: FakeAgent) -> None:
    assert cli.main(["unprotect", "redis1"]) == 0
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
    monkeypatch.setattr(sys, "stdin", Terminal("yes\nyes\n"))
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


@pytest.mark.parametrize(("stdin", "exit_code"), [(Terminal("n\n"), 3), (io.StringIO("yes\n"), 2)])
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


def test_probe(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"code": "xen-version", "message": "4.17 there, 4.20 here", "hint": "upgrade beta"}
    agent.answers = lambda r: [control.encode_result(r.id, {"ok": False, "reasons": [reason], "facts": {"a": 1}})]
    assert cli.main(["probe", "redis1", "--peer", "beta"]) == 3
    out = capsys.readouterr().out
    assert "xen-version: 4.17 there, 4.20 here" in out
    assert "next: upgrade beta" in out
    agent.answers = lambda r: [control.encode_result(r.id, {"ok": True, "reasons": [], "facts": {}})]
    assert cli.main(["probe", "redis1", "--peer", "beta"]) == 0


def test_agent(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {
        "host": "alpha",
        "version": "0.1.0",
        "xen_version": "4.20.0",
        "peers": {"beta": {"address": "10.0.0.2:7789", "reachable": True}, "gamma": {"address": "10.0.0.3:7789"}},
    }
    agent.answers = lambda r: [control.encode_result(r.id, answer)]
    assert cli.main(["agent"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["beta", "10.0.0.2:7789", "yes"] in rows
    assert ["gamma", "10.0.0.3:7789", "-"] in rows
    certificate = {"names": ["alpha"], "expires": "2027-01-02T03:04:05Z", "days_left": 35.5}
    for tls, said in (
        (None, "off, connections are plain TCP"),
        (certificate, "certificate until 2027-01-02T03:04:05Z, 35.5 days left"),
        ({"error": "TLS: it has expired"}, "TLS: it has expired"),
    ):
        agent.answers = lambda r, tls=tls: [control.encode_result(r.id, answer | {"tls": tls})]
        assert cli.main(["agent"]) == 0
        assert ["TLS:", *said.split()] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("watchdog", "said"),
    [
        (None, "off"),
        (
            {"seconds": 180, "armed": True, "guests": ["web1", "db1"], "problem": None},
            "armed, resets this host 180 s after its agent is gone; owner of web1, db1",
        ),
        (
            {"seconds": 180, "armed": False, "guests": [], "problem": None},
            "not armed, this host is the owner of no guest that it protects",
        ),
        ({"seconds": 180, "armed": False, "guests": [], "problem": "no space"}, "NOT ARMED: no space"),
        ({"seconds": 180, "armed": True, "guests": ["web1"], "problem": "no privilege"}, "armed: no privilege"),
    ],
)
def test_agent_says_whether_its_host_resets_itself(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], watchdog: dict[str, Any] | None, said: str
) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"host": "alpha", "watchdog": watchdog})]
    assert cli.main(["agent"]) == 0
    assert f"watchdog: {said}" in capsys.readouterr().out.splitlines()


EVENT = {
    "id": 5,
    "time": "2025-01-02T03:04:05.678Z",
    "domain": "redis1",
    "event": "protected",
    "detail": {"peer": "be ta"},
}


def test_events(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"events": [EVENT]})]
    assert cli.main(["events", "redis1", "--limit", "10"]) == 0
    assert capsys.readouterr().out == '5  2025-01-02T03:04:05.678Z  redis1  protected  peer="be ta"\n'
    assert agent.requests[0].params == {"domain": "redis1", "since": 0, "limit": 10}


def test_following_events_goes_on_after_the_last_one(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt

    batches = iter([[EVENT], [EVENT | {"id": 6}], [], []])
    agent.answers = lambda r: [control.encode_result(r.id, {"events": next(batches)})]
    monkeypatch.setattr(reading.time, "sleep", sleep)
    assert cli.main(["events", "--follow", "-o", "json"]) == 130
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [5, 6]
    assert [r.params["since"] for r in agent.requests] == [0, 5, 6, 6]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["destroy", "redis1"],
        ["protect", "redis1"],
        ["protect", "--peer", "beta"],
        ["protect", "redis1", "--peer", "beta", "--interval-ms", "-1"],
        ["protect", "redis1", "--peer", "beta", "--interval-ms", "x"],
        ["failover", "redis1", "--yes"],
        ["failover", "redis1", "--fenced-host", "alpha", "--yes"],
        ["failover", "redis1", "--fenced-host", "alpha", "--fenced-method", "power-off", "--yes"],
        ["-o", "xml", "list"],
    ],
    ids=str,
)
def test_wrong_arguments(agent: FakeAgent, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert agent.requests == []


def test_nothing_from_another_host_steers_the_terminal(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = fails(code="peer-refused", message="\x1b[2Jgone\r\n", hint="\x07")
    cli.main(["status", "a"])
    assert "\x1b" not in (err := capsys.readouterr().err)
    assert "\x07" not in err


def test_a_reader_that_has_seen_enough_is_no_error(agent: FakeAgent) -> None:
    many = {"events": [EVENT | {"id": number} for number in range(1, 5000)]}
    agent.answers = lambda r: [control.encode_result(r.id, many)]
    with subprocess.Popen(
        [sys.executable, "-m", "remus_agent.cli.main", "events", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"REMUS_SOCKET": str(agent.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"1  ")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_a_configuration_is_checked_without_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "agent.toml"
    good.write_text(
        '[host]\nname = "alpha"\n[replication]\nlisten = "192.0.2.1:7789"\npeers = { beta = "192.0.2.2:7789" }\n'
    )
    assert cli.main(["validate-config", str(good)]) == 0
    assert capsys.readouterr().out == f"{good} is valid.\n"
    assert cli.main(["-o", "json", "validate-config", str(good)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(good), "valid": True}
    bad = tmp_path / "other.toml"
    bad.write_text(good.read_text().replace("listen", "listens"))
    assert cli.main(["validate-config", str(bad)]) == 2
    said = capsys.readouterr().err
    assert str(bad) in said
    assert "listens" in said
    bad.write_text(good.read_text() + '[http]\nlisten = "192.0.2.77:7791"\n')
    assert cli.main(["validate-config", str(bad)]) == 2
    assert "192.0.2.77 is not an address of this host" in capsys.readouterr().err


def test_it_starts_without_what_only_the_agent_needs() -> None:
    heavy = "{'numpy', 'asyncio', 'xxhash', 'pyroute2', 'remus_agent.config'}"
    code = f"import sys, remus_agent.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_progress_on_a_terminal_is_one_line_a_phase() -> None:
    stream = Terminal()
    lines = progress.ProgressLines(stream)
    lines(Progress(phase="connecting", elapsed=0.1))
    lines(Progress(phase="seeding", done=1, total=2, elapsed=1))
    lines(Progress(phase="seeding", done=2, total=2, elapsed=70))
    lines.end()
    lines.end()
    assert stream.getvalue() == (
        "\r\x1b[K[0.1s] connecting\n\r\x1b[K[1.0s] seeding 50% (1/2)\r\x1b[K[1m10s] seeding 100% (2/2)\n"
    )


def test_progress_elsewhere_is_a_line_now_and_then() -> None:
    stream = io.StringIO()
    lines = progress.ProgressLines(stream)
    for second in range(12):
        lines(Progress(phase="seeding", done=second, total=12, elapsed=float(second)))
    assert len(stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2s"), (59.9, "59s"), (185, "3m05s"), (7800, "2h10m"), (356400, "4d03h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text


def test_switchover_asks_for_what_it_is_told(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"domain": "redis1", "to": "beta"})]
    assert cli.main(["switchover", "redis1", "--timeout", "20", "--dry-run"]) == 0
    assert "could be moved to beta" in capsys.readouterr().out
    assert cli.main(["switchover", "redis1", "--expected-generation", "3", "--yes"]) == 0
    assert "runs on beta" in capsys.readouterr().out
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


def test_yaml_is_what_the_agent_answered(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "redis1", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == STATUS
    agent.answers = fails(code="refused", message="no: not now", left="as before")
    assert cli.main(["-o", "yaml", "status", "redis1"]) == 3
    error = {"code": "refused", "message": "no: not now", "left": "as before"}
    assert yaml.safe_load(capsys.readouterr().err) == {"error": error}
