"""A playbook against hosts that are this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.modules.conftest import ROOT

SECONDS = 600
"""For one run."""
VARIABLES = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "remus_pki_enabled": True}


def run_play(folder: Path, inventory: dict[str, Any], play: dict[str, Any], *options: str) -> tuple[int, str]:
    """Exit code and output of one play on all hosts. inventory: the content of its group `all`. folder: for its files."""
    return run_plays(folder, inventory, [{"hosts": "all", **play}], *options)


def run_plays(
    folder: Path,
    inventory: dict[str, Any],
    plays: list[dict[str, Any]],
    *options: str,
    variables: dict[str, Any] | None = None,
) -> tuple[int, str]:
    """The same of several. One that imports a playbook names it by its path."""
    text = yaml.safe_dump([play if "import_playbook" in play else {"gather_facts": False, **play} for play in plays])
    (folder / "play.yml").write_text(text)
    return _run(folder, inventory, folder / "play.yml", *options, variables=variables)


def run_playbook(
    folder: Path, inventory: dict[str, Any], name: str, *options: str, variables: dict[str, Any] | None = None
) -> tuple[int, str]:
    """The same of a playbook of the bundle. variables: of all hosts, besides those that make them this machine."""
    return _run(folder, inventory, ROOT / "playbooks" / f"{name}.yml", *options, variables=variables)


def _run(
    folder: Path, inventory: dict[str, Any], path: Path, *options: str, variables: dict[str, Any] | None = None
) -> tuple[int, str]:
    hosts = {"all": {**inventory, "vars": VARIABLES | (variables or {})}}
    return ansible_playbook(folder, hosts, path, *options)


def ansible_playbook(
    folder: Path, inventory: dict[str, Any], path: Path, *options: str, **settings: str
) -> tuple[int, str]:
    """Exit code and output of any playbook. inventory: as a file has it. settings: what else its environment has."""
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "hosts.yml", path, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={
            **os.environ,
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            **settings,
        },
    )
    return done.returncode, done.stdout + done.stderr
