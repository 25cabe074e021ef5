"""`remus-disks`: what a person and a role get to read, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_host import FakeHost

from remus_agent import disks
from remus_agent.adapters.disk import marker
from remus_agent.disk_config import load

LIST = """
[[disk]]
domain = "db1"
vdev = "xvda"
device = "/dev/vg0/db1"

[[disk]]
domain = "web1"
vdev = "xvda1"
device = "/dev/vg0/web1"
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(host: FakeHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """run(verb, ...) -> (exit code, output, errors), with the list of two disks whose devices are there."""
    listing = tmp_path / "disks.toml"
    listing.write_text(LIST)
    host.add("/dev/vg0/db1")
    host.add("/dev/vg0/web1")

    def call(verb: str, *arguments: str) -> tuple[int, str, str]:
        named = [] if verb == "check" else ["--disks", str(listing)]
        code = disks.main([verb, "--state", str(host.state), *named, *arguments])
        return code, *capsys.readouterr()

    return call


def answer(text: str) -> Any:
    return json.loads(text)


def test_up_twice_and_down(run: Run, host: FakeHost) -> None:
    code, out, _ = run("up", "--json", "--dry-run")
    assert (code, answer(out)["changed"], host.mapped) == (0, True, {})
    code, out, err = run("up")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "remus-db1-xvda: made, linear to 252:0"
    code, out, _ = run("up", "--json")
    assert (code, answer(out)["changed"]) == (0, False)
    host.use("remus-db1-xvda")
    code, out, err = run("down")
    assert (code, out) == (3, "remus-web1-xvda1: removed\n")
    assert "remus-disks: take a disk down: /dev/mapper/remus-db1-xvda is in use" in err
    assert list(host.mapped) == ["remus-db1-xvda"]


def test_one_bad_disk_does_not_stop_the_others(run: Run, host: FakeHost) -> None:
    del host.devices[Path("/dev/vg0/db1")]
    code, out, err = run("up", "--json", "--wait", "0.01")
    assert code == 16
    assert [one["action"] for one in answer(out)["disks"]] == ["failed", "made"]
    assert "/dev/vg0/db1" in json.loads(err)["error"]["message"]
    code, out, _ = run("status")
    assert code == 0
    assert "No such file" in out
    assert list(host.mapped) == ["remus-web1-xvda1"]


def test_status_names_what_is_wrong(run: Run, host: FakeHost, tmp_path: Path) -> None:
    run("up")
    marker.mark(host.state, load(tmp_path / "disks.toml", host.state, host.run)[0])
    devices = host.mapped
    devices["remus-gone-xvda"] = devices["remus-db1-xvda"]
    host.mapped = devices
    _, out, _ = run("status")
    heading, first, second, stray = out.splitlines()
    assert heading.split() == ["NAME", "TARGET", "SIZE", "LEGS", "USERS", "DEVICE"]
    assert first.endswith("should be error")
    assert second.split() == ["remus-web1-xvda1", "linear", "536870912", "-", "0", "/dev/vg0/web1"]
    assert stray.startswith("remus-gone-xvda: not in ")
    _, out, _ = run("status", "--json")
    assert [row["right"] for row in answer(out)["disks"]] == [False, True]
    assert answer(out)["strays"] == ["remus-gone-xvda"]
    assert run("down", "remus-gone-xvda")[:2] == (0, "remus-gone-xvda: removed\n")
    code, _, err = run("down", "vg0-root")
    assert (code, "not a disk's mapper device: vg0-root" in err) == (2, True)


def test_an_unclear_marker_makes_nothing(run: Run, host: FakeHost, tmp_path: Path) -> None:
    disk = load(tmp_path / "disks.toml", host.state, host.run)[0]
    marker.mark(host.state, disk)
    marker.path_of(host.state, disk).write_text("?")
    code, _, err = run("up")
    assert (code, list(host.mapped)) == (16, ["remus-web1-xvda1"])
    assert "remus-db1-xvda.role" in err


def test_check(run: Run, host: FakeHost, tmp_path: Path) -> None:
    assert run("check", str(tmp_path / "disks.toml")) == (0, "2 disks, all usable.\n", "")
    assert answer(run("check", "--json", str(tmp_path / "none.toml"))[1]) == {"disks": 0}
    (tmp_path / "bad.toml").write_text(LIST.replace("vdev", "vdve", 1))
    code, _, err = run("check", str(tmp_path / "bad.toml"))
    assert (code, "has no key 'vdve'" in err) == (2, True)
    host.devices.clear()
    code, _, err = run("check", str(tmp_path / "disks.toml"))
    assert code == 2
    assert "\n  1. device of remus-db1-xvda" in err
    assert "\n  2. device of remus-web1-xvda1" in err


def test_the_state_directory_is_the_agents(host: FakeHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disks.toml").write_text(LIST)
    toml = tmp_path / "agent.toml"
    toml.write_text('[host]\nname = "a"\n[replication]\nlisten = "192.0.2.1:1"\n[paths]\nstate = "/srv/remus"\n')
    common = ["--config", str(toml), "--disks", str(tmp_path / "disks.toml"), "--json"]
    assert disks.main(["status", *common]) == 0
    assert answer(capsys.readouterr().out)["disks"][0]["journal"] == "/srv/remus/disks/db1-xvda.journal"
    toml.write_text("[host")
    assert disks.main(["status", *common]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "config"


def test_a_host_without_disks_needs_no_device_mapper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for verb in ("up", "status"):
        assert disks.main([verb, "--state", str(tmp_path), "--disks", str(tmp_path / "none")]) == 0
    assert disks.main(["down", "--state", str(tmp_path), "--disks", str(tmp_path / "none")]) == 16
    assert "install the package dmsetup" in capsys.readouterr().err


def test_what_every_boot_waits_for_does_not_load_numpy() -> None:
    code = "import sys, remus_agent.disks; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
