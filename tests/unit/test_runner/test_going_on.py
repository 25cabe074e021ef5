"""A run of several hours goes on from a stage, and says that it was not the whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import run_tests


def names(words: str, *, every: bool = True) -> list[str]:
    return [stage.name for stage in run_tests.going_on(run_tests.stages(every=every), words)]


def test_every_lab_test_is_a_stage_of_the_whole_run() -> None:
    files = Path(run_tests.ROOT, "tests/lab").glob("test_*.py")
    assert {f"lab {file.stem.removeprefix('test_')}" for file in files} <= {
        stage.name for stage in run_tests.stages(every=True)
    }


def test_hosts_are_booted_for_a_stage_that_needs_the_pair() -> None:
    assert names("lab disks")[:3] == [run_tests.FORGET.name, run_tests.BOOT.name, "lab disks"]
    assert names("guarantees", every=False)[2].startswith("guarantees")


def test_nothing_is_booted_twice_or_for_hosts_of_their_own() -> None:
    assert names("unit,") == [stage.name for stage in run_tests.stages(every=True)][1:]
    assert names(run_tests.BARE[1].name) == [run_tests.BARE[1].name]


def test_a_stage_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(
        ValueError, match=r"no stage has .disk drill. in its name; there are\n(.*\n)*  scenario drill\n"
    ):
        run_tests.going_on(run_tests.stages(every=True), "disk drill")
