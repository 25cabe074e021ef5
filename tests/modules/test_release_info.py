"""remus_release_info: what is installed, what is in use, what runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remus_agent.protocol.replication.messages import PROTOCOL
from tests.modules.conftest import ROOT, RunModule, load

SAYS = "remus_agent/protocol/replication/messages.py"


def release(prefix: Path, name: str, says: str, whole: bool = True) -> None:
    """A folder as remus_release leaves it."""
    source = prefix / name / "lib/python3.13/site-packages" / SAYS
    source.parent.mkdir(parents=True)
    source.write_text(says)
    if whole:
        (prefix / name / ".complete").touch()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Two releases and half of a third; the second one is in use."""
    prefix = tmp_path / "opt"
    release(prefix, "1-a", "PROTOCOL: Final = 2\n")
    release(prefix, "1-b", (ROOT / SAYS).read_text())
    release(prefix, "1-c", "PROTOCOL: Final = 3\n", whole=False)
    (prefix / "current").symlink_to("1-b")
    (prefix / "previous").symlink_to("1-a")
    return prefix


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that says which process a unit has: the content of a file."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat {tmp_path}/"$4"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_releases_and_what_they_speak(run_module: RunModule, prefix: Path, systemctl: Path) -> None:
    result = run_module("remus_release_info", prefix=str(prefix), services=["gone"])
    assert (result["current"], result["previous"]) == ("1-b", "1-a")
    assert result["releases"] == {"1-a": {"protocol": 2}, "1-b": {"protocol": PROTOCOL}}
    assert result["running"] == {"gone": None}


def test_a_service_is_known_by_its_interpreter(run_module: RunModule, prefix: Path, systemctl: Path) -> None:
    interpreter = prefix / "1-a/bin/python3"
    interpreter.parent.mkdir()
    interpreter.symlink_to(sys.executable)
    script = prefix / "1-a/bin/say"
    script.write_text(f"#!{interpreter}\nimport sys\nsys.stdin.read()\n")
    script.chmod(0o755)
    with (
        subprocess.Popen([script], stdin=subprocess.PIPE) as inside,
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as outside,
    ):
        (systemctl / "remus-agent").write_text(f"{inside.pid}\n")
        (systemctl / "other").write_text(f"{outside.pid}\n")
        (systemctl / "stopped").write_text("0\n")
        services = ["remus-agent", "other", "stopped"]
        result = run_module("remus_release_info", prefix=str(prefix), services=services)
        inside.communicate()
        outside.communicate()
    assert result["running"] == {"remus-agent": "1-a", "other": None, "stopped": None}


def test_a_host_without_releases(run_module: RunModule, tmp_path: Path, systemctl: Path) -> None:
    result = run_module("remus_release_info", prefix=str(tmp_path / "none"))
    assert (result["current"], result["previous"], result["releases"]) == (None, None, {})


def test_the_builder_reads_the_protocol_at_the_same_place() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    import build_wheelhouse

    assert build_wheelhouse.protocol(ROOT) == PROTOCOL
    assert load("remus_release_info").SAYS_PROTOCOL.endswith(f"/{build_wheelhouse.SAYS_PROTOCOL}")


def test_releases_that_cannot_be_read(run_module: RunModule, prefix: Path, systemctl: Path) -> None:
    says = prefix / "1-a/lib/python3.13/site-packages" / SAYS
    says.unlink()
    says.mkdir()
    result = run_module("remus_release_info", prefix=str(prefix), services=[])
    assert result["failed"]
    assert "cannot be read" in result["msg"]
    assert "Next: run it as root" in result["msg"]
