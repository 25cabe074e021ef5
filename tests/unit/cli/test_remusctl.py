"""`remusctl` as a program: errors, exit codes, arguments, readers and agents that go away."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_agent import STATUS, FakeAgent, fails, gives
from terminal import TerminalText

from remus_agent import remusctl
from remus_agent.cli import main as cli
from remus_agent.cli import render
from remus_agent.errors import RefusedError
from remus_agent.protocol import control
from remus_agent.protocol.control import Progress


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


def test_a_defect_ends_in_a_message(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers = lambda r: [control.encode_result(r.id, {"domains": 5})]
    assert cli.main(["list"]) == 1
    err = capsys.readouterr().err
    assert "this should not happen" in err
    assert "Traceback" not in err


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


PROGRAM = [sys.executable, "-m", "remus_agent.remusctl"]


@contextlib.contextmanager
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads any more."""
    theirs, ours = os.pipe()
    os.close(theirs)
    yield ours
    os.close(ours)


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["-o", "json", "status", "redis1"], ["events"]])
def test_who_has_seen_enough_ends_it_without_a_word(agent: FakeAgent, arguments: list[str]) -> None:
    with unread() as pipe:
        done = subprocess.run([*PROGRAM, *arguments], stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_that_nobody_reads_is_one_all_the_same(agent: FakeAgent) -> None:
    agent.answers = fails(code="refused", message="no")
    with unread() as pipe:
        done = subprocess.run([*PROGRAM, "status", "redis1"], stdout=subprocess.PIPE, stderr=pipe, check=False)
    assert (done.returncode, done.stdout) == (3, b"")


def test_what_is_asked_for_is_awaited_though_nobody_reads_how_far_it_is(agent: FakeAgent) -> None:
    agent.answers = lambda r: [
        control.encode_progress(r.id, Progress(phase="seeding", done=1, total=4, unit="pages", elapsed=0.5)),
        control.encode_error(r.id, RefusedError("it was given up")),
    ]
    with unread() as pipe:
        done = subprocess.run([*PROGRAM, "protect", "redis1", "--peer", "beta"], stderr=pipe, check=False)
    assert done.returncode == 3


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_stream_that_is_closed(agent: FakeAgent, stream: int) -> None:
    command = ["sh", "-c", f'exec "$@" {stream}>&-', "sh", *PROGRAM, "list"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_that_the_terminal_cannot_show(agent: FakeAgent) -> None:
    agent.answers = gives(domains=[STATUS | {"domain": "caf\u00e9"}])
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*PROGRAM, "list"], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf\\xe9" in done.stdout


def test_an_argument_that_is_no_text(agent: FakeAgent) -> None:
    done = subprocess.run([*PROGRAM, "status", b"web\xff"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"an argument is not UTF-8 text" in done.stderr
    assert b"state left: nothing was asked of the agent" in done.stderr
    assert agent.requests == []


def test_ctrl_c_while_it_loads_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "remus_agent.cli", Interrupted("remus_agent.cli"))
    assert remusctl.main(["list"]) == 130


def test_ctrl_c_at_a_question_changes_nothing(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Asked(TerminalText):
        def readline(self, *_: object) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Asked())
    assert cli.main(["unprotect", "redis1"]) == 130
    err = capsys.readouterr().err
    assert err.endswith("remusctl: interrupted, nothing was changed\n")
    assert "carries on" not in err
    assert [request.params["dry_run"] for request in agent.requests] == [True]


def test_nothing_from_another_host_steers_the_terminal(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.answers = fails(code="peer-refused", message="\x1b[2Jgone\r\n", hint="\x07")
    cli.main(["status", "a"])
    assert "\x1b" not in (err := capsys.readouterr().err)
    assert "\x07" not in err


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
