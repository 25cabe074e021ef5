"""remus_witness_info against a real etcd: what is healthy, and every reason against it by name."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from remus_agent.config import Tls
from tests.certificates import Authority
from tests.etcd_server import Node, etcd, free_ports
from tests.modules.conftest import RunModule, load

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def site(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def given(*nodes: Node | int) -> list[dict[str, Any]]:
    ports = [node if isinstance(node, int) else node.port for node in nodes]
    return [{"name": f"w{number}", "address": "127.0.0.1", "port": port} for number, port in enumerate(ports, 1)]


def etcdctl(node: Node, files: Tls, *words: str) -> None:
    options = [
        f"--endpoints={node.endpoint}",
        f"--cacert={files.ca}",
        f"--cert={files.certificate}",
        f"--key={files.key}",
    ]
    subprocess.run(
        ["etcdctl", *options, *words], check=True, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"}
    )


def test_one_healthy_node(run_module: RunModule, site: Authority, tmp_path: Path) -> None:
    files = site.issue("alpha", days=50)
    with etcd(tmp_path, site, files) as nodes:
        found = run_module("remus_witness_info", nodes=given(*nodes), tls_dir=str(files.ca.parent), required=True)
        assert (found["reasons"], found["changed"]) == ([], False)
        assert [node["state"] for node in found["nodes"]] == ["healthy"]
        assert found["nodes"][0]["version"].startswith("3.")
        assert found["days_left"] == 49.0
        (hint,) = found["hints"]
        assert "the certificate of the witness w1 (127.0.0.1 port " in hint
        assert "expires in 29.0 days. Next: run playbooks/site.yml --tags remus_pki" in hint


def test_an_alarm_is_named(run_module: RunModule, site: Authority, tmp_path: Path) -> None:
    files = site.issue("alpha")
    with etcd(tmp_path, site, files) as nodes:
        alarm = b'{"action": "ACTIVATE", "memberID": "0", "alarm": "NOSPACE"}'
        curl = ["curl", "-sf", "--cacert", files.ca, "--cert", files.certificate, "--key", files.key]
        subprocess.run(
            [*curl, f"{nodes[0].endpoint}/v3/maintenance/alarm", "-d", alarm], check=True, capture_output=True
        )
        found = run_module("remus_witness_info", nodes=given(*nodes), tls_dir=str(files.ca.parent))
        (reason,) = found["reasons"]
        assert "has the alarm NOSPACE. Next: see the alarm NOSPACE" in reason
        etcdctl(nodes[0], files, "alarm", "disarm")
        assert run_module("remus_witness_info", nodes=given(*nodes), tls_dir=str(files.ca.parent))["reasons"] == []


def test_of_three_nodes_one_may_be_gone_and_two_may_not(run_module: RunModule, site: Authority, tmp_path: Path) -> None:
    files = site.issue("alpha", days=90)
    ask = {"tls_dir": str(files.ca.parent), "required": True, "timeout": 15, "warn_days": 5}
    with etcd(tmp_path, site, files, 3) as nodes:
        nodes[2].kill()
        found = run_module("remus_witness_info", nodes=given(*nodes), **ask)
        assert found["reasons"] == []
        (hint,) = found["hints"]
        assert "the witness w3 (127.0.0.1 port " in hint
        assert "is closed: nobody listens there. Next: look at 'systemctl status etcd' there" in hint
        nodes[1].kill()
        reasons = run_module("remus_witness_info", nodes=given(*nodes), **ask)["reasons"]
        assert [reason.split()[2] for reason in reasons] == ["w1", "w2", "w3"], reasons
        assert "has no majority" in reasons[0]


@pytest.mark.parametrize("required", [True, False])
def test_before_installation(run_module: RunModule, tmp_path: Path, required: bool) -> None:
    (closed,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nodes = given(closed, listening.getsockname()[1])
        found = run_module("remus_witness_info", nodes=nodes, tls_dir=str(tmp_path / "none"), required=required)
    assert [node["state"] for node in found["nodes"]] == ["closed", "open"]
    said = " ".join(found["reasons"])
    if required:
        assert "this host has no certificates" in said
        assert "w1 (127.0.0.1 port" in said
    else:
        assert found["reasons"] == []
        assert "nobody listens at the witness w1" in found["hints"][0]


def test_all_at_once(run_module: RunModule, site: Authority, tmp_path: Path) -> None:
    """A host whose certificate has expired, a witness that nothing leads to, and one with another CA."""
    files = site.issue("alpha", start=-40)
    other = Authority(tmp_path / "other", "elsewhere")
    with etcd(tmp_path, other, other.issue("beta")) as nodes:
        asked = [*given(*nodes), {"name": "far", "address": "no-such-witness.invalid", "port": 2379}]
        reasons = run_module("remus_witness_info", nodes=asked, tls_dir=str(files.ca.parent), timeout=5)["reasons"]
    assert "the certificate of this host has expired 10.0 days ago. Next: run playbooks/site.yml" in reasons[0]
    assert "w1 (127.0.0.1 port " in reasons[1]
    assert "its certificate is refused: " in reasons[1]
    assert "the witness far (no-such-witness.invalid port 2379) is unreachable: " in reasons[2]
    assert len(reasons) == 3


def test_certificates_that_cannot_be_used_and_one_of_the_witness_that_has_expired(
    run_module: RunModule, site: Authority, tmp_path: Path
) -> None:
    files = site.issue("alpha")
    with etcd(tmp_path, site, files) as nodes:
        site.issue("etcd", addresses=("127.0.0.1",), start=-40)  # etcd reads its files again with each connection
        (reason,) = run_module("remus_witness_info", nodes=given(*nodes), tls_dir=str(files.ca.parent))["reasons"]
        assert "is refused: its certificate has expired. Next: run playbooks/site.yml --tags remus_pki" in reason
    files.key.write_text("none")
    reasons = run_module("remus_witness_info", nodes=given(1), tls_dir=str(files.ca.parent))["reasons"]
    assert "cannot be used" in reasons[0]


def test_old_versions() -> None:
    module = load("remus_witness_info")
    assert [module.old(text) for text in ("3.3.27", "2.3.8", "", "3.4.0", "3.5.16", "4.0.0")] == [True] * 3 + [
        False
    ] * 3
