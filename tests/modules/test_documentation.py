"""Every module is documented as ansible-doc wants it, and its options are those of its code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic

from tests.modules.conftest import ROOT, load

MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))


def block(name: str, variable: str) -> Any:
    """One of the documentation strings of a module, parsed."""
    return yaml.safe_load(getattr(load(name), variable))


class Spec(Exception):
    """Carries the arguments of AnsibleModule out of main()."""


@pytest.mark.parametrize("name", MODULES)
def test_documentation(name: str) -> None:
    documentation = block(name, "DOCUMENTATION")
    assert documentation["module"] == name
    assert documentation["attributes"]["check_mode"]["support"] == "full"
    assert documentation["attributes"]["diff_mode"]["support"] in ("full", "N/A")
    assert block(name, "EXAMPLES")
    assert block(name, "RETURN")
    text = (ROOT / "library" / f"{name}.py").read_text()
    assert text.startswith("#!/usr/bin/python\n# SPDX-FileCopyrightText: ")
    assert "# SPDX-License-Identifier: Apache-2.0\n" in text


def same(documented: dict[str, Any], coded: dict[str, Any], where: str) -> None:
    """Compare options recursively."""
    assert set(documented) == set(coded), where
    for name, spec in coded.items():
        option = documented[name]
        for key in ("type", "default", "choices", "elements", "required"):
            assert option.get(key) == spec.get(key), f"{where}.{name}: {key}"
        same(option.get("suboptions", {}), spec.get("options", {}), f"{where}.{name}")


@pytest.mark.parametrize("name", MODULES)
def test_options_are_those_of_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def stop(self: Any, argument_spec: Any, supports_check_mode: bool = False, **rest: Any) -> None:
        seen.update(argument_spec)
        assert supports_check_mode
        raise Spec

    monkeypatch.setattr(basic.AnsibleModule, "__init__", stop)
    with pytest.raises(Spec):
        load(name).main()
    same(block(name, "DOCUMENTATION")["options"], seen, name)


CONTROLLER = {"certificates": {"cryptography"}}
"""What runs on the controller may import besides; ansible-core itself needs it there."""


def test_only_the_standard_library() -> None:
    for path in [*(ROOT / "library").glob("*.py"), *(ROOT / "module_utils").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for imported in names:
                top = imported.split(".")[0]
                allowed = sys.stdlib_module_names | CONTROLLER.get(path.stem, set())
                assert top in allowed or imported.startswith("ansible.module_utils."), f"{path}: {imported}"


def test_ansible_doc() -> None:
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", "-M", "library", *MODULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)) == MODULES


def test_a_misspelt_option_is_reported(tmp_path: Path) -> None:
    """The rule `args` really runs our modules; without tools/link_module_utils.py it gives up in silence."""
    subprocess.run([sys.executable, "tools/link_module_utils.py"], cwd=ROOT, check=True, capture_output=True)
    playbook = tmp_path / "misspelt.yml"
    playbook.write_text(
        "---\n- name: Misspell\n  hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - name: Protect\n      remus_protection:\n        name: web1\n        peeer: beta\n        peer: beta\n"
    )
    lint = [
        str(Path(sys.executable).with_name("ansible-lint")),
        "--offline",
        "-c",
        ".ansible-lint",
        "--nocolor",
        str(playbook),
    ]
    done = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "args[module]" in done.stdout + done.stderr
    assert "peeer" in done.stdout + done.stderr
