"""The dashboard for Grafana as far as it can be checked without one: its schema, and what its importer and its panels rely on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "roles/remus_monitoring/files/remus-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TYPES = {"stat", "timeseries", "state-timeline", "table", "heatmap"}
UNITS = {"short", "s", "d", "ops", "bytes", "Bps", "pps", "percentunit"}
BUILT_IN = {"__rate_interval", "__all"}
NOT_IN_MODELS = {
    # of the data source, which reads them by itself
    *("annotations.list.1.titleFormat", "annotations.list.1.textFormat", "annotations.list.1.step"),
    # what Grafana's own editor writes beside `query`
    *("templating.list.1.definition", "templating.list.2.definition"),
}


def test_it_can_be_imported_anywhere() -> None:
    assert re.fullmatch(r"[a-z0-9-]{8,40}", DASHBOARD["uid"])
    assert DASHBOARD["title"] == "Remus for Xen"
    assert "id" not in DASHBOARD, "that would be of one Grafana"
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert {"from", "to"} == set(DASHBOARD["time"])


def test_panels_have_their_own_ids_and_titles() -> None:
    for key in ("id", "title"):
        found = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(set(found)) == len(found)
    assert all(panel["title"] for panel in DASHBOARD["panels"])


def test_panels_stand_beside_each_other() -> None:
    places = [(panel["title"], *(panel["gridPos"][key] for key in "xywh")) for panel in DASHBOARD["panels"]]
    for title, x, y, w, h in places:
        assert 0 <= x < x + w <= COLUMNS, title
        assert y >= 0, title
        assert h > 0, title
    for (one, x, y, w, h), (other, a, b, c, d) in combinations(places, 2):
        assert x + w <= a or a + c <= x or y + h <= b or b + d <= y, f"{one} and {other}"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    assert panel["type"] in TYPES
    assert panel["datasource"] == DATASOURCE
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == ["A", "B", "C", "D"][: len(panel["targets"])]
    for target in panel["targets"]:
        assert target["datasource"] == DATASOURCE
        assert target["expr"].strip()
        assert target["instant"] is not target["range"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in ("domain", "instance", "state", "phase", "stage", "le"), label


def test_variables_are_there_and_used() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps([DASHBOARD["panels"], DASHBOARD["annotations"], DASHBOARD["templating"]])
    used = set(re.findall(r"\$\{?(\w+)", text)) - BUILT_IN
    assert used == names == {"datasource", "instance", "domain"}


def test_every_query_is_limited_to_what_was_chosen() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            assert "$instance" in target["expr"] or target["expr"].startswith("ALERTS"), panel["title"]


def test_grafanas_own_models_know_all_of_it() -> None:
    """Those that Grafana generates from its schema, of the dashboard, each type of panel and Prometheus' queries: what they do
    not know they drop, and what a Grafana does not know it ignores without a word."""
    register_default_plugins()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(DASHBOARD)))))
    assert set(dropped(DASHBOARD, understood)) == NOT_IN_MODELS


def dropped(ours: Any, theirs: Any, *path: str) -> Iterator[str]:
    """Where a value of ours is not what became of it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from dropped(value, theirs.get(key), *path, key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from dropped(one, other, *path, str(number))
    elif ours != theirs:
        yield ".".join(path)
