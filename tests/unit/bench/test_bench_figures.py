"""Raw figures to verdicts."""

import json

import pytest
from bench.figures import SAVED, SUSPENDED, FiguresError, as_text, remus_run, stock_run, summary
from bench.report import main

MS = 1_000_000


def stock_raw(interval=20, suspended=230, period=430, count=20, seeding=31_000):
    start = 5_000 * MS
    at = start + seeding * MS
    lines = [[at, f"xc: {SUSPENDED}"], [at + 50 * MS, "xc: Frames: 900/900  100%"]]
    at += 400 * MS
    window = at
    for _ in range(count):
        lines += [[at, f"xc: {SUSPENDED}"], [at + 40 * MS, f"xc: {SAVED}: 45/450   10%"]]
        lines.append([at + suspended * MS, f"xc: {SAVED}: 450/450  100%"])
        at += period * MS
    return {
        "kind": "stock",
        "interval_ms": interval,
        "started_ns": start,
        "window_ns": [window, at],
        "lines": lines,
    }


def remus_raw(down=20, period=150, count=20, seeding=12_000):
    parts = ("freeze", "barrier", "clean", "copy", "context", "resume", "send", "ack", "period")
    epochs = [
        {"epoch": 11 + n, "pages": 440, "down_ns": down * MS, **{f"{part}_ns": 2 * MS for part in parts}}
        for n in range(count)
    ]
    return {
        "kind": "remus",
        "interval_ms": 0,
        "started_ns": 0,
        "seeded_ns": seeding * MS,
        "window_ns": [0, count * period * MS],
        "committed": [10, 10 + count],
        "epochs": epochs,
    }


def test_stock_is_read_from_its_log():
    run = stock_run(stock_raw())
    assert set(run.suspended_ms) == {230.0}
    assert len(run.suspended_ms) == 20
    assert run.rate == pytest.approx(1000 / 430)
    assert run.seeding_s == pytest.approx(31)


def test_ours_is_read_from_the_records():
    run = remus_run(remus_raw())
    assert run.rate == pytest.approx(1000 / 150)
    assert (run.seeding_s, run.pages, run.parts_ms["copy"]) == (12, 440, 2.0)


def test_budgets_kept():
    found = summary([stock_raw(), remus_raw(), stock_raw(interval=100, period=600), remus_raw()])
    assert found["kept"]
    assert list(found["rows"]) == ["remus -i 0", "stock -i 20", "stock -i 100"]
    assert found["rows"]["remus -i 0"]["runs"] == 2
    assert "MISSED" not in as_text(found)


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        ({"down": 50}, "suspended per epoch, ms"),
        ({"period": 400}, "checkpoints a second"),
        ({"seeding": 40_000}, "seeding, s"),
    ],
)
def test_a_missed_budget_is_named(ours, missed):
    found = summary([stock_raw(), remus_raw(**ours)])
    assert [budget["name"] for budget in found["budgets"] if not budget["kept"]] == [missed]
    assert not found["kept"]
    assert "MISSED" in as_text(found)


def test_stocks_best_setting_counts():
    slow = stock_raw(interval=200, suspended=900, period=1200)
    found = summary([stock_raw(), slow, remus_raw(down=50)])
    assert [budget["kept"] for budget in found["budgets"]] == [False, True, True]


@pytest.mark.parametrize("raws", [[], [stock_raw()], [remus_raw()], [stock_raw(count=0), remus_raw()]])
def test_figures_that_do_not_suffice_are_refused(raws):
    with pytest.raises(FiguresError):
        summary(raws)


def test_the_report_is_written(tmp_path, capsys):
    (tmp_path / "raw-01.json").write_text(json.dumps(stock_raw()))
    (tmp_path / "raw-02.json").write_text(json.dumps(remus_raw(down=200)))
    assert main([str(tmp_path)]) == 1
    assert json.loads((tmp_path / "summary.json").read_text())["kept"] is False
    assert "MISSED" in capsys.readouterr().out
    (tmp_path / "raw-02.json").unlink()
    assert main([str(tmp_path)]) == 2
