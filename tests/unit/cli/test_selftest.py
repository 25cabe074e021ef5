from __future__ import annotations

import contextlib
import json
import socket
import threading
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
    with supervisor(tmp_path / "supervisor.sock", b'{"ok": true}\n'):
        yield ["--config", str(tmp_path / "agent.toml"), "--supervisor", str(tmp_path / "supervisor.sock")]


@contextlib.contextmanager
def supervisor(path: Path, answer: bytes | None) -> Iterator[None]:
    """Gives this answer to the first line of each connection; None: it hangs, and the kernel takes connections for it."""

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                assert json.loads(line.recv(4096)) == {"alive": True}
                line.sendall(answer or b"")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        if answer is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


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


@pytest.mark.parametrize("what", ["an error", "no language of ours"])
def test_an_agent_that_cannot(agent: FakeAgent, host: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What this host finds by itself is shown all the same."""
    agent.answers = fails(code="config", message="unknown method") if what == "an error" else lambda _: [b"220 mail\n"]
    code, found = results(capsys, *host)
    assert code == 1
    assert (found["agent"]["result"], found["agent"]["next"]) == ("fail", "see journalctl -u remus-agent")
    assert {one["result"] for name, one in found.items() if name != "agent"} == {"ok"}


def test_an_agent_that_hangs(
    agent: FakeAgent, host: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not waited for as long as a fence agent may take."""
    monkeypatch.setattr(selftest, "_ALIVE", 0.2)
    over = threading.Event()

    def hangs(_: object) -> list[bytes]:
        over.wait()
        return []

    agent.answers = hangs
    code, found = results(capsys, *host)
    over.set()
    assert code == 12
    assert "did not finish within 0.2 s" in found["agent"]["message"]
    assert found["supervisor"]["result"] == "ok"


@pytest.mark.parametrize(
    ("answer", "result", "said"),
    [
        (None, "fail", "it has not answered within 0.2 s"),
        (b"", "fail", "closes connections"),
        (b'{"ok": false, "error": "an older one"}\n', "ok", "answers"),
    ],
)
def test_a_supervisor_that_hangs(
    agent: FakeAgent,
    host: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: bytes | None,
    result: str,
    said: str,
) -> None:
    monkeypatch.setattr(selftest, "_ALIVE", 0.2 if answer is None else 30.0)
    agent.answers = gives(host="alpha", checks=[])
    with supervisor(tmp_path / "other.sock", answer):
        _, found = results(capsys, *host[:2], "--supervisor", str(tmp_path / "other.sock"))
    assert found["supervisor"]["result"] == result
    assert said in found["supervisor"]["message"]


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
