from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_agent import FakeAgent, fails, gives

from remus_agent.cli import main as cli
from remus_agent.cli import selftest

GOOD = '[host]\nname = "alpha"\n[replication]\nlisten = "192.0.2.1:7789"\npeers = { beta = "192.0.2.2:7789" }\n'
WELL = {"name": "witness", "result": "ok", "message": "answers", "next": None}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A host that is well: the arguments that lead to its files."""
    (tmp_path / "agent.toml").write_text(GOOD)
    for name in selftest.MODULES[1:]:
        (tmp_path / "module" / name).mkdir(parents=True)
    monkeypatch.setattr(selftest, "_SYS_MODULES", tmp_path / "module")
    monkeypatch.setattr(selftest, "_built_in", lambda: frozenset({selftest.MODULES[0]}))
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(tmp_path / "supervisor.sock"))
        supervisor.listen()
        yield ["--config", str(tmp_path / "agent.toml"), "--supervisor", str(tmp_path / "supervisor.sock")]


def results(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["-o", "json", "selftest", *arguments])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] == (code == 0)
    return code, {one["name"]: one for one in answer["checks"]}


def test_a_host_that_is_well(agent: FakeAgent, host: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = gives(host="alpha", checks=[WELL])
    code, found = results(capsys, *host)
    assert code == 0
    assert {one["result"] for one in found.values()} == {"ok"}
    assert set(found) == {"configuration", "kernel modules", "supervisor", "agent", "witness"}
    assert cli.main(["selftest", *host]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["RESULT", "CHECK", "FOUND"]
    assert shown[-1] == "5 ok, 0 warn, 0 fail"


def test_a_warning_is_no_failure(agent: FakeAgent, host: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = gives(host="alpha", checks=[WELL | {"result": "warn", "next": "look \x1b[2J"}])
    assert cli.main(["selftest", *host]) == 0
    shown = capsys.readouterr().out
    assert "WARN    witness" in shown
    assert "witness: next: look ?[2J" in shown
    agent.answers = gives(host="alpha", checks=[WELL | {"result": "fail"}])
    assert results(capsys, *host)[0] == 1


def test_no_agent(host: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = results(capsys, "--socket", str(tmp_path / "none"), *host)
    assert code == 12
    assert found["agent"]["result"] == "fail"
    assert "systemctl start remus-agent" in found["agent"]["next"]


def test_an_agent_that_cannot(agent: FakeAgent, host: list[str]) -> None:
    agent.answers = fails(code="config", message="unknown method")
    assert cli.main(["selftest", *host]) == 2


def test_each_local_check_can_fail(
    agent: FakeAgent,
    host: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent.answers = gives(host="alpha", checks=[])
    (tmp_path / "agent.toml").write_text(GOOD.replace("listen", "listens"))
    monkeypatch.setattr(selftest, "_built_in", frozenset)
    code, found = results(capsys, *host[:2], "--supervisor", str(tmp_path / "none"))
    assert code == 1
    assert "listens" in found["configuration"]["message"]
    assert found["kernel modules"]["message"] == "not loaded: ifb"
    assert found["kernel modules"]["next"].startswith("modprobe -a ifb;")
    assert "No such file" in found["supervisor"]["message"]
    assert [one["result"] for one in found.values()] == ["fail", "fail", "fail", "ok"]


def test_modules_that_are_part_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_BUILT_IN", tmp_path)
    assert selftest._built_in() == frozenset()
    folder = tmp_path / selftest.os.uname().release
    folder.mkdir()
    (folder / "modules.builtin").write_text("kernel/net/sched/sch_plug.ko\nkernel/drivers/net/ifb.ko\n")
    assert selftest._built_in() == {"sch_plug", "ifb"}
