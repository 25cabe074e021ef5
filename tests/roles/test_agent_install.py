"""What the role remus_agent renders is what the agent accepts, and a release's name follows its sources."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import flatten

from remus_agent import config
from remus_agent.addresses import Address
from remus_agent.protocol.groups import Groups
from tests.modules.conftest import ROOT
from tests.roles.local_play import run_play

sys.path.insert(0, str(ROOT / "tools"))
import build_wheelhouse

ROLE = ROOT / "roles/remus_agent"
PURE = ("h11", "prometheus-client")
"""One wheel for every Python; the others have one for each."""
WITNESSED = {
    "remus_agent_witness": True,
    "remus_agent_witness_endpoints": ["https://192.0.2.9:2379"],
    "remus_agent_witness_timeout": 3,
    "remus_agent_second_address": "198.51.100.1",
    "__remus_agent_second": "198.51.100.1",
    "remus_agent_second_paths": {"beta": "198.51.100.2:7790"},
    "remus_agent_automatic": {"reprotect": False},
    "remus_agent_watchdog_seconds": 240,
    "remus_agent_http_address": "198.51.100.1",
    "__remus_agent_http": "198.51.100.1",
}


def render(values: dict[str, object]) -> str:
    """The configuration that the role writes."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
        trim_blocks=True, autoescape=False,  # noqa: S701  TOML, not HTML
    )  # fmt: skip
    environment.filters["to_json"] = json.dumps
    environment.filters["bool"] = bool
    return environment.get_template("agent.toml.j2").render(
        defaults
        | {
            "remus_agent_name": "alpha",
            "remus_agent_replication_address": "192.0.2.1",
            "__remus_agent_listen": "192.0.2.1",
            "__remus_agent_secrets_dir": "/etc/remus",
            "remus_agent_tls": False,
            "remus_agent_tls_dir": "/etc/remus/tls",
            "remus_agent_fencing": {},
            "remus_agent_groups": {},
            "remus_agent_witness": False,
            "remus_agent_second_address": "",
            "remus_agent_second_paths": {},
            "remus_agent_http_address": "",
        }
        | values
    )


@pytest.mark.parametrize("secured", ["plain", "tls", "witness"])
@pytest.mark.parametrize(("address", "listen"), [("192.0.2.1", "192.0.2.1"), ("fd00::1", "[fd00::1]")])
def test_the_agent_accepts_its_configuration(tmp_path: Path, address: str, listen: str, secured: str) -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    text = render(
        {
            "remus_agent_replication_address": address,
            "__remus_agent_listen": listen,
            "remus_agent_tls": secured != "plain",
            "remus_agent_peers": {"beta": "192.0.2.2:7789" if "." in address else "[fd00::2]:7789"},
        }
        | (WITNESSED if secured == "witness" else {})
    )
    target = tmp_path / "agent.toml"
    target.write_text(text)
    loaded = config.load(target)
    assert loaded.host.name == "alpha"
    assert str(loaded.replication.listen) == f"{listen}:7789"
    assert list(loaded.replication.peers) == ["beta"]
    assert loaded.timeouts == config.Timeouts()
    assert loaded.output.limit_bytes == defaults["remus_agent_output_limit_bytes"]
    assert loaded.paths == config.Paths()
    folder = Path("/etc/remus/tls")
    files = config.Tls(folder / "ca.pem", folder / "host.pem", folder / "host.key")
    assert loaded.tls == (None if secured == "plain" else files)
    if secured != "witness":
        assert (loaded.witness, loaded.replication.second, loaded.automatic) == (None, None, config.Automatic())
        assert (loaded.watchdog, loaded.http) == (config.Watchdog(0), None)
        return
    assert loaded.witness == config.Witness(("https://192.0.2.9:2379",), 3.0)
    assert str(loaded.replication.second) == "198.51.100.1:7790"
    assert {name: str(path) for name, path in loaded.replication.second_paths.items()} == {"beta": "198.51.100.2:7790"}
    assert loaded.automatic == config.Automatic(reprotect=False)
    assert loaded.watchdog == config.Watchdog(240)
    assert loaded.http == config.Http(Address("198.51.100.1", 7791))


def test_the_agent_accepts_its_groups() -> None:
    """Those of the inventory's guests that have this host, by their members' names."""
    guests = [
        {"name": "web1", "hosts": ["alpha", "beta"]},
        {"name": "shop", "hosts": ["alpha", "beta"], "members": [{"name": "db1", "disks": []}, {"name": "app1"}]},
        {"name": "far", "hosts": ["beta", "gamma"], "members": [{"name": "db2"}, {"name": "app2"}]},
    ]
    text = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__remus_agent_guest_groups"]
    template = jinja2.Environment(autoescape=False).from_string(text)  # noqa: S701  no HTML
    found = template.render(remus_guests=guests, inventory_hostname="alpha")
    groups = ast.literal_eval(found.strip())
    assert groups == {"shop": ["app1", "db1"]}
    assert config.parse(render({"remus_agent_groups": groups, "remus_agent_peers": {}})).groups == Groups(groups)
    assert config.parse(render({"remus_agent_peers": {}})).groups == Groups()


@pytest.mark.parametrize("secrets", [True, False])
def test_the_agent_accepts_its_fencing(secrets: bool) -> None:
    beta = {
        "agent": "fence_ipmilan",
        "options": {"ip": "192.0.2.9", "lanplus": True, "ipport": 623, "login": 'a "b" \\'},
        "required": True,
        "timeout": 30,
        "package": "fence-agents",
        **({"secrets": {"password": "hush"}} if secrets else {}),
    }
    text = render({"remus_agent_peers": {"beta": "192.0.2.2:7789", "x.y": "192.0.2.3:7789"}, "remus_agent_fencing": {
        "beta": beta, "x.y": {"agent": "/opt/off"}}})  # fmt: skip
    assert "hush" not in text
    assert config.parse(text).fencing == {
        "beta": config.FenceAgent(
            Path("/usr/sbin/fence_ipmilan"),
            {"ip": "192.0.2.9", "lanplus": "1", "ipport": "623", "login": 'a "b" \\'},
            Path("/etc/remus/fence-beta.secrets") if secrets else None,
            True,
            30.0,
        ),
        "x.y": config.FenceAgent(Path("/opt/off")),
    }


def test_packages_of_fence_agents_are_one_or_several() -> None:
    """An agent of which Debian's package does not bring what it calls."""
    text = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__remus_agent_fencing_packages"]
    environment = jinja2.Environment(autoescape=False)  # noqa: S701  no HTML
    environment.filters["flatten"] = flatten
    fencing = {
        "beta": {"agent": "fence_ipmilan", "package": ["fence-agents", "ipmitool"]},
        "gamma": {"agent": "fence_apc", "package": "fence-agents"},
        "delta": {"agent": "/opt/off"},
    }
    found = environment.from_string(text).render(remus_agent_fencing=fencing)
    assert ast.literal_eval(found.strip()) == ["fence-agents", "ipmitool"]


WATCH = """
import os, sys

def name(file):
    return os.readlink(f"/proc/self/fd/{{file}}") if isinstance(file, int) else os.fsdecode(file)

def hook(event, arguments):
    if event in ("os.chmod", "os.rename") and name(arguments[int(event == "os.rename")]).endswith(".secrets"):
        mode = arguments[1] if event == "os.chmod" else os.stat(arguments[0]).st_mode
        size = os.stat(arguments[0]).st_size
        with open({log!r}, "a") as log:
            print(f"{{mode & 0o777:o}} {{size}}", file=log)

sys.addaudithook(hook)
"""


@pytest.mark.playbooks
@pytest.mark.timeout(900)
def test_nobody_but_root_reads_a_secret_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible gives a new file the umask's mode first, and members of the agent's group are users of the host."""
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(log=str(tmp_path / "log")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tasks = yaml.safe_load((ROLE / "tasks/configure.yml").read_text())
    tasks = [task for task in tasks if task.get("loop") == "{{ __remus_agent_fencing_with_secrets }}"]
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    name = "__remus_agent_fencing_with_secrets"
    fencing = {"beta": {"agent": "fence_dummy", "secrets": {"password": "hush"}}}
    values = {"remus_agent_fencing": fencing, "__remus_agent_secrets_dir": str(tmp_path / "etc")}
    play = {"vars": {name: variables[name], **values}, "tasks": tasks}
    code, text = run_play(tmp_path, {"hosts": {"alpha": {}}}, play, "--check", "--diff")
    assert code == 0, "the folder is not there yet: " + text
    (tmp_path / "etc").mkdir()
    code, text = run_play(tmp_path, {"hosts": {"alpha": {}}}, play, "--diff", "-vvv")
    assert code == 0, text
    assert "hush" not in text
    secret = tmp_path / "etc/fence-beta.secrets"
    assert (secret.read_text().splitlines()[1:], secret.stat().st_mode & 0o777) == (["password=hush"], 0o600)
    seen = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert seen[-1][1] != "0"
    assert [mode for mode, size in seen if size != "0" and int(mode, 8) & 0o077] == []
    code, text = run_play(tmp_path, {"hosts": {"alpha": {}}}, play)
    assert "changed=0" in text


@pytest.mark.playbooks
@pytest.mark.timeout(900)
def test_packages_of_fence_agents_are_asked_for_only_where_they_are_missing(tmp_path: Path) -> None:
    """To install one takes new lists of packages, and so the archive, which no second run needs."""
    tasks = [
        task for task in yaml.safe_load((ROLE / "tasks/configure.yml").read_text())
        if "__remus_agent_fencing_packages" in str(task)
    ]  # fmt: skip
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    name = "__remus_agent_fencing_packages"
    fencing = {"alpha": {"beta": {"package": "coreutils"}, "gamma": {"package": "coreutils"}}, "beta": {}}
    hosts = {host: {"remus_agent_fencing": agents} for host, agents in fencing.items()}
    code, text = run_play(tmp_path, {"hosts": hosts}, {"vars": {name: variables[name]}, "tasks": tasks})
    assert code == 0, text
    installing = text.split("Install those that are missing]")[1].split("PLAY RECAP")[0]
    assert sorted(re.findall(r"^(\w+: \[\w+\])", installing, re.MULTILINE)) == [
        "skipping: [alpha]",
        "skipping: [beta]",
    ], text


@pytest.mark.playbooks
@pytest.mark.timeout(900)
@pytest.mark.parametrize("complete", [True, False])
def test_the_archive_of_a_run_that_was_killed_is_removed_by_the_next(tmp_path: Path, complete: bool) -> None:
    """But for the one that this run unpacks, which need not be copied again."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("remus-1-a.tar", "remus-1-b.tar", "others.tar"):
        (cache / name).touch()
    tasks = yaml.safe_load((ROLE / "tasks/install.yml").read_text().replace("/var/cache", str(cache)))
    names = [task["name"] for task in tasks]
    first, last = (
        names.index(f"install | {step}") for step in ("Look for archives that runs have left", "Copy the archive")
    )
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    name = "__remus_agent_delivered"
    known = {
        name: variables[name].replace("/var/cache", str(cache)),
        "__remus_agent_release": "1-b",
        "__remus_agent_before": {"complete": complete},
    }
    play = {"vars": known, "tasks": tasks[first:last]}
    code, text = run_play(tmp_path, {"hosts": {"alpha": {}}}, play, "--check", "--diff")
    assert (code, "changed=1" in text) == (0, True), text
    assert len(list(cache.iterdir())) == 3
    code, text = run_play(tmp_path, {"hosts": {"alpha": {}}}, play)
    assert (code, "changed=1" in text) == (0, True), text
    assert sorted(path.name for path in cache.iterdir()) == ["others.tar", *([] if complete else ["remus-1-b.tar"])]
    code, text = run_play(tmp_path, {"hosts": {"alpha": {}}}, play)
    assert (code, "changed=0" in text) == (0, True), text


def test_a_release_is_named_after_its_sources(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    build_wheelhouse.copy_sources(ROOT, copy)
    pins = b"numpy==2.4.6"
    name = build_wheelhouse.digest(copy, pins, "3.13")
    assert name == build_wheelhouse.digest(copy, pins, "3.13")
    assert name != build_wheelhouse.digest(copy, pins, "3.11")
    assert name != build_wheelhouse.digest(copy, b"numpy==2.4.5", "3.13")
    (copy / "README.md").write_text("Other words")
    shutil.copytree(copy / "remus_agent", copy / "remus_agent/__pycache__")
    assert name == build_wheelhouse.digest(copy, pins, "3.13")
    (copy / "remus_agent/__init__.py").write_text("# changed")
    assert name != build_wheelhouse.digest(copy, pins, "3.13")


def test_a_host_with_another_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(build_wheelhouse.WheelhouseError, match=r"3\.10; supported are 3\.11"):
        build_wheelhouse.build("3.10", tmp_path)


def test_every_pin_is_exact_and_hashed() -> None:
    text = (ROOT / "requirements/agent.txt").read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+ \\", line) for line in pins)
    wanted = re.findall(r'^  "([a-z0-9-]+)>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert sorted(line.split("==")[0] for line in pins) == sorted(wanted)
    for pin, rest in re.findall(r"^([a-z0-9-]+)==(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL):
        assert rest.count("--hash=sha256:") == (1 if pin in PURE else 3), pin
