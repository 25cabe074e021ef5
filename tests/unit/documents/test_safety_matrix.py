"""Every fault in the tables of docs/safety.md names what shows it, and that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair.incidents import INCIDENTS

ROOT = Path(__file__).resolve().parents[3]
HEAD = "| fault | noticed by | what happens | what a client sees | shown by |"


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row below such a head."""
    inside = False
    for line in text.splitlines():
        inside = line == HEAD or (inside and line.startswith("|"))
        if inside and line != HEAD and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


ROWS = list(rows((ROOT / "docs" / "safety.md").read_text()))


def is_there(name: str) -> bool:
    """Whether such a test, or such an incident of a scenario, exists."""
    file, colons, test = name.partition("::")
    if colons:
        path = ROOT / "tests" / file
        return path.is_file() and re.search(rf"^ *(async )?def {test}\(", path.read_text(), re.MULTILINE) is not None
    scenario, _, incident = name.partition("/")
    return incident in INCIDENTS.get(scenario, {}) and (ROOT / "molecule" / scenario / "molecule.yml").is_file()


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_fault_is_shown(row: list[str]) -> None:
    assert len(row) == 5, row
    names = re.findall(r"`([^`]+)`", row[4])
    assert names
    assert [name for name in names if not is_there(name)] == []


def test_there_are_both_tables() -> None:
    assert (ROOT / "docs" / "safety.md").read_text().count(HEAD) == 2
    assert len(ROWS) > 30


@pytest.mark.parametrize(
    "name", ["model/test_pair.py::test_no", "model/none.py::test_a", "partition/none", "none/two-way"]
)
def test_what_is_not_there(name: str) -> None:
    assert not is_there(name)
