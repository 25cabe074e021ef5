"""What was seen of failovers to phases, ratios and verdicts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from bench.failover_figures import PHASES, as_text, ours, stock, summary
from bench.failover_speed import main
from bench.figures import FiguresError

from remus_agent.observe.events import EventLog

AHEAD = 1_795_000_000.0
"""Of the new host's time of day before this machine's monotonic clock."""
KILLED = 5000.0
KEPT = {"verdict": "kept", "reasons": []}
COMMON = {
    "guest": "pvh",
    "killed": KILLED,
    "clock": [{"ahead": AHEAD - 0.01, "doubt": 0.004}, {"ahead": AHEAD + 0.01, "doubt": 0.006}],
}


def events(tmp_path: Any, *notes: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    """As the agent's control socket sends them; seconds after the kill, kind, detail."""
    times = iter([datetime.fromtimestamp(AHEAD + KILLED + after, UTC) for after, _, _ in notes])
    log = EventLog(tmp_path / "events.jsonl", now=lambda: next(times))
    for _, kind, detail in notes:
        log.note("redis1", kind, **detail)
    log.close()
    return json.loads(json.dumps([event.as_dict() for event in log.read(0, "redis1")]))


TAKEN = (
    (-9.0, "ownership", {"owner": "alpha", "generation": 2}),
    (10.3, "suspect", {"silent_for": 10.4, "primary": "alpha"}),
    (10.4, "orphaned", {}),
    (10.4, "taking", {}),
    (10.8, "ownership", {"owner": "beta", "generation": 3}),
    (10.9, "activating", {}),
    (16.8, "active", {}),
    (17.0, "announced", {}),
    (17.5, "solo", {}),
)


def our_raw(tmp_path: Any, number: int = 1, answer: float = 18.0, notes: Any = TAKEN, **more: Any) -> dict[str, Any]:
    return {
        "round": number,
        "kind": "remus",
        **COMMON,
        "configured": {"detect": 10.0, "silence": 60.0, "heartbeat": 2.0},
        "events": events(tmp_path, *notes),
        "frames": [
            [KILLED + 16.9, "ethertype-0x8035", None],
            [KILLED + answer, "ipv4", 177],
            [KILLED + answer, "arp", 177],
        ],
        "client": {"last": KILLED - 0.2, "first": KILLED + 25.5},
        "proof": KEPT,
        **more,
    }


def stock_raw(number: int = 1, takes: float = 8.0, answer: float = 9.5, **more: Any) -> dict[str, Any]:
    broken = AHEAD + KILLED + 6.0
    lines = [[broken + takes - 0.3, "migration target: Remus Failover for domain 7"]]
    receiver = {"broken": broken, "ended": broken + takes, "status": 0, "by": "signal", "lines": lines}
    return {
        "round": number,
        "kind": "stock",
        **COMMON,
        "receiver": receiver | more.pop("receiver", {}),
        "frames": [[KILLED + 6.0 + answer, "vlan", 155]],
        "client": {"last": KILLED - 0.2, "first": None},
        **more,
    }


def test_the_phases_of_a_takeover_follow_each_other_and_make_up_the_whole(tmp_path) -> None:
    found = ours(our_raw(tmp_path))
    expected = {"detect": 10.3, "witness": 0.5, "activate": 6.0, "announce": 0.2, "rest": 1.0}
    assert {name: found[name] for name in PHASES} == pytest.approx(expected, abs=0.002)
    assert found["total"] == pytest.approx(18.0)
    assert found["after_detection"] == pytest.approx(8.0), "what is configured is taken off, not what it took"
    assert (found["client"], found["silent"]) == (pytest.approx(25.5), 10.4)
    assert found["doubt"] == pytest.approx(0.016)


def test_a_detection_that_took_less_than_configured_is_taken_off_as_it_was(tmp_path) -> None:
    notes = [(9.9 if kind == "suspect" else after, kind, detail) for after, kind, detail in TAKEN]
    assert ours(our_raw(tmp_path, notes=notes))["after_detection"] == pytest.approx(8.1, abs=0.002)


def test_a_guest_that_answers_before_it_is_announced_needs_no_announcement(tmp_path) -> None:
    found = ours(our_raw(tmp_path, answer=16.9))
    assert (found["announce"], found["rest"]) == (pytest.approx(0.1, abs=0.002), 0)
    never = [note for note in TAKEN if note[1] != "announced"]
    found = ours(our_raw(tmp_path / "never", notes=never))
    assert (found["announce"], found["rest"]) == (pytest.approx(1.2, abs=0.002), 0)


@pytest.mark.parametrize("kind", ["suspect", "ownership", "active"])
def test_a_takeover_without_an_event_is_not_judged(tmp_path, kind) -> None:
    notes = [note for note in TAKEN if note[1] != kind]
    with pytest.raises(FiguresError, match=rf"no event .*{kind}"):
        ours(our_raw(tmp_path, notes=notes))


def test_what_cannot_have_been_is_refused(tmp_path) -> None:
    with pytest.raises(FiguresError, match="did not answer"):
        ours(our_raw(tmp_path, frames=[[KILLED + 17, "ethertype-0x8035", None]]))
    moved = [{"ahead": AHEAD, "doubt": 0.01}, {"ahead": AHEAD + 1, "doubt": 0.01}]
    with pytest.raises(FiguresError, match=r"clock moved by 1\.000 s"):
        ours(our_raw(tmp_path / "moved", clock=moved))
    with pytest.raises(FiguresError, match=r"rest ends 0\.800 s before it begins"):
        ours(our_raw(tmp_path / "early", answer=16.0))
    with pytest.raises(FiguresError, match="not compared"):
        ours(our_raw(tmp_path / "once", clock=moved[:1]))


def test_stock_is_measured_from_the_end_of_its_stream() -> None:
    found = stock(stock_raw())
    assert (found["built"], found["activate"]) == (pytest.approx(7.7), pytest.approx(8.0))
    assert (found["rest"], found["total"], found["client"]) == (pytest.approx(1.5), pytest.approx(9.5), None)
    late = stock(stock_raw(client={"last": KILLED, "first": KILLED + 20}))
    assert late["client"] == pytest.approx(14)


@pytest.mark.parametrize(
    ("receiver", "reason"),
    [
        ({"status": 1}, "did not fail over, status 1"),
        ({"lines": [[AHEAD, "libxl: error"]]}, "libxl: error"),
        ({"by": "end"}, "its primary was not dead"),
    ],
)
def test_stock_that_did_not_fail_over_is_refused(receiver, reason) -> None:
    with pytest.raises(FiguresError, match=reason):
        stock(stock_raw(receiver=receiver))


def measured(tmp_path: Any, answer: float = 17.9) -> list[dict[str, Any]]:
    raws = []
    for number, takes in ((1, 8.0), (2, 9.0), (3, 16.0)):
        raws += [our_raw(tmp_path / str(number), number, answer), stock_raw(number, takes, takes + 1.5)]
    return raws


def test_the_budget_is_of_medians_within_rounds(tmp_path) -> None:
    found = summary(measured(tmp_path))
    assert found["rounds"] == 3
    assert found["ratio"]["median"] == pytest.approx(7.9 / 10.5)
    assert (found["ratio"]["low"], found["ratio"]["high"]) == (pytest.approx(7.9 / 17.5), pytest.approx(7.9 / 9.5))
    assert found["to_unpaused"]["median"] == pytest.approx(7.9 / 9)
    assert found["kept"]
    assert found["stock"]["activate"] == pytest.approx({"median": 9, "low": 8, "high": 16})
    assert "client" not in found["stock"]
    text = as_text(found)
    assert "MISSED" not in text
    assert "silence configured (detect)" in text


def test_a_missed_budget_is_said(tmp_path) -> None:
    found = summary(measured(tmp_path, answer=19.5))
    assert found["kept"]
    assert found["to_unpaused"]["median"] > 1, "stock's guest needs its time as well until it answers"
    found = summary(measured(tmp_path / "late", answer=21.0))
    assert not found["kept"]
    assert "MISSED" in as_text(found)


def test_a_round_that_cannot_be_judged_is_left_out_and_told(tmp_path) -> None:
    raws = measured(tmp_path)
    raws[1] = stock_raw(1, receiver={"status": 1})
    raws[3] = {"round": 2, "kind": "stock", "failed": "no end after 360 s: ssh beta"}
    found = summary(raws)
    assert (found["rounds"], found["kept"]) == (1, True)
    assert [(one["round"], one["kind"]) for one in found["left_out"]] == [(1, "stock"), (2, "stock")]
    assert "left out: round 2, stock: it did not come to an end: no end after 360 s: ssh beta" in as_text(found)
    with pytest.raises(
        FiguresError, match=r"no round has figures of both kinds\n  round 1, stock: stock did not fail over"
    ):
        summary(raws[:4])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"failed": "the guest answers from beta: not after 540 s"}, "not after 540 s"),
        ({"proof": {"verdict": "red", "reasons": ["3 requests lost"]}}, "3 requests lost"),
    ],
)
def test_a_failover_of_ours_that_is_none_keeps_no_budget(tmp_path, raw, reason) -> None:
    found = summary([*measured(tmp_path), our_raw(tmp_path / "4", 4, **raw)])
    assert found["ratio"]["kept"]
    assert not found["kept"]
    (line,) = [line for line in as_text(found).splitlines() if "MISSED" in line]
    assert line.startswith("a failover of ours that is none: MISSED: round 4: ")
    assert line.endswith(reason)


def test_figures_of_something_else_are_refused() -> None:
    with pytest.raises(FiguresError, match="something else"):
        summary([{"kind": "stock", "interval_ms": 20}])


def test_the_report_is_written_from_raw_figures(tmp_path, monkeypatch, capsys) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr("sys.argv", ["failover_speed.py", "--report", str(folder)])
    assert main() == 2
    for one in measured(tmp_path):
        (folder / f"raw-{one['round']:02}-{one['kind']}.json").write_text(json.dumps(one))
    assert main() == 0
    assert json.loads((folder / "summary.json").read_text())["kept"]
    assert (folder / "summary.txt").read_text() in capsys.readouterr().out
    slow = our_raw(tmp_path / "slow", 2, answer=40.0)
    (folder / "raw-02-remus.json").write_text(json.dumps(slow))
    (folder / "raw-01-remus.json").unlink()
    (folder / "raw-03-remus.json").unlink()
    assert main() == 1
