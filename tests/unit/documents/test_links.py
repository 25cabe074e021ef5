"""Every link of the documents leads to a file that is there, and to a heading of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")])
BLOCK = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(path: Path, text: str) -> Iterator[str]:
    """The links in TEXT, which stands at PATH, that lead nowhere."""
    for link in re.findall(r"\]\(([^)]*)\)", BLOCK.sub("", text)):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        there = target.exists() or not file
        if not there or (anchor and anchor not in anchors(text if target == path else target.read_text())):
            yield link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken(path, path.read_text())) == []


def test_broken_links_are_found() -> None:
    text = "# A `b`, c\n```\n# no\n```\n[1](#a-b-c) [2](#no) [3](docs/none.md) [4](docs/runbook.md#none) [5](docs/adr/)"
    assert list(broken(ROOT / "README.md", text)) == ["#no", "docs/none.md", "docs/runbook.md#none"]
    assert len(DOCUMENTS) > 40
