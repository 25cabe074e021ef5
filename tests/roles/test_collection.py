"""The collection that `make collection` builds: whole, and its modules, roles and playbooks found by their full names."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.modules.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import build_collection
import build_wheelhouse

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(archive, unpacked tree)."""
    return build_collection.build(tmp_path_factory.mktemp("c"))


def run(tree: Path, program: str, *words: str) -> tuple[int, str]:
    """One of Ansible's programs from a folder that is not this tree; nothing of this tree's ansible.cfg counts, nor a strategy
    that finds modules in other ways than Ansible (Mitogen's)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_STRATEGY")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *words],
        cwd=tree.parents[2],
        env=inherited | {"ANSIBLE_COLLECTIONS_PATH": str(tree.parents[2]), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_archive_is_whole(built: tuple[Path, Path]) -> None:
    archive, _ = built
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert archive.name == f"remus-xen-{version}.tar.gz"
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    for module in build_collection.modules():
        assert f"plugins/modules/{module}.py" in names
    for path in (ROOT / "playbooks").glob("*.yml"):
        assert (f"playbooks/{path.name}" in names) is (path.name not in build_collection.LEFT_OUT), path.name
    assert {"MANIFEST.json", "meta/runtime.yml", "tools/build_wheelhouse.py", "requirements/agent.txt"} <= names
    assert "remus_agent/units/remus-agent.service" in names
    assert not [
        name
        for name in names
        if "__pycache__" in name or "/pki/" in name or name.startswith(("tests", "roles/xen_lab"))
    ]


def test_nothing_in_it_asks_for_this_tree(built: tuple[Path, Path]) -> None:
    _, tree = built
    for path in (tree / "plugins").rglob("*.py"):
        assert "ansible.module_utils.remus" not in path.read_text(), path
    # What is left out is not asked for by what is there.
    for path in [*(tree / "playbooks").rglob("*.yml"), *(tree / "roles").rglob("*.yml")]:
        assert "xen_lab" not in path.read_text(), path


def test_modules_are_documented_under_their_full_names(built: tuple[Path, Path]) -> None:
    _, tree = built
    code, text = run(tree, "ansible-doc", *(f"remus.xen.{name}" for name in build_collection.modules()))
    assert code == 0, text
    assert "remus.xen.remus_topology:" in text, "the example"
    assert "was not found" not in text


def test_a_playbook_runs_from_it(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Its role, its module and that one's utilities are those of the collection: no other can be found from there."""
    _, tree = built
    hosts = {
        name: {"remus_replication_address": "203.0.113.1", "ansible_connection": "local"} for name in ("alpha", "beta")
    }
    inventory = {
        "all": {"children": {"remus_hosts": {"hosts": hosts}}, "vars": {"ansible_python_interpreter": sys.executable}}
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    code, text = run(tree, "ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "remus.xen.preflight")
    assert code != 0
    assert "alpha and beta have the same remus_replication_address 203.0.113.1" in text, text
    for path in sorted((tree / "playbooks").glob("*.yml")):
        code, text = run(
            tree, "ansible-playbook", "--syntax-check", "-i", str(tmp_path / "hosts.yml"), f"remus.xen.{path.stem}"
        )
        assert code == 0, text


def test_a_play_of_somebody_else_uses_roles_and_modules_by_their_full_names(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """From a folder of its own, where nothing of this tree can be found."""
    _, tree = built
    settings = {
        "ansible_python_interpreter": sys.executable,
        "remus_agent_name": "alpha",
        "remus_agent_replication_address": "192.0.2.1",
        "remus_agent_peers": {"beta": "192.0.2.2:7789"},
    }
    preflight = {"name": "remus.xen.remus_agent", "tasks_from": "preflight"}
    tasks = [
        {"remus.xen.xen_host_info": {"domains": False}, "register": "seen"},
        {"ansible.builtin.assert": {"that": "seen.host.architecture is defined"}},
        {"ansible.builtin.include_role": preflight},
        {"ansible.builtin.include_role": preflight, "vars": {"remus_agent_watchdog_seconds": 180}},
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": settings, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    code, text = run(tree, "ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"))
    assert code != 0
    assert "TASK [remus.xen.remus_agent : " in text
    assert "without a witness it would never be armed" in " ".join(text.split())
    assert text.count("Validating arguments against arg spec 'preflight'") == 2, text


def test_its_release_of_the_agent_is_this_trees(built: tuple[Path, Path]) -> None:
    """What the role builds there from has the same name, and so the same content."""
    _, tree = built
    pins = (ROOT / "requirements/agent.txt").read_bytes()
    assert (tree / "requirements/agent.txt").read_bytes() == pins
    assert build_wheelhouse.digest(tree, pins, "3.13") == build_wheelhouse.digest(ROOT, pins, "3.13")
