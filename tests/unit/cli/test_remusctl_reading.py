"""What commands of `remusctl` show that only read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml
from fake_agent import STATUS, FakeAgent, fails

from remus_agent.cli import main as cli
from remus_agent.cli import reading
from remus_agent.protocol import control


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
    member = {
        "domain": "app1",
        "memory_kib": 1024,
        "cost": {"cpu_seconds": 3.25, "memory_bytes": 38 << 20, "parts": parts[1:]},
    }
    group = STATUS | {"cost": cost, "members": [member, {"domain": "db1", "memory_kib": 1024, "cost": None}]}
    agent.answers = lambda request: [control.encode_result(request.id, group)]
    assert cli.main(["status", "redis1"]) == 0
    said += " of it app1: 3.2s of processor time, 38.0 MiB (disks 3.2s, 38.0 MiB)"
    assert " ".join(capsys.readouterr().out.split()).endswith(said)
    shared = {"cpu_seconds": 62.0, "memory_bytes": 60 << 20}
    agent.answers = lambda request: [control.encode_result(request.id, {"host": "alpha", "shared_cost": shared})]
    assert cli.main(["agent"]) == 0
    assert "shared by all guests: 1m02s of processor time, 60.0 MiB" in capsys.readouterr().out
    agent.answers = lambda request: [control.encode_result(request.id, {"host": "alpha", "shared_cost": None})]
    assert cli.main(["agent"]) == 0
    assert "shared" not in capsys.readouterr().out


def test_answers_that_lack_fields_are_shown_as_far_as_they_go(agent: FakeAgent) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {})]
    for arguments in (["list"], ["status", "a"], ["agent"], ["events"]):
        assert cli.main(arguments) == 0


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
        "peers": {"beta": {"address": "10.0.0.2:7789"}, "gamma": {"address": "10.0.0.3:7789"}},
    }
    agent.answers = lambda r: [control.encode_result(r.id, answer)]
    assert cli.main(["agent"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["beta", "10.0.0.2:7789"] in rows
    assert ["gamma", "10.0.0.3:7789"] in rows
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


def test_yaml_is_what_the_agent_answered(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "redis1", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == STATUS
    agent.answers = fails(code="refused", message="no: not now", left="as before")
    assert cli.main(["-o", "yaml", "status", "redis1"]) == 3
    error = {"code": "refused", "message": "no: not now", "left": "as before"}
    assert yaml.safe_load(capsys.readouterr().err) == {"error": error}


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
