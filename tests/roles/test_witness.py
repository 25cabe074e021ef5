"""The settings that the role remus_witness renders, read by a real etcd, which the role's own tasks then verify."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from tests.certificates import Authority
from tests.etcd_server import free_ports
from tests.modules.conftest import ROOT
from tests.roles.local_play import VARIABLES, ansible_playbook, run_play, run_playbook

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(1800)]


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


SYSTEMCTL = """#!{python}
\"\"\"systemd for one etcd: what it starts gets copies of the certificates, as LoadCredential makes them.\"\"\"
import os, pathlib, shutil, signal, subprocess, sys, time
def runs(number):
    try:
        return pathlib.Path(f"/proc/{{number}}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
with (folder / "systemctl").open("a") as log:
    print(*words, file=log)
if "show" in words:
    print("LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nMainPID=" + (folder / "pid").read_text())
elif "is-enabled" in words:
    print("enabled")
elif "restart" in words or "start" in words:
    pid = folder / "pid"
    if pid.exists():
        os.kill(old := int(pid.read_text()), signal.SIGKILL)
        while runs(old):  # as systemd waits: its ports are taken until then
            time.sleep(0.01)
    for name in ("ca.pem", "host.pem", "host.key"):
        shutil.copy(folder / "tls" / name, folder / "credentials" / name)
    text = (folder / "env").read_text().replace("/run/credentials/etcd.service", str(folder / "credentials"))
    env = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("ETCD_"))
    drop_in = folder / "units" / "remus.conf"
    given = drop_in.read_text().splitlines() if drop_in.exists() else []
    env |= dict(line.split("=", 2)[1:] for line in given if line.startswith("Environment="))
    with (folder / "log").open("ab") as log:
        etcd = subprocess.Popen(["etcd"], env={{"PATH": "/usr/bin:/bin", **env}}, stdin=subprocess.DEVNULL, stdout=log,
                                stderr=log, start_new_session=True)
    pid.write_text(str(etcd.pid))
"""


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The facts of gamma, whose systemd is a script, with a running etcd that has the first certificates."""
    for name in ("bin", "credentials", "units"):
        (tmp_path / name).mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(python=sys.executable, folder=str(tmp_path)))
    systemctl.chmod(0o755)
    client, peer = free_ports(2)
    facts = {
        "remus_witness_address": "127.0.0.1",
        "remus_witness_client_port": client,
        "remus_witness_peer_port": peer,
        "remus_witness_data_dir": str(tmp_path / "data"),
        "remus_pki_host_dir": str(tmp_path / "tls"),
        "remus_witness_health_timeout": 30,
        "__remus_witness_drop_in_dir": str(tmp_path / "units"),
    }
    template = {"src": str(ROOT / "roles/remus_witness/templates/etcd.env.j2"), "dest": str(tmp_path / "env")}
    play(tmp_path, {"gamma": facts}, role("preflight"), {"template": template}, {"include_role": {"name": "remus_pki"}})
    try:
        subprocess.run([systemctl, "start", "etcd.service"], check=True)
        yield facts
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def shown(folder: Path, port: int) -> str:
    """The certificate that etcd shows."""
    context = ssl.create_default_context(cafile=str(folder / "tls" / "ca.pem"))
    context.load_cert_chain(folder / "tls" / "host.pem", folder / "tls" / "host.key")
    with (
        socket.create_connection(("127.0.0.1", port), 30) as tcp,
        context.wrap_socket(tcp, server_hostname="127.0.0.1") as tls,
    ):
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")


class Renew(Protocol):
    """What was done to units by `playbooks/witness.yml --tags remus_pki`, which site.yml imports."""

    def __call__(self, *options: str, fails: bool = False, **settings: str) -> list[str]: ...


@pytest.fixture
def renew(witness: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Renew:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    calls = tmp_path / "systemctl"

    def renew(*options: str, fails: bool = False, **settings: str) -> list[str]:
        calls.write_text("")
        words = ("--tags", "remus_pki", "-e", f"__remus_witness_drop_in_dir={tmp_path / 'units'}", *options)
        inventory = {"all": {"children": {"remus_witnesses": {"hosts": {"gamma": witness}}}, "vars": VARIABLES}}
        code, text = ansible_playbook(tmp_path, inventory, ROOT / "playbooks/witness.yml", *words, **settings)
        assert (code != 0) is fails, text
        return [line for line in calls.read_text().splitlines() if "restart" in line or " start " in line]

    return renew


@contextlib.contextmanager
def systemd_fails(folder: Path) -> Iterator[None]:
    """A run meanwhile ends when it has written everything."""
    systemctl, kept = folder / "bin" / "systemctl", folder / "kept"
    systemctl.rename(kept)
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    yield
    kept.rename(systemctl)


def test_a_confinement_that_an_interrupted_run_has_written_takes_effect_with_the_next(
    renew: Renew, tmp_path: Path
) -> None:
    """The bundle of before had none of the clock; its certificates were the same."""
    shutil.copytree(ROOT / "roles/remus_witness", tmp_path / "before/remus_witness")
    template = tmp_path / "before/remus_witness/templates/etcd.service.j2"
    template.write_text(template.read_text().replace("ProtectClock=true\n", ""))
    assert len(renew(ANSIBLE_ROLES_PATH=f"{tmp_path / 'before'}:{ROOT / 'roles'}")) == 1
    assert "ProtectClock" not in (tmp_path / "units/remus.conf").read_text()
    with systemd_fails(tmp_path):
        renew(fails=True)
    assert "ProtectClock" in (tmp_path / "units/remus.conf").read_text()
    assert len(renew()) == 1, "etcd was never started with it"
    assert renew() == []


def test_the_documented_command_for_certificates_hands_them_to_etcd(
    witness: dict[str, Any], renew: Renew, tmp_path: Path
) -> None:
    port = witness["remus_witness_client_port"]
    assert len(renew()) == 1, "the drop-in names certificates that etcd may not have"
    assert renew() == [], "nothing has changed"
    first = shown(tmp_path, port)
    for path in (tmp_path / "pki" / "hosts" / "gamma").iterdir():
        path.unlink()
    assert len(renew()) == 1
    assert shown(tmp_path, port) != first
    assert shown(tmp_path, port).strip() == (tmp_path / "tls" / "host.pem").read_text().strip()
    assert len(renew("-e", "remus_pki_rotation=prepare")) == 1, "it trusts one CA more"
    for path in (tmp_path / "pki" / "hosts" / "gamma").iterdir():
        path.unlink()
    with systemd_fails(tmp_path):
        renew(fails=True)
    assert renew("--check") == []
    assert len(renew()) == 1, "etcd was never started with them"
    assert shown(tmp_path, port).strip() == (tmp_path / "tls" / "host.pem").read_text().strip()
    assert renew() == []


def test_certificates_are_made_where_no_etcd_is_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    facts = {
        "remus_witness_address": "127.0.0.1",
        "remus_witness_data_dir": str(tmp_path / "data"),
        "remus_pki_host_dir": str(tmp_path / "tls"),
    }
    inventory = {"children": {"remus_witnesses": {"hosts": {"gamma": facts}}}}
    variables = ("-e", f"__remus_witness_drop_in_dir={tmp_path / 'units'}")
    code, text = run_playbook(tmp_path, inventory, "witness", "--tags", "remus_pki", *variables)
    assert code == 0, text
    assert (tmp_path / "tls" / "host.pem").exists()


def test_what_an_interrupted_run_has_written_is_read_before_the_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd has read etcd's unit when the package was installed, and not since the drop-in was written."""
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\necho \"$@\" >>{tmp_path}/calls\nprintf 'LoadState=loaded\\nActiveState=inactive\\nMainPID=0\\n'\n"
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    play(tmp_path, {"gamma": {"remus_witness_address": "127.0.0.1"}}, role("service"))
    calls = [
        line for line in (tmp_path / "calls").read_text().splitlines() if "reload" in line or " start" in f" {line}"
    ]
    assert [word for line in calls for word in line.split() if word in ("daemon-reload", "start")] == [
        "daemon-reload",
        "start",
    ]


def preflight(folder: Path, hosts: dict[str, Any], witnesses: dict[str, Any], *options: str) -> tuple[int, str]:
    """playbooks/preflight.yml of a pair and its witnesses, without looking for Xen."""
    groups = {"remus_hosts": {"hosts": hosts}, "remus_witnesses": {"hosts": witnesses}}
    nobody = ("-e", "remus_preflight_hosts=all:!all")
    return run_playbook(folder, {"children": groups}, "preflight", *nobody, *options)


def test_an_inventory_with_a_witness_is_refused_with_every_reason(tmp_path: Path) -> None:
    hosts = {
        name: {"remus_replication_address": f"192.0.2.{number}"} for number, name in enumerate(("alpha", "beta"), 1)
    }
    witnesses = {
        "alpha": {"remus_witness_address": "198.51.100.1"},
        "gamma": {"remus_witness_address": "192.0.2.2"},
        "delta": {"remus_witness_address": "192.0.2.2"},
        "epsilon": {},
    }
    code, text = preflight(tmp_path, hosts, witnesses)
    assert code != 0
    assert "The inventory is not usable, nothing was changed" in text
    assert "has 4 hosts (alpha, delta, epsilon, gamma), it must have one or three" in text
    for name in ("alpha", "gamma", "delta"):
        assert f"witness {name} is one of the hosts of remus_hosts" in text
    assert "witness epsilon has no remus_witness_address" in text
    assert "two witnesses have the same remus_witness_address" in text
    assert "changed=0" in text


def test_a_witness_that_does_not_answer_is_named_by_every_host(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    hosts = {
        name: {"remus_replication_address": f"192.0.2.{number}"} for number, name in enumerate(("alpha", "beta"), 1)
    }
    witnesses = {"gamma": {"remus_witness_address": "127.0.0.1", "remus_witness_client_port": port}}
    folder = ("-e", f"remus_pki_host_dir={tmp_path / 'none'}")
    code, text = preflight(tmp_path, hosts, witnesses, *folder, "-e", "remus_preflight_agents=required")
    assert code != 0
    for host in hosts:
        assert f"{host} cannot use the witness, nothing was changed" in text
    assert text.count(f"the witness gamma (127.0.0.1 port {port}) is closed") >= len(hosts)
    assert text.count("this host has no certificates, and the witness accepts certificates only") >= len(hosts)
    _, text = preflight(tmp_path, hosts, witnesses, *folder)
    assert f"nobody listens at the witness gamma (127.0.0.1 port {port}) yet" in text
    assert "cannot use the witness" not in text, "it may not be installed yet"


DISABLED = """#!/bin/sh
echo "$@" >>{folder}/systemctl
case "$*" in
*show*) printf 'LoadState=loaded\\nActiveState=%s\\nUnitFileState=enabled\\n' "$(cat {folder}/is)";;
*is-enabled*) cat {folder}/boots; exec grep -qx enabled {folder}/boots;;
*stop*) echo inactive >{folder}/is;;
*disable*) echo disabled >{folder}/boots;;
esac
"""


@pytest.mark.parametrize(
    ("enabled", "ours", "stopped"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_an_etcd_of_this_role_is_stopped_where_it_is_not_used_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool, ours: bool, stopped: bool
) -> None:
    """Nobody else's, and what it has recorded stays."""
    units, data, program = tmp_path / "units", tmp_path / "data", tmp_path / "bin/systemctl"
    for folder in (units, data, program.parent):
        folder.mkdir()
    if ours:
        (units / "remus.conf").touch()
    program.write_text(DISABLED.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "is").write_text("active\n")
    (tmp_path / "boots").write_text("enabled\n")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    facts = {"remus_witness_enabled": enabled, "remus_witness_data_dir": str(data)}
    absent = {**role("absent"), "vars": {"__remus_witness_drop_in_dir": str(units)}}
    for again in (False, True):
        (tmp_path / "systemctl").write_text("")
        play(tmp_path, {"gamma": facts}, absent)
        asked = (tmp_path / "systemctl").read_text()
        assert ("stop etcd.service" in asked) is (stopped and not again)
        assert ("disable etcd.service" in asked) is (stopped and not again)
    assert data.exists()
    assert (units / "remus.conf").exists() is ours


def test_it_is_stopped_when_no_agent_asks_it_any_more() -> None:
    """Agents are told of none first, so that they are never left with one that is away."""
    plays = [str(one) for one in yaml.safe_load((ROOT / "playbooks/site.yml").read_text())]
    (stops,) = (number for number, one in enumerate(plays) if "'tasks_from': 'absent'" in one)
    (agents,) = (number for number, one in enumerate(plays) if "Configure and run the agent" in one)
    assert agents < stops
