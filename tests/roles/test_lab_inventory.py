"""What the lab's inventories say of the controller itself, which is a host of none of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "sources",
    [["inventories/lab"], ["inventories/lab", "inventories/lab_witness"], ["molecule/inventory/"]],
    ids=["lab", "witness", "molecule"],
)
def test_the_drills_client_is_reached_through_the_labs_network(sources: list[str]) -> None:
    words = [word for source in sources for word in ("-i", source)]
    program = Path(sys.executable).with_name("ansible")
    done = subprocess.run(
        [program, "localhost", *words, "-m", "debug", "-a", "var=remus_drill_client_prefix"],
        cwd=PROJECT,
        env={"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": "/root", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.partition("=>")[2])["remus_drill_client_prefix"]
    assert Path(said[0]).resolve() == Path(sys.executable).resolve()  # one interpreter has several names
    assert said[1:] == [str(PROJECT / "roles/xen_lab/files/labctl"), "exec", "--"]
