"""Tables on a terminal that is too narrow for them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from fake_agent import STATUS, FakeAgent, gives
from terminal import Terminal
from test_remusctl import PROGRAM

from remus_agent.cli.render import table

WIDE = ("GUEST", "STATE", "REASON")
WHY = "the backup beta cannot be reached since the switch between them was exchanged"
ROWS: Sequence[Sequence[object]] = (("web1", "silent", WHY), ("db1", "protected", None))


def test_what_has_room_is_as_wide_as_it_is() -> None:
    whole = table(WIDE, ROWS, 0)
    assert whole.splitlines()[1] == f"web1   silent     {WHY}"
    assert table(WIDE, ROWS, len(whole.splitlines()[1])) == whole


def test_the_last_column_goes_on_below_itself() -> None:
    assert table(WIDE, ROWS, 60).splitlines() == [
        "GUEST  STATE      REASON",
        "web1   silent     the backup beta cannot be reached since",
        "                  the switch between them was exchanged",
        "db1    protected  -",
    ]


def test_what_has_no_room_stands_below_its_row_by_name() -> None:
    headings = (*WIDE[:2], "PEER", "HELD", "REASON")
    rows = (("web1", "silent", "beta", "64.0 KiB", WHY), ("db1", "protected", "beta", None, None))
    assert table(headings, rows, 28).splitlines() == [
        "GUEST  STATE      PEER",
        "web1   silent     beta",
        "    held: 64.0 KiB  reason:",
        "    the backup beta cannot",
        "    be reached since the",
        "    switch between them was",
        "    exchanged",
        "db1    protected  beta",
    ]


@pytest.mark.parametrize("columns", range(8, 90))
def test_no_line_is_wider_and_no_word_is_lost(columns: int) -> None:
    shown = table(WIDE, ROWS, columns)
    assert all(len(line) <= max(columns, len("web1")) for line in shown.splitlines()[1:])
    for word in ("web1", "silent", "db1", "protected", *WHY.split()):
        assert word in shown.replace("\n    ", "").replace("\n", "") or word in shown


@pytest.mark.parametrize("command", ["list", "topology", "selftest"])
def test_eighty_columns_are_enough(agent: FakeAgent, command: str) -> None:
    here = {"role": "primary", "state": "protected"}
    agent.answers = gives(
        host="alpha",
        domains=[STATUS | {"reason": WHY}],
        guests=[{"domain": "redis1", "runs_on": "alpha", "backup": "beta", "generation": 3, "here": here}],
        checks=[{"name": "witness", "result": "fail", "message": WHY, "next": None}],
    )
    env = dict(os.environ) | {"REMUS_SOCKET": str(agent.path), "TERM": "linux"}
    with Terminal([*PROGRAM, command], env) as shown:
        assert shown.ended() in (0, 1)
        lines = shown.written.replace("\r", "").splitlines()
    assert len(lines) > 1
    rows = [line for line in lines if ": " not in line]
    assert max(map(len, rows)) <= 80, rows
