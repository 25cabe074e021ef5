"""docs/modules says what the modules say of themselves; `make docs` writes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.modules.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import module_docs


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """What ansible-doc says."""
    return module_docs.ask()


def test_pages_have_not_drifted_from_the_modules(said: dict[str, Any]) -> None:
    assert module_docs.differences(module_docs.pages(said)) == [], "run `make docs`"
    assert set(said) == {path.stem for path in (ROOT / "library").glob("*.py")}


def test_every_drift_is_seen(said: dict[str, Any], tmp_path: Path) -> None:
    wanted = module_docs.pages(said)
    assert module_docs.differences(wanted, tmp_path) == sorted(wanted)
    for name, text in wanted.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "gone_module.md").write_text("# gone")
    (tmp_path / "remus_release.md").write_text("# another")
    assert module_docs.differences(wanted, tmp_path) == ["gone_module.md", "remus_release.md"]


def test_a_page_has_every_option_and_value(said: dict[str, Any]) -> None:
    page = module_docs.page("remus_topology", said["remus_topology"])
    for words in (
        "`guests.interval_ms` | int",
        "`guests.verdict` | str",
        "**required**",
        "Check mode: full. Diff mode: N/A.",
    ):
        assert words in page
    page = module_docs.page("remus_release", said["remus_release"])
    assert "One of `installed`, `current`." in page
    assert "O(" not in page, "Ansible's markup"
