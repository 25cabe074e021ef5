"""Raw figures to medians, ratios and verdicts; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

SUSPENDED = "Domain now suspended"
SAVED = "Checkpointed save"
PARTS = ("barrier", "clean", "copy", "context", "resume")


class FiguresError(Exception):
    """Raw figures that do not suffice for a judgement."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. suspended_ms: of each epoch. rate: checkpoints a second. seeding_s: first full copy."""

    suspended_ms: tuple[float, ...]
    rate: float
    seeding_s: float
    pages: float | None = None
    parts_ms: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """One verdict. ratio: ours to stock's. limit: what the ratio may be at most (`at_most`) or must be at least."""

    name: str
    ours: float
    stock: float
    ratio: float
    limit: float
    at_most: bool

    @property
    def kept(self) -> bool:
        """Whether the budget is kept."""
        return self.ratio <= self.limit if self.at_most else self.ratio >= self.limit


def stock_run(raw: dict[str, Any]) -> Run:
    """Figures of an `xl remus` run from its timed log."""
    begin, end = raw["window_ns"]
    suspended_at: int | None = None
    saved_at: int | None = None
    first: int | None = None
    spans: list[float] = []
    count = 0
    for moment, line in [*raw["lines"], (end, SUSPENDED)]:
        if SUSPENDED in line:
            first = first or moment
            if suspended_at is not None and saved_at is not None and suspended_at >= begin:
                spans.append((saved_at - suspended_at) / 1e6)
            count += begin <= moment < end
            suspended_at, saved_at = moment, None
        elif SAVED in line:
            saved_at = moment
    if first is None or not spans:
        raise FiguresError(f"stock at {raw['interval_ms']} ms: no checkpoint in its window")
    return Run(tuple(spans), count / ((end - begin) / 1e9), (first - raw["started_ns"]) / 1e9)


def remus_run(raw: dict[str, Any]) -> Run:
    """Figures of a run of the agent from its epoch records."""
    begin, end = raw["window_ns"]
    low, high = raw["committed"]
    epochs = raw["epochs"]
    if not epochs:
        raise FiguresError("remus: no epoch in its window")
    return Run(
        suspended_ms=tuple(epoch["down_ns"] / 1e6 for epoch in epochs),
        rate=(high - low) / ((end - begin) / 1e9),
        seeding_s=(raw["seeded_ns"] - raw["started_ns"]) / 1e9,
        pages=median(epoch["pages"] for epoch in epochs),
        parts_ms={
            part: round(median(epoch[f"{part}_ns"] for epoch in epochs) / 1e6, 3)
            for part in (*PARTS, "freeze", "send", "ack", "period")
        },
    )


def _together(runs: Sequence[Run]) -> dict[str, float]:
    """Several runs of one kind as one row."""
    spans = sorted(span for run in runs for span in run.suspended_ms)
    return {
        "runs": len(runs),
        "checkpoints": len(spans),
        "suspended_ms_median": round(median(spans), 3),
        "suspended_ms_p90": round(spans[min(len(spans) - 1, int(0.9 * len(spans)))], 3),
        "checkpoints_per_second": round(median(run.rate for run in runs), 3),
        "seeding_s": round(median(run.seeding_s for run in runs), 3),
    }


def summary(raws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows for each setting and the verdicts. Stock's best setting counts, for each figure by itself."""
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for raw in raws:
        read = stock_run if raw["kind"] == "stock" else remus_run
        runs[raw["kind"], raw["interval_ms"]].append(read(raw))
    rows = {f"{kind} -i {interval}": _together(found) for (kind, interval), found in sorted(runs.items())}
    stock = [row for name, row in rows.items() if name.startswith("stock")]
    ours = [row for name, row in rows.items() if name.startswith("remus")]
    if not stock or len(ours) != 1:
        raise FiguresError("a comparison needs runs of stock and runs of ours at one setting")
    budgets = [
        _budget(
            "suspended per epoch, ms",
            ours[0]["suspended_ms_median"],
            min(row["suspended_ms_median"] for row in stock),
            1 / 5,
            at_most=True,
        ),
        _budget(
            "checkpoints a second",
            ours[0]["checkpoints_per_second"],
            max(row["checkpoints_per_second"] for row in stock),
            1.5,
            at_most=False,
        ),
        _budget("seeding, s", ours[0]["seeding_s"], min(row["seeding_s"] for row in stock), 1.0, at_most=True),
    ]
    detail = [run for (kind, _), found in runs.items() if kind == "remus" for run in found]
    return {
        "rows": rows,
        "budgets": [{**asdict(budget), "kept": budget.kept} for budget in budgets],
        "kept": all(budget.kept for budget in budgets),
        "ours_in_parts_ms": [run.parts_ms for run in detail],
        "ours_pages_median": [run.pages for run in detail],
    }


def _budget(name: str, ours: float, stock: float, limit: float, *, at_most: bool) -> Budget:
    return Budget(name, ours, stock, round(ours / stock, 4), round(limit, 4), at_most)


def as_text(found: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [f"{'':14}{'checkpoints':>12}{'suspended ms':>14}{'p90':>9}{'per second':>12}{'seeding s':>11}"]
    for name, row in found["rows"].items():
        lines.append(
            f"{name:14}{row['checkpoints']:>12}{row['suspended_ms_median']:>14.1f}{row['suspended_ms_p90']:>9.1f}"
            f"{row['checkpoints_per_second']:>12.2f}{row['seeding_s']:>11.1f}"
        )
    lines.append("")
    for budget in found["budgets"]:
        sign = "at most" if budget["at_most"] else "at least"
        verdict = "kept" if budget["kept"] else "MISSED"
        lines.append(
            f"{budget['name']}: {budget['ours']:.2f} against stock's best {budget['stock']:.2f},"
            f" ratio {budget['ratio']:.3f} ({sign} {budget['limit']:.3f}): {verdict}"
        )
    return "\n".join(lines) + "\n"
