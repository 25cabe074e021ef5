"""A playbook against hosts that are this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.modules.conftest import ROOT

VARIABLES = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "remus_pki_enabled": True}


def run_play(folder: Path, inventory: dict[str, Any], play: dict[str, Any], *options: str) -> tuple[int, str]:
    """Exit code and output of one play on all hosts. inventory: the content of its group `all`. folder: for its files."""
    hosts = {"all": {**inventory, "vars": VARIABLES}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, **play}]))
    playbook = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [playbook, "-i", str(folder / "hosts.yml"), str(folder / "play.yml"), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=dict(os.environ, ANSIBLE_LOCAL_TEMP=str(folder / "tmp"), ANSIBLE_ROLES_PATH=str(ROOT / "roles")),
    )
    return done.returncode, done.stdout + done.stderr
