"""The lab's scripts do nothing to the machine that holds them: `ansible -i FOLDER` runs every executable below a folder."""

import os
import subprocess
from pathlib import Path

import pytest
from lab.chroot import ENVIRONMENT
from lab.debian import GUARD, customise
from lab.recipe import ASSETS

CUSTOMISE = sorted(ASSETS.glob("*/customise"))
PATH = {"PATH": os.environ["PATH"]}
LOOK = '. "${0%/*}/../only-in-a-tree"'


def guard(script: Path) -> list[str]:
    """A command line for what SCRIPT does up to its guard, as if it were SCRIPT. Nothing after it is run here: where the guard
    fails, that would ruin this machine."""
    commands = [
        line.partition(" #")[0] for line in script.read_text().splitlines() if line and not line.startswith("#")
    ]
    assert commands[:2] == ["set -eu", LOOK], "the guard comes before everything else"
    assert any(word in line for line in commands[2:] for word in ("rm ", "sed ")), "what it guards"
    return ["sh", "-c", f"set -eu\n{LOOK}", str(script)]


def test_every_image_has_its_script() -> None:
    assert [path.parent.name for path in CUSTOMISE] == ["bare", "disk", "dom0"]


@pytest.mark.parametrize("script", CUSTOMISE, ids=lambda path: path.parent.name)
def test_a_script_that_customises_refuses_outside_a_tree(script: Path) -> None:
    run = subprocess.run(guard(script), env=PATH, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "runs only inside an image's tree" in run.stderr


@pytest.mark.parametrize("script", CUSTOMISE, ids=lambda path: path.parent.name)
def test_inside_a_tree_it_goes_on(script: Path) -> None:
    environment = PATH | {"REMUS_LAB_TREE": ENVIRONMENT["REMUS_LAB_TREE"]}
    run = subprocess.run(guard(script), env=environment, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0


def test_a_script_without_its_guard_ends_as_well(tmp_path: Path) -> None:
    words = guard(CUSTOMISE[0])[:-1]
    alone = tmp_path / "bare" / "customise"
    alone.parent.mkdir()
    environment = PATH | {"REMUS_LAB_TREE": ENVIRONMENT["REMUS_LAB_TREE"]}
    for script in (str(alone), alone.name):
        run = subprocess.run(
            [*words, script], env=environment, cwd=tmp_path, capture_output=True, timeout=60, check=False
        )
        assert run.returncode != 0


def test_the_guard_lies_where_the_script_looks_for_it_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def inside(root: Path, argv: list[str], log: Path) -> None:
        folder = (root / argv[1].removeprefix("/")).parent
        seen.append((argv[0], argv[2:], (folder / "customise").is_file(), (folder.parent / GUARD).is_file()))

    monkeypatch.setattr("lab.debian.chroot", inside)
    customise(tmp_path, ASSETS / "bare", tmp_path / "log", "UUID")
    assert seen == [("sh", ["UUID"], True, True)]
    assert list(tmp_path.iterdir()) == []


def test_only_what_looks_where_it_runs_is_executable() -> None:
    """Both read the lab's identity of the host first and end without it."""
    executable = {
        str(path.relative_to(ASSETS)) for path in ASSETS.rglob("*") if path.is_file() and path.stat().st_mode & 0o111
    }
    assert executable == {
        "bare/overlay/usr/local/lib/remus-lab/identity",
        "dom0/overlay/usr/local/lib/remus-lab/setup",
    }
