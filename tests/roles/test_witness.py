"""The settings that the role remus_witness renders, read by a real etcd, which the role's own tasks then verify."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.etcd_server import free_ports
from tests.modules.conftest import ROOT
from tests.roles.local_play import run_play

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(300)]


def play(folder: Path, hosts: dict[str, Any], *tasks: dict[str, Any], fails: bool = False) -> str:
    """Run tasks on the witnesses, which are this machine; return what was printed."""
    inventory = {"children": {"remus_witnesses": {"hosts": hosts}}}
    code, text = run_play(folder, inventory, {"tasks": list(tasks)})
    assert (code != 0) is fails, text
    return text


def role(entry: str) -> dict[str, Any]:
    return {"include_role": {"name": "remus_witness", "tasks_from": f"{entry}.yml", "public": True}}


def test_etcd_accepts_the_settings_and_is_verified(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("gamma", addresses=("127.0.0.1",))
    client, peer = free_ports(2)
    facts = {
        "remus_witness_address": "127.0.0.1",
        "remus_witness_client_port": client,
        "remus_witness_peer_port": peer,
        "remus_witness_data_dir": str(tmp_path / "data"),
        "remus_witness_tls_dir": str(files.ca.parent),
        "remus_witness_health_timeout": 30,
    }
    template = {"src": str(ROOT / "roles/remus_witness/templates/etcd.env.j2"), "dest": str(tmp_path / "env")}
    play(tmp_path, {"gamma": facts}, role("preflight"), {"template": template})
    text = (tmp_path / "env").read_text().replace("/run/credentials/etcd.service", str(files.ca.parent))
    settings = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("ETCD_"))
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(["etcd"], env={"PATH": "/usr/bin:/bin", **settings}, stdout=log, stderr=log) as etcd,
    ):
        try:
            play(tmp_path, {"gamma": facts}, role("verify"))
        finally:
            etcd.kill()
    assert "unrecognized environment variable" not in (tmp_path / "log").read_text()


def test_two_witnesses_are_refused(tmp_path: Path) -> None:
    hosts = {name: {"remus_witness_address": f"192.0.2.{number}"} for number, name in enumerate(("a", "b"), 1)}
    assert "it must have one or three" in play(tmp_path, hosts, role("preflight"), fails=True)
