"""Every file that two of the documents name is there, and none of the agent's is longer than a reader bears."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LONGEST = 400
"""Lines of a module of the agent, about: longer ones hide something that deserves a name."""


@pytest.mark.parametrize("document", ["architecture", "development"])
def test_every_file_that_it_names_is_there(document: str) -> None:
    files = {
        f"/{path.relative_to(ROOT)}"
        for top in ("remus_agent", "library", "tests", "tools", "roles", "module_utils")
        for path in (ROOT / top).rglob("*.py")
    }
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / f"{document}.md").read_text())
    assert len(named) > 50
    assert sorted({name for name in named if not any(file.endswith(f"/{name}") for file in files)}) == []


def test_no_module_of_the_agent_is_much_longer_than_a_reader_bears() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "remus_agent").rglob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > LONGEST + 20} == {}
