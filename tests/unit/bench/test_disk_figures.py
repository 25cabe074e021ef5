"""fio's reports to medians, ratios and verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from bench.disk_cells import CELLS, READS, WRITES, Cell, figures, job_file, turn_figures, turns_file
from bench.disk_figures import BARE, BESIDE, DRBD, GUEST, GUEST_PROTECTED, LINEAR, PROTECTED, RUNNING, as_text, summary
from bench.disk_speed import main
from bench.figures import FiguresError


def report(iops: float = 100.0, error: int = 0) -> str:
    side = {
        "iops": iops,
        "bw_bytes": iops * 4096,
        "clat_ns": {"mean": 2e6, "max": 9e6, "percentile": {"99.000000": 5e6}},
    }
    idle = {"iops": 0, "bw_bytes": 0, "clat_ns": {"mean": 0, "max": 0}}
    jobs = [
        {
            "jobname": cell.name,
            "error": error,
            "read": idle if cell.writes else side,
            "write": side if cell.writes else idle,
        }
        for cell in CELLS
    ]
    return "fio: connected to NBD server\n" + json.dumps({"jobs": jobs})


def raw(target: str, number: int, iops: float) -> dict[str, Any]:
    found = {"round": number, "target": target, "cells": figures(report(iops), CELLS)}
    return found | ({"session_held": True} if target in (PROTECTED, BESIDE) else {})


def measured(protected: float = 50.0) -> list[dict[str, Any]]:
    raws = []
    for number, factor in (
        (1, 1.0),
        (2, 2.0),
        (3, 4.0),
    ):  # the machine's mood, which a ratio within a round does not see
        for target, iops in ((BARE, 100), (LINEAR, 95), (BESIDE, 52), (PROTECTED, protected), (DRBD, 80)):
            raws.append(raw(target, number, iops * factor))
    return raws


def test_a_cell_is_told_by_the_side_that_it_uses() -> None:
    assert figures(report(), CELLS)["write-4k-1"] == {
        "iops": 100,
        "bytes_per_second": 409600,
        "mean_ms": 2,
        "p99_ms": 5,
        "longest_ms": 9,
    }


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "not in the report"),
        ('fio: {"jobs": []', "cannot be read"),
        (report(error=5), "error 5"),
        (report(iops=0), "not a single request"),
    ],
)
def test_a_report_without_figures_is_refused(said: str, reason: str) -> None:
    with pytest.raises(FiguresError, match=reason):
        figures(said, CELLS)


def test_ratios_are_of_one_round_and_medians_over_all() -> None:
    found = summary(measured())
    assert found["rounds"] == 3
    assert found["table"][BARE]["read-4k-16"] == {"median": 200, "low": 100, "high": 400}
    assert found["table"][BARE]["read-seq"]["median"] == pytest.approx(200 * 4096 / 1e6), "large ones in MB/s"
    assert found["ratios"]["protected / drbd"]["write-seq"] == pytest.approx(
        {"median": 0.625, "low": 0.625, "high": 0.625}
    )
    assert found["kept"]
    assert (found["sessions_lost"], found["protected_runs"]) == (0, 3)


def test_a_write_path_slower_than_a_third_of_drbds_is_missed() -> None:
    found = summary(measured(protected=26.0))
    missed = {(verdict["pair"], verdict["cell"]) for verdict in found["verdicts"] if not verdict["kept"]}
    assert missed == {("protected / drbd", cell.name) for cell in WRITES} | {
        ("protected / bare-beside", cell.name) for cell in CELLS if not cell.writes
    }
    assert "MISSED" in as_text(found)


def test_a_verdict_needs_both_sides_in_one_round() -> None:
    raws = [one for one in measured() if one["target"] != DRBD]
    with pytest.raises(FiguresError, match="write-seq of protected / drbd"):
        summary(raws)


def test_a_session_that_ended_under_the_load_is_told() -> None:
    raws = measured()
    next(one for one in raws if one["target"] == PROTECTED)["session_held"] = False
    assert "sessions that ended under the load: 1 of 3" in as_text(summary(raws))


def test_reads_are_compared_turn_by_turn() -> None:
    """The machine is at its slowest in some turns; both devices have it."""

    def some(cells: Sequence[Cell], iops: float) -> dict[str, Any]:
        return {cell.name: figures(report(iops), CELLS)[cell.name] for cell in cells}

    raws = [one for one in measured() if one["target"] not in (BESIDE, PROTECTED)]
    raws.append({"round": 1, "target": PROTECTED, "cells": some(WRITES, 50), "session_held": True})
    for turn, mood in enumerate((1.0, 0.1, 3.0, 1.0, 0.5), start=1):
        for target, iops in ((BESIDE, 100), (PROTECTED, 93)):
            one = {"round": 1, "turn": turn, "target": target, "cells": some(READS, iops * mood)}
            raws.append(one | ({"session_held": turn < 5} if target == PROTECTED else {}))
    found = summary(raws)
    ratio = found["ratios"]["protected / bare-beside"]["read-seq"]
    assert ratio == pytest.approx({"median": 0.93, "low": 0.93, "high": 0.93})
    assert (found["sessions_lost"], found["protected_runs"]) == (1, 2), "turns are one run"


def test_reads_alone_are_judged_alone() -> None:
    cells = {cell.name: figures(report(), CELLS)[cell.name] for cell in READS}
    raws = [
        {"round": 1, "turn": 1, "target": target, "cells": cells, "session_held": True}
        for target in (BARE, LINEAR, BESIDE, PROTECTED)
    ]
    in_guest = [
        {"round": 1, "target": target, "cells": cells, "session_held": True} for target in (GUEST, GUEST_PROTECTED)
    ]
    found = summary(raws + in_guest)
    assert {verdict["cell"] for verdict in found["verdicts"]} == {cell.name for cell in READS}
    assert set(found["ratios"]["guest-protected / guest"]) == {cell.name for cell in READS}, "reported"
    with pytest.raises(FiguresError, match="protected / bare-beside was not measured"):
        summary(raws[:2])


def test_reads_in_the_guest_are_judged_by_the_time_it_runs() -> None:
    """It reads 80 of 100, in 85 % of the time."""
    raws = [raw(target, 1, iops) for target, iops in ((GUEST, 100), (GUEST_PROTECTED, 80))]
    raws[1] |= {"session_held": True, "ran": 0.85}
    found = summary(measured() + raws)
    assert found["ratios"]["guest-protected / guest"]["read-4k-16"]["median"] == pytest.approx(0.8)
    assert found["ratios"][RUNNING]["read-4k-16"]["median"] == pytest.approx(0.8 / 0.85)
    assert [one["kept"] for one in found["verdicts"] if one["pair"] == RUNNING] == [True, True]
    assert f"read-seq of {RUNNING}: 0.94 (at least 0.90): kept" in as_text(found)
    raws[1]["ran"] = 0.95
    assert not summary(measured() + raws)["kept"]


def test_devices_read_in_turns_there_and_back() -> None:
    text = turns_file({"a": "/dev/a", "b": "/dev/b"}, 2, 1.5, 64)
    jobs = [line for line in text.splitlines() if line.startswith(("[r", "filename"))]
    assert jobs[:8] == [
        "[read-seq/1/a]", "filename=/dev/a", "[read-seq/1/b]", "filename=/dev/b",
        "[read-seq/2/b]", "filename=/dev/b", "[read-seq/2/a]", "filename=/dev/a",
    ]  # fmt: skip
    assert text.count("stonewall") == 2 * 2 * len(READS)


def test_a_turn_that_is_missing_is_refused() -> None:
    with pytest.raises(FiguresError, match="read-seq: not in the report"):
        turn_figures(report(), ["a", "b"], 2)


def test_the_report_is_written_from_raw_figures(tmp_path, monkeypatch, capsys) -> None:
    for one in measured():
        (tmp_path / f"raw-{one['round']:02}-{one['target']}.json").write_text(json.dumps(one))
    monkeypatch.setattr("sys.argv", ["disk_speed.py", "--report", str(tmp_path)])
    assert main() == 0
    assert json.loads((tmp_path / "summary.json").read_text())["kept"]
    assert (tmp_path / "summary.txt").read_text() in capsys.readouterr().out


def test_a_job_runs_its_cells_one_after_the_other() -> None:
    text = job_file("nbd+unix:///alone?socket=/s", WRITES, 3, 128, engine="nbd")
    assert text.count("stonewall") == len(WRITES)
    assert "uri=nbd+unix:///alone?socket=/s\n" in text
    assert "filename" not in text
