"""Every role says what it takes, and its defaults are what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/tasks/main.yml"))


def read(path: Path) -> Any:
    """A YAML file, or an empty dictionary where there is none."""
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}


def options(role: Path) -> list[tuple[str, dict[str, Any]]]:
    """Options of all of the role's entry points; several may have the same one."""
    specs = read(role / "meta" / "argument_specs.yml")["argument_specs"]
    return [pair for spec in specs.values() for pair in spec.get("options", {}).items()]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_equal_the_argument_specs(role: Path) -> None:
    defaults = read(role / "defaults" / "main.yml")
    spec = [(name, option["default"]) for name, option in options(role) if "default" in option]
    assert defaults == dict(spec)
    assert all(defaults[name] == default for name, default in spec), "entry points that disagree"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_are_prefixed_and_described(role: Path) -> None:
    for name, option in options(role):
        assert name.startswith(f"{role.name}_"), name
        assert option.get("description"), name
        assert option.get("type"), name
        assert not (option.get("required") and "default" in option), name


MODULES = {path.stem for name in ("library", "roles") for path in ROOT.glob(f"{name}/**/*.py")}
OF_OTHERS = {"xen_host_live", "remus_monitoring_address"}
"""A fact that one role leaves for others, and a variable of hosts that two of them read."""


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_that_it_takes_is_described(role: Path) -> None:
    texts = [path.read_text() for name in ("tasks", "templates", "vars", "handlers") for path in role.glob(f"{name}/*")]
    used = {name for text in texts for name in re.findall(rf"(?<!\w){role.name}_[a-z0-9_]+", text)}
    described = {name for name, _ in options(role)}
    assert used - MODULES - OF_OTHERS <= described
    assert described <= used, "what nobody reads"


def entries_used(folder: Path) -> set[tuple[str, str]]:
    """(role, entry point) of everything below a folder that takes a role in by one."""
    found = set()
    for path in folder.rglob("*.yml"):
        if path.parent.name in ("tasks", "playbooks"):
            found |= set(re.findall(r"name: (\S+)\n\s+tasks_from: (\S+)$", path.read_text(), re.MULTILINE))
    return found


def test_entry_points_that_others_use_say_what_they_take() -> None:
    """Ansible then checks it, and `ansible-doc -t role` shows it."""
    used = entries_used(ROOT / "playbooks") | entries_used(ROOT / "roles")
    assert {("remus_agent", "service"), ("remus_witness", "look"), ("remus_guest", "switchover")} <= used
    # playbooks/tasks/preflight_role.yml takes its role from a loop.
    (look,) = (play for play in read(ROOT / "playbooks/preflight_hosts.yml") if play["name"] == "Preflight | The hosts")
    used |= {(role, "preflight") for task in look["tasks"] for role in task.get("loop", [])}
    for role, entry in sorted(used):
        assert "." not in entry, "by preflight.yml Ansible would find the tasks, and not what they take"
        assert entry in read(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"], (role, entry)


CONNECTION = {"ansible_connection", "ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file",
              "ansible_ssh_common_args", "ansible_become"}  # fmt: skip
"""What an inventory says of the way to a host; no facts."""


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_no_injected_facts(role: Path) -> None:
    allowed = {"ansible_facts", "ansible_check_mode", "ansible_playbook_python", "ansible_failed_result", "ansible_managed",
               "ansible_version", "ansible_python_interpreter"}  # fmt: skip
    for path in [*role.glob("tasks/*.yml"), *role.glob("templates/*"), *role.glob("vars/*.yml")]:
        for name in re.findall(r"\bansible_[a-z_]+", path.read_text()):
            assert name in allowed | CONNECTION, f"{path}: {name}"


def test_the_lab_and_the_example_are_complete() -> None:
    example = read(ROOT / "inventories/example/hosts.yml")["all"]["children"]["remus_hosts"]
    assert all("remus_replication_address" in facts for facts in example["hosts"].values())
    for name in ("lab", "example"):
        variables = read(ROOT / "inventories" / name / "group_vars/all.yml")
        assert variables["remus_fence_status_command"]
        assert isinstance(variables["remus_pki_enabled"], bool)
        for guest in variables["remus_guests"]:
            assert len(set(guest["hosts"])) == 2


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_who_installs_packages_waits_for_others_who_do(role: Path) -> None:
    """Debian upgrades itself after a boot, and what an interrupted run has begun goes on; Ansible would wait for a minute."""
    tasks = [task for path in role.glob("tasks/*.yml") for task in read(path)]
    installs = [task["ansible.builtin.apt"] for task in tasks if "ansible.builtin.apt" in task]
    assert all(install["lock_timeout"] >= 600 for install in installs)
    assert all(install["update_cache"] for install in installs), "the archive has none of what old lists name"
