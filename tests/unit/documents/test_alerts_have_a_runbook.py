"""Every alert names a section of the runbook, and that is there; every section for an alert has its alert."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
RULES = yaml.safe_load((ROOT / "roles/remus_monitoring/files/remus.rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
SECTIONS = dict(re.findall(r"^### (Remus\w+)\n\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


ANCHORS = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_its_section(rule: dict[str, dict[str, str]]) -> None:
    file, _, found = rule["annotations"]["runbook_url"].partition("#")
    assert file == "docs/runbook.md"
    assert found == anchor(str(rule["alert"]))
    assert found in ANCHORS
    for part in ("*Meaning:*", "*Check:*", "*Fix:*"):
        assert part in SECTIONS[str(rule["alert"])]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


def test_there_is_no_section_without_its_alert() -> None:
    assert set(SECTIONS) == {rule["alert"] for rule in ALERTS}
    assert len(ALERTS) > 15


@pytest.mark.parametrize(
    ("heading", "expected"), [("A guest is `silent`", "a-guest-is-silent"), ("RemusAckLate", "remusacklate")]
)
def test_anchors(heading: str, expected: str) -> None:
    assert anchor(heading) == expected


def test_links_within_the_runbook_lead_somewhere() -> None:
    assert [link for link in re.findall(r"\]\(#([^)]*)\)", RUNBOOK) if link not in ANCHORS] == []


def test_sections_were_followed() -> None:
    """By `tests/lab/test_alerts.py`, as `docs/development.md` says."""
    story = (ROOT / "tests/lab/test_alerts.py").read_text()
    left_out = {str(rule["alert"]) for rule in ALERTS if f'"{rule["alert"]}"' not in story}
    assert not left_out
