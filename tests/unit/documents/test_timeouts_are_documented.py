"""docs/operations.md has every timeout and everything that agents do by themselves, with the defaults of code and role."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import yaml

from remus_agent.config import Automatic, Timeouts

ROOT = Path(__file__).resolve().parents[3]
SECTION = (
    (ROOT / "docs/operations.md").read_text().partition("## Timeouts, and what agents do")[2].partition("\n## ")[0]
)


def test_the_table_of_timeouts() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", SECTION, re.MULTILINE)
    assert {name: float(seconds) for name, seconds in rows} == asdict(Timeouts())


def test_the_table_of_what_agents_do() -> None:
    assert re.findall(r"^\| `(\w+)`: ", SECTION, re.MULTILINE) == list(asdict(Automatic()))


def test_the_role_has_the_same_defaults() -> None:
    given = yaml.safe_load((ROOT / "roles/remus_agent/defaults/main.yml").read_text())["remus_agent_timeouts"]
    assert asdict(Timeouts()) | given == asdict(Timeouts())
