"""The lab's scripts do nothing to the machine that holds them: `ansible -i FOLDER` runs every executable below a folder."""

import os
import subprocess
from pathlib import Path

import pytest
from lab.chroot import ENVIRONMENT
from lab.recipe import ASSETS

CUSTOMISE = sorted(ASSETS.glob("*/customise"))
PATH = {"PATH": os.environ["PATH"]}


def guard(script: Path) -> str:
    """The head of SCRIPT up to its guard. Nothing after it is run here: where the guard fails, that would ruin this machine."""
    head, end, rest = script.read_text().partition("\n}\n")
    assert end, f"{script} has no guard"
    commands = [line for line in head.splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -eu"
    assert commands[1].startswith('[ "${REMUS_LAB_TREE:-}" = yes ] || {'), "the guard comes before everything else"
    assert "rm " in rest or "sed " in rest, "what it guards"
    return head + end


def test_every_image_has_its_script() -> None:
    assert [path.parent.name for path in CUSTOMISE] == ["bare", "disk", "dom0"]


@pytest.mark.parametrize("script", CUSTOMISE, ids=lambda path: path.parent.name)
def test_a_script_that_customises_refuses_outside_a_tree(script: Path) -> None:
    run = subprocess.run(["sh", "-c", guard(script)], env=PATH, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "runs only inside an image's tree" in run.stderr


@pytest.mark.parametrize("script", CUSTOMISE, ids=lambda path: path.parent.name)
def test_inside_a_tree_it_goes_on(script: Path) -> None:
    environment = PATH | {"REMUS_LAB_TREE": ENVIRONMENT["REMUS_LAB_TREE"]}
    run = subprocess.run(["sh", "-c", guard(script)], env=environment, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0


def test_only_what_looks_where_it_runs_is_executable() -> None:
    """Both read the lab's identity of the host first and end without it."""
    executable = {
        str(path.relative_to(ASSETS)) for path in ASSETS.rglob("*") if path.is_file() and path.stat().st_mode & 0o111
    }
    assert executable == {
        "bare/overlay/usr/local/lib/remus-lab/identity",
        "dom0/overlay/usr/local/lib/remus-lab/setup",
    }
