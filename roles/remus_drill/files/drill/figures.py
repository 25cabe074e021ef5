"""Figures of a drill: of the client and of epochs, before, during and after the fault."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from drill.record import Run

PARTS = ("before", "during", "after")


@dataclass(frozen=True)
class Part:
    """One part of a drill; seconds, bytes, None where there is nothing. longest_wait: the longest time between two answers that
    began in this part; pause: how long epochs had the guest stopped."""

    name: str
    seconds: float
    asked: int
    answered: int
    latency_median: float | None
    latency_p99: float | None
    latency_max: float | None
    longest_wait: float | None
    epochs: int
    pause_median: float | None
    pause_max: float | None
    pages_median: float | None
    bytes_median: float | None
    held_max: int


def quantile(values: Sequence[float], part: float) -> float | None:
    """The smallest of the values that is not below so great a part of them; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


def bounds(run: Run) -> dict[str, tuple[float, float]]:
    """When each part begins and ends."""
    begun = run.phases.get("breaking", run.end)
    ended = run.fault_ended if run.fault_ended is not None else run.end
    return {"before": (run.start, begun), "during": (begun, max(begun, ended)), "after": (max(begun, ended), run.end)}


def parts(run: Run) -> list[Part]:
    """All three."""
    found = []
    moments = [one.answered or 0.0 for one in run.answered]
    if any(one.answered is None for one in run.questions):
        moments.append(run.end)
    waits = [(before, after - before) for before, after in itertools.pairwise([run.start, *moments])]
    for name, (begin, end) in bounds(run).items():
        asked = [one for one in run.questions if begin <= one.sent < end]
        latencies = [one.seconds or 0.0 for one in asked if one.answered is not None and one.good]
        epochs = [one for one in run.epochs if begin <= one.at < end]
        pauses = [one.down_ms / 1e3 for one in epochs]
        found.append(
            Part(
                name,
                round(end - begin, 3),
                len(asked),
                len(latencies),
                quantile(latencies, 0.5),
                quantile(latencies, 0.99),
                max(latencies, default=None),
                max((wait for at, wait in waits if begin <= at < end), default=None),
                len(epochs),
                quantile(pauses, 0.5),
                max(pauses, default=None),
                quantile([float(one.pages) for one in epochs], 0.5),
                quantile([float(one.sent) for one in epochs], 0.5),
                max((one.held for one in run.looks if begin <= one.asked < end), default=0),
            )
        )
    return found


def as_data(run: Run) -> list[dict[str, object]]:
    """For report.json."""
    return [asdict(one) for one in parts(run)]


def seconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return "–"
    if value < 0.0995:
        return f"{value * 1e3:.1f} ms"
    return f"{value * 1e3:.0f} ms" if value < 0.9995 else f"{value:.1f} s"


def amount(value: float | None, unit: str = "") -> str:
    """A number for people, with binary prefixes where it is one of bytes."""
    if value is None:
        return "–"
    if unit != "B":
        return f"{value:,.0f}{unit}".replace(",", " ")
    for prefix in ("", "Ki", "Mi"):
        if value < 1024:
            return f"{value:.0f} {prefix}B"
        value /= 1024
    return f"{value:.1f} GiB"
