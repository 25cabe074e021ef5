"""The role remus_pki against two hosts that are folders of this machine: what is made, what a second run does, what leaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from remus_agent.adapters.transport.tls import MutualTls
from remus_agent.config import Tls
from tests.modules.conftest import ROOT
from tests.roles.local_play import run_play

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(600)]


def play(folder: Path, *extra: str) -> str:
    """Run the role for alpha and beta; return what it printed."""
    hosts = {name: {"remus_pki_host_dir": str(folder / name)} for name in ("alpha", "beta")}
    code, text = run_play(folder, {"hosts": hosts}, {"roles": ["remus_pki"]}, "-vvv", "--diff", *extra)
    assert code == 0, text
    assert "PRIVATE KEY" not in text
    return text


def own(folder: Path, name: str) -> Tls:
    """What a host has, which its agent accepts."""
    files = Tls(folder / name / "ca.pem", folder / name / "host.pem", folder / name / "host.key")
    assert MutualTls(files, name, {}).own().days_left() > 364
    return files


def test_made_installed_and_left_alone(tmp_path: Path) -> None:
    assert "changed=1" in play(tmp_path, "--check")
    assert not (tmp_path / "alpha").exists()
    assert not (tmp_path / "pki").exists()
    play(tmp_path)
    alpha, beta = own(tmp_path, "alpha"), own(tmp_path, "beta")
    assert alpha.ca.read_bytes() == beta.ca.read_bytes()
    assert alpha.key.stat().st_mode & 0o777 == 0o600
    assert play(tmp_path).count("changed=0") == 2
    before = alpha.certificate.read_bytes()
    assert play(tmp_path, "-e", "remus_pki_enabled=false").count("changed=0") == 2
    assert (own(tmp_path, "alpha"), alpha.certificate.read_bytes()) == (alpha, before), "agents may have them in use"
    play(tmp_path, "-e", "remus_pki_rotation=prepare")
    play(tmp_path, "-e", "remus_pki_rotation=switch")
    assert own(tmp_path, "alpha").certificate.read_bytes() != before


def test_the_ca_beside_an_inventory_is_not_read_as_one(tmp_path: Path) -> None:
    """As `-i inventories/site` has it, a folder; Ansible would complain of every file of the CA with every run."""
    site = tmp_path / "site"
    (site / "pki" / "hosts" / "alpha").mkdir(parents=True)
    for name in ("ca.pem", "hosts/alpha/host.pem"):
        (site / "pki" / name).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (site / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"alpha": {}}}}))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(site), "--graph"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
    )
    assert "alpha" in done.stdout
    assert done.stderr == ""
