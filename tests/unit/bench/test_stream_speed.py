"""Runs of the stream benchmark to budgets."""

from __future__ import annotations

from typing import Any

import pytest
from bench.stream_speed import MIB, _summary, _text

CPU = {
    "memcpy": 0.1,
    "cat to /dev/null": 0.12,
    "cat to a file": 0.5,
    "verify": 0.5,
    "inspect": 0.5,
    "convert to /dev/null": 0.5,
    "convert to a file": 1.1,
    "diff with itself": 0.9,
    "start alone": 0.2,
}


def runs(**changed: float) -> list[dict[str, Any]]:
    peak = changed.pop("peak_mib", 50) * MIB
    found = []
    for number in range(3):
        for what, cpu in (CPU | changed).items():
            run = {"what": what, "round": number, "bytes": 1000 * MIB, "seconds": 2 * cpu, "cpu_seconds": cpu}
            found.append(run | {"peak_bytes": peak if what == "verify" else 20 * MIB})
    return found


def test_the_start_is_left_out_and_diff_reads_twice() -> None:
    found = _summary(runs(), "made", 3)
    by_name = {one["what"]: one for one in found["figures"]}
    assert by_name["verify"]["of_memcpy"] == pytest.approx(0.1 / 0.5)
    assert by_name["verify"]["net_of_memcpy"] == pytest.approx(0.1 / 0.3)
    assert by_name["convert to a file"]["net_of_cat"] == pytest.approx(0.5 / 0.9)
    assert by_name["diff with itself"]["net_of_memcpy"] == pytest.approx(2 * 0.1 / 0.7)
    assert found["kept"]
    assert "all budgets kept" in _text(found)


@pytest.mark.parametrize("missed", [{"verify": 0.75}, {"convert to /dev/null": 0.75}, {"peak_mib": 80}])
def test_a_missed_budget_is_seen(missed: dict[str, float]) -> None:
    found = _summary(runs(**missed), "made", 3)
    assert not found["kept"]
    assert _text(found).endswith("A BUDGET IS MISSED\n")
