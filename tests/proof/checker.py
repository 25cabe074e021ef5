#!/usr/bin/env python3
"""Judges a client's history against what the guest holds afterwards. What counts as what: the package's
docstring.

    labctl exec -- python3 tests/proof/checker.py results/history.jsonl --guest 10.77.0.100:6379 --report
    results/proof.json

With --guest the final state is read from the guest's Redis now, with --database from its PostgreSQL, which
pg_amcheck must then find whole; without either, the state that the client read at its end is taken. Exit
code: 0 everything kept, 1 the proof is red, 2 the history cannot be judged (unreadable, nothing
acknowledged, no final state, pg_amcheck did not come to an end).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proof import rows
from proof.amcheck import NoAmcheck, amcheck
from proof.client import endpoint
from proof.history import JOURNAL, Final, History, HistoryError, read
from proof.state import StateError, fetch_final

SHOWN = 20
"""At most so many findings of a kind are spelt out; all are counted."""


@dataclass(slots=True)
class Findings:
    """Findings of one kind: a count of requests, and the first few in words."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, count: int, text: str) -> None:
        """COUNT more requests, described by TEXT."""
        self.count += count
        if len(self.examples) < SHOWN:
            self.examples.append(text)


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without a reply: seconds, when it began (seconds after the start; seconds since the
    epoch)."""

    seconds: float
    after: float
    wall: float


@dataclass(slots=True)
class Report:
    """The judgement. reasons: why it is red, or why it could not be judged; empty when everything was
    kept."""

    verdict: str = "kept"
    reasons: list[str] = field(default_factory=list)
    run: str = ""
    batches: int = 0
    acknowledged: int = 0
    outstanding: int = 0
    seconds: float = 0.0
    lost: Findings = field(default_factory=Findings)
    duplicated: Findings = field(default_factory=Findings)
    foreign: Findings = field(default_factory=Findings)
    refused: Findings = field(default_factory=Findings)
    damaged: Findings = field(default_factory=Findings)
    amcheck: str = "not run"
    connection: str = "kept"
    longest_gap: Gap | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    marks: dict[str, dict[str, int]] = field(default_factory=dict)
    final_via: str | None = None

    @property
    def exit_code(self) -> int:
        """What the checker ends with."""
        return {"kept": 0, "red": 1}.get(self.verdict, 2)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return asdict(self)


def _replies(history: History, report: Report) -> dict[str, int]:
    """Judge each reply against the one before it in its series; the last value of each series."""
    last: dict[str, int] = {}
    for ack in history.acks:
        before = last.get(ack.series, 0)
        where = f"{ack.series}: {ack.value} after {before} (batch {ack.batch})"
        if ack.value <= before:
            report.lost.add(before - ack.value + 1, f"{where}, it went back")
        elif ack.value > before + 1:
            report.duplicated.add(ack.value - before - 1, f"{where}, it jumped")
        last[ack.series] = ack.value
    return last


def _outstanding(history: History) -> Counter[str]:
    """Requests without a reply, by operation."""
    answered = {(ack.batch, ack.index) for ack in history.acks}
    return Counter(
        op
        for batch in history.batches.values()
        for index, op in enumerate(batch.ops)
        if (batch.number, index) not in answered
    )


def _counters(history: History, final: Final, last: dict[str, int], report: Report) -> None:
    open_ops = _outstanding(history)
    for number in range(history.counters):
        name = f"c{number}"
        value, acknowledged, more = final.counters.get(name, 0), last.get(name, 0), open_ops[name]
        if value < acknowledged:
            gone = f"{name}: {acknowledged} was acknowledged, the guest holds {value}"
            report.lost.add(acknowledged - value, gone)
        elif value > acknowledged + more:
            report.duplicated.add(
                value - acknowledged - more,
                f"{name}: {acknowledged} was acknowledged and {more} outstanding, the guest holds {value}",
            )


def _journal(history: History, final: Final, report: Report) -> None:
    acknowledged = {int(ack.op[1:]) for ack in history.acks if ack.series == JOURNAL}
    sent = {int(op[1:]) for batch in history.batches.values() for op in batch.ops if op.startswith("j")}
    held = Counter(final.journal)
    for entry in sorted(acknowledged - held.keys()):
        report.lost.add(1, f"list: entry {entry} was acknowledged and is missing")
    for entry, times in sorted(held.items()):
        if times > 1:
            report.duplicated.add(times - 1, f"list: entry {entry} is there {times} times")
        if entry not in sent:
            report.foreign.add(times, f"list: entry {entry} was never sent")


def _percentile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))]


def _timing(history: History, report: Report) -> None:
    moments = [history.started_mono, *(ack.mono for ack in history.acks)]
    walls = [history.started_wall, *(ack.wall for ack in history.acks)]
    report.seconds = round(moments[-1] - moments[0], 3)
    length, index = max((after - before, index) for index, (before, after) in enumerate(pairwise(moments)))
    report.longest_gap = Gap(round(length, 3), round(moments[index] - moments[0], 3), walls[index])
    latencies = sorted((ack.mono - history.batches[ack.batch].mono) * 1000 for ack in history.acks)
    parts = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    report.latency_ms = {name: round(_percentile(latencies, part), 2) for name, part in parts.items()}


def _marks(history: History, marks: dict[str, float], report: Report) -> None:
    """Replies before each mark, and replies to batches that were sent after it."""
    for name, wall in marks.items():
        before = sum(ack.wall < wall for ack in history.acks)
        after = sum(history.batches[ack.batch].wall > wall for ack in history.acks)
        report.marks[name] = {"acknowledged_before": before, "sent_and_acknowledged_after": after}
        if not before or not after:
            report.reasons.append(f"no load around {name!r}: {before} replies before, {after} after")


def check(
    history: History,
    final: Final | None = None,
    marks: dict[str, float] | None = None,
    damage: list[str] | None = None,
) -> Report:
    """The judgement on HISTORY. final: what the guest holds now, else what the client read at its end.
    marks: moments (seconds since the epoch) around which there must have been load, or the proof proves
    nothing. damage: what pg_amcheck found; None when it was not asked."""
    report = Report(run=history.run, batches=len(history.batches), acknowledged=len(history.acks))
    if damage is not None:
        report.amcheck = "damaged" if damage else "clean"
        for text in damage:
            report.damaged.add(1, text)
    final = final or history.final
    if not history.acks or final is None:
        missing = "nothing was acknowledged" if not history.acks else "there is no final state"
        report.verdict, report.reasons = "unjudged", [missing, *history.broken]
        report.connection = "broken" if history.broken else "kept"
        return report
    report.final_via = final.via
    report.outstanding = sum(_outstanding(history).values())
    last = _replies(history, report)
    if final.run != history.run:
        report.foreign.add(1, f"the guest holds data of run {final.run}, not of {history.run}")
    _counters(history, final, last, report)
    _journal(history, final, report)
    for text in history.refused:
        report.refused.add(1, text)
    _timing(history, report)
    _marks(history, marks or {}, report)
    if history.broken or history.unfinished:
        report.connection = "broken" if history.broken else "stalled"
        why = history.broken[0] if history.broken else "outstanding replies missed the grace time"
        report.reasons.append(f"the connection did not survive: {why}")
    for name, findings in (
        ("acknowledged and lost", report.lost),
        ("carried out twice", report.duplicated),
        ("not from this client", report.foreign),
        ("refused by the guest", report.refused),
        ("lines of damage found by pg_amcheck", report.damaged),
    ):
        if findings.count:
            report.reasons.append(f"{findings.count} {name}, first: {findings.examples[0]}")
    report.verdict = "red" if report.reasons else "kept"
    return report


def as_text(report: Report) -> str:
    """The report for a person."""
    lines = [
        f"replies acknowledged   {report.acknowledged} in {report.batches} batches, {report.seconds:.1f} s",
        f"acknowledged but lost  {report.lost.count}",
        f"carried out twice      {report.duplicated.count}",
        f"outstanding at the end {report.outstanding}",
        f"TCP connection         {report.connection}",
    ]
    if report.amcheck != "not run":
        lines.append(f"pg_amcheck             {report.amcheck}")
    if report.longest_gap:
        gap = report.longest_gap
        clock = datetime.fromtimestamp(gap.wall, UTC).strftime("%H:%M:%S")
        lines.append(f"longest gap            {gap.seconds:.2f} s, from {gap.after:.1f} s on ({clock} UTC)")
    if report.latency_ms:
        parts = "  ".join(f"{name} {value:.1f}" for name, value in report.latency_ms.items())
        lines.append(f"reply latency, ms      {parts}")
    for name, mark in report.marks.items():
        lines.append(
            f"around {name!r}: {mark['acknowledged_before']} replies before, "
            f"{mark['sent_and_acknowledged_after']} to requests sent after"
        )
    for findings in (report.lost, report.duplicated, report.foreign, report.refused, report.damaged):
        lines += [f"  {text}" for text in findings.examples]
        if findings.count > len(findings.examples) >= SHOWN:
            lines.append("  ...")
    words = {
        "kept": "KEPT: all acknowledged replies are true, nothing happened twice, the connection lived on",
        "red": "RED: " + "; ".join(report.reasons),
    }
    lines.append(words.get(report.verdict, "NOT JUDGED: " + "; ".join(report.reasons)))
    return "\n".join(lines)


def _mark(text: str) -> tuple[str, float]:
    name, _, wall = text.partition("=")
    try:
        return name, float(wall)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SECONDS") from error


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Judge what the proof's client wrote down.")
    parser.add_argument("history", type=Path)
    now = parser.add_mutually_exclusive_group()
    now.add_argument("--guest", type=endpoint, metavar="HOST:PORT", help="read the final state from this Redis, now")
    now.add_argument(
        "--database",
        type=endpoint,
        metavar="HOST:PORT",
        help="read it from this PostgreSQL, and let pg_amcheck look at it",
    )
    parser.add_argument("--final-timeout", type=float, default=300)
    parser.add_argument("--mark", type=_mark, action="append", default=[], metavar="NAME=SECONDS")
    parser.add_argument("--report", type=Path, help="write the report here as JSON")
    options = parser.parse_args(arguments)
    try:
        with options.history.open(encoding="utf-8") as file:
            history = read(file)
        final, damage = None, None
        if options.guest:
            final = fetch_final(options.guest, history.run, history.counters, options.final_timeout)
        if options.database:
            final = rows.fetch_final(options.database, history.run, options.final_timeout)
            damage = amcheck(options.database)
    except (OSError, HistoryError, StateError, NoAmcheck) as error:
        sys.stderr.write(f"proof checker: {error}\n")
        return 2
    report = check(history, final, dict(options.mark), damage)
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    sys.stdout.write(as_text(report) + "\n")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
