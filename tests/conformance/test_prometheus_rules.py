"""Alerts and recording rules by promtool, and the metrics page by its linter."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from host_views import guest, host
from prometheus_tools import promtool

from remus_agent.observe import metrics
from remus_agent.observe.status import DiskStatus, PartCost, ProtectionCost, Seeding
from remus_agent.observe.view import CertificateView, WatchdogView, WitnessView

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "roles/remus_monitoring/files/remus.rules.yml"
TESTS = Path(__file__).with_name("remus.rules.test.yml")
FULL = host(
    guest(
        disks=(DiskStatus(vdev="xvda", mode="replicating", size=1),),
        last_ack_age=1.0,
        cost=ProtectionCost(1.0, 1, (PartCost("disks", 1.0, 1),)),
    ),
    guest("seeding", name="sql1", seeding=Seeding(1, 2, "pages", 1.0, 1.0)),
    guest("ready", "backup", "db1", last_ack_age=1.0),
    xen_version="4.20",
    free_memory_bytes=1,
    certificate=CertificateView(1.8e9, usable=True),
    witness=WitnessView(reachable=True, answered=1.7e9),
    watchdog=WatchdogView(armed=True, problem=False),
    shared_cpu_seconds=1.0,
    shared_memory_bytes=1,
)


def rules() -> list[dict[str, str]]:
    """All of them."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_promtool_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", str(RULES))


def test_each_does_what_it_is_for() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))


def test_each_alert_is_seen_firing_and_each_recorded_figure_is_looked_at() -> None:
    text = TESTS.read_text()
    looked_for = [
        f'ALERTS{{alertname="{rule["alert"]}", alertstate="firing"' if "alert" in rule else f"expr: {rule['record']}\n"
        for rule in rules()
    ]
    assert [name for name in looked_for if name not in text.replace("round(", "").replace(", 0.0001)", "")] == []


def test_a_rule_that_is_wrong_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(RULES.read_text().replace("remus_supervisor_up == 0", "remus_supervisor_up == 0 and"))
    promtool("check", "rules", str(wrong), code=1)
    tests = tmp_path / "tests.yml"
    other = tmp_path / "other.yml"
    other.write_text(RULES.read_text().replace("remus_supervisor_up == 0", "remus_supervisor_up == 2"))
    tests.write_text(TESTS.read_text().replace("../../roles/remus_monitoring/files/remus.rules.yml", str(other)))
    assert "RemusSupervisorDown" in promtool("test", "rules", str(tests), code=1)


def queries() -> str:
    """Of the dashboard and of every rule."""
    dashboard = (ROOT / "roles/remus_monitoring/files/remus-dashboard.json").read_text()
    found = re.findall(r'"(?:expr|query|definition)": ("(?:[^"\\]|\\.)*")', dashboard)
    return "\n".join([*map(json.loads, found), *(rule["expr"] for rule in rules())])


def test_rules_and_dashboard_use_metrics_that_there_are() -> None:
    there = {family.name for family in metrics.families(FULL)}
    suffixes = r"(_total|_bucket|_sum|_count)?"
    used = set(re.findall(r"(?<![:\w])remus_[a-z0-9_]+", queries()))
    assert len(used) > 30
    unknown = {name for name in used if name not in there and re.sub(suffixes + "$", "", name) not in there}
    assert unknown == set()


def test_what_they_choose_by_is_there() -> None:
    """A selector with a label, a state or a role that no series has is accepted, and finds nothing for ever."""
    labels = {sample.name: set(sample.labels) for family in metrics.families(FULL) for sample in family.samples}
    chosen = {
        (name, label, word)
        for name, selector in re.findall(r"\b(remus_\w+)\{([^}]*)\}", queries())
        for label, words in re.findall(r'(\w+)\s*[=!]~?\s*"([^"]*)"', selector)
        for word in words.split("|")
    }
    assert {label for _, label, _ in chosen} == {"instance", "domain", "state", "role"}
    assert [each for each in chosen if each[1] not in labels[each[0]] | {"instance"}] == []
    known = {"state": metrics.STATES, "role": metrics.ROLES}
    assert [each for each in chosen if each[1] in known and each[2] not in known[each[1]]] == []
    by = {
        label
        for clause in re.findall(r"\b(?:by|on|without|group_left) \(([^)]*)\)", queries())
        for label in clause.split(", ")
    }
    assert by - {"instance"} <= set().union(*labels.values())


def test_the_linter_has_nothing_against_the_page() -> None:
    _, text = metrics.page(FULL, "")
    mine = b"".join(line for line in text.splitlines(keepends=True) if b"remus_" in line)
    assert promtool("check", "metrics", given=mine) == ""


def test_the_linter_finds_what_is_wrong() -> None:
    wrong = b"# HELP remus_age_milliseconds Age.\n# TYPE remus_age_milliseconds gauge\nremus_age_milliseconds 1\n"
    assert "remus_age_milliseconds" in promtool("check", "metrics", given=wrong, code=3)
