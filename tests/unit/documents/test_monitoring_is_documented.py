"""docs/operations.md says of every state what health answers, and names every metric."""

from __future__ import annotations

import re
from pathlib import Path

from host_views import FULL

from remus_agent.observe import metrics
from remus_agent.observe.health import OF_STATE, Marks

TEXT = (Path(__file__).resolve().parents[3] / "docs/operations.md").read_text()


def test_the_table_of_states() -> None:
    head = "| state | `/primary` | `/protected` | `/readiness` |\n| --- | --- | --- | --- |\n"
    rows = [row.strip("|").split("|") for row in TEXT.partition(head)[2].partition("\n\n")[0].splitlines()]
    told = {
        state: Marks(*(answer.strip() == "200" for answer in answers))
        for states, *answers in rows
        for state in re.findall(r"\*([a-z-]+)\*", states)
    }
    assert rows[-1][1:] == [" 503 "] * 3
    assert len(told) == 10
    assert {state: told.get(state, Marks(owned=False, protected=False, ready=False)) for state in OF_STATE} == OF_STATE


def test_every_metric_is_named() -> None:
    kinds = {"counter": "_total"}
    names = [family.name + kinds.get(family.type, "") for family in metrics.families(FULL)]
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"`{name}(\{{[a-z_,]+\}})?`", TEXT)] == []


def test_every_metric_that_is_named_is_there() -> None:
    names = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.families(FULL)}
    section = TEXT.partition("### Metrics\n")[2].partition("### ")[0]
    assert set(re.findall(r"`(remus_\w+)", section)) - names == set()
