"""What was seen of failovers to phases, ratios and verdicts; pure.

All times are put on this machine's monotonic clock. Of ours, by the new host's events:

    detect     from the loss of power until the backup suspects it
    witness    until the record names the new owner
    activate   until the guest was unpaused
    announce   until bridge and switches were told where it is, or it answered before that
    rest       until its first answer on the wire: its own drivers have connected, the question came through

What is judged is like against like (ADR 0011): from the death of the host to the first answer, less the time of detection, to
the time from the end of stock's stream to the first answer. Detection counts as what is configured, or what it took where that
was less. Beside it stands the ratio to the time until stock's guest is unpaused, which decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean, median
from typing import Any

from bench.figures import FiguresError

OURS, STOCK = "remus", "stock"
NEW_OWNER = "beta"
AT_MOST = 1.0
"""Ours less the detection, to stock, both until the first answer."""
SETTLED = 0.5
"""Seconds after a host's death in which frames that it has sent may still be read by a client."""
STEP = 0.25
"""Seconds by which the new host's clock may have moved against this machine's during one failover."""
FAILED_OVER = "Remus Failover for domain"
"""What stock's xl says when it has built the guest and is about to unpause it (Xen: tools/xl/xl_migrate.c)."""
PHASES = ("detect", "witness", "activate", "announce", "rest")
OUR_ROWS = {
    "detect": "detect",
    "witness": "witness",
    "activate": "activate",
    "announce": "announce",
    "rest": "rest",
    "total": "host's death to first answer",
    "after_detection": "the same less the detection",
    "client": "host's death to the client's first reply",
    "silent": "silence when suspected",
    "detect_configured": "silence configured (detect)",
}
STOCK_ROWS = {
    "built": "stream's end to guest built",
    "activate": "stream's end to guest unpaused",
    "rest": "unpaused to first answer",
    "total": "stream's end to first answer",
    "client": "stream's end to the client's first reply",
}
_EVENTS = ("suspect", "ownership", "active")


@dataclass(frozen=True, slots=True)
class Clock:
    """The new host's time of day. ahead: what it is more than this machine's monotonic clock. doubt: of that; both in seconds."""

    ahead: float
    doubt: float

    def here(self, wall: float) -> float:
        """A moment of the new host on this machine's monotonic clock."""
        return wall - self.ahead


def clock(seen: Sequence[Mapping[str, float]]) -> Clock:
    """From what was seen before and after. Raises FiguresError when it was set in between."""
    if len(seen) != 2:
        raise FiguresError("the clocks were not compared before and after")
    aheads = [one["ahead"] for one in seen]
    doubt = max(one["doubt"] for one in seen)
    moved = abs(aheads[1] - aheads[0])
    if moved > STEP + 2 * doubt:
        raise FiguresError(f"the new host's clock moved by {moved:.3f} s against this machine's")
    return Clock(mean(aheads), doubt + moved / 2)


def _moments(events: Iterable[Mapping[str, Any]], at: Clock) -> dict[str, float]:
    """When the first event of each kind was; of changes of the record the one to the new owner."""
    found: dict[str, float] = {}
    for event in events:
        kind = event["event"]
        if kind == "ownership" and event["detail"].get("owner") != NEW_OWNER:
            continue
        if "suspect" in found or kind == "suspect":  # what came before belongs to an earlier life
            found.setdefault(kind, at.here(datetime.fromisoformat(event["time"]).timestamp()))
    missing = [kind for kind in _EVENTS if kind not in found]
    if missing:
        raise FiguresError(f"the new host has no event {', '.join(missing)}")
    return found


def _answer(raw: Mapping[str, Any]) -> float:
    """When the guest answered first from its new host."""
    answers = [mono for mono, _, sequence in raw["frames"] if sequence is not None and mono > raw["killed"]]
    if not answers:
        raise FiguresError("the guest did not answer from its new host")
    return float(min(answers))


def _since(start: float, moment: float | None) -> float | None:
    return None if moment is None else moment - start


def ours(raw: Mapping[str, Any]) -> dict[str, float | None]:
    """Phases and sums of one failover of ours, in seconds. Raises FiguresError."""
    at, killed, answer = clock(raw["clock"]), raw["killed"], _answer(raw)
    seen = _moments(raw["events"], at)
    suspicion = next(event for event in raw["events"] if event["event"] == "suspect")
    announced = min(seen.get("announced", answer), answer)
    steps = [killed, seen["suspect"], seen["ownership"], seen["active"], max(announced, seen["active"]), answer]
    phases = {name: after - before for name, before, after in zip(PHASES, steps[:-1], steps[1:], strict=True)}
    early = [name for name, took in phases.items() if took < -2 * at.doubt - 0.01]
    if early:
        raise FiguresError(f"{early[0]} ends {-phases[early[0]]:.3f} s before it begins")
    configured = float(raw["configured"]["detect"])
    return {
        **phases,
        "total": answer - killed,
        "after_detection": answer - killed - min(configured, phases["detect"]),
        "client": _since(killed, raw["client"]["first"]),
        "silent": float(suspicion["detail"]["silent_for"]),
        "detect_configured": configured,
        "doubt": at.doubt,
    }


def stock(raw: Mapping[str, Any]) -> dict[str, float | None]:
    """The same of one failover of stock's, from the end of its stream on. Raises FiguresError."""
    at, receiver, answer = clock(raw["clock"]), raw["receiver"], _answer(raw)
    said = "\n".join(text for _, text in receiver["lines"])
    built = [wall for wall, text in receiver["lines"] if FAILED_OVER in text]
    if receiver["status"] != 0 or not built:
        raise FiguresError(f"stock did not fail over, status {receiver['status']}: {said[-2000:]}")
    if receiver["by"] != "signal":
        raise FiguresError("stock's stream ended before it was broken: its primary was not dead")
    broken, ended = receiver["broken"], receiver["ended"]
    start = at.here(broken)
    return {
        "built": built[0] - broken,
        "activate": ended - broken,
        "rest": answer - at.here(ended),
        "total": answer - start,
        "client": _since(start, raw["client"]["first"]),
        "doubt": at.doubt,
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    few = list(values)
    return {"median": median(few), "low": min(few), "high": max(few)}


def _rows(runs: Sequence[Mapping[str, float | None]], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Each figure over all runs in which there is one."""
    found = {name: [value for run in runs if (value := run[name]) is not None] for name in names}
    return {name: _spread(values) for name, values in found.items() if values}


def summary(raws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tables, ratios within a round, verdicts. Raises FiguresError when there is no round with both kinds."""
    runs: dict[str, dict[int, dict[str, float | None]]] = {OURS: {}, STOCK: {}}
    left_out: list[dict[str, Any]] = []
    lost: list[str] = []
    for raw in raws:
        if raw.get("kind") not in runs or "round" not in raw:
            raise FiguresError("these are raw figures of something else")
        kind, number = raw["kind"], raw["round"]
        try:
            if "failed" in raw:
                raise FiguresError(f"it did not come to an end: {raw['failed']}")
            runs[kind][number] = ours(raw) if kind == OURS else stock(raw)
        except FiguresError as error:
            left_out.append({"round": number, "kind": kind, "reason": str(error)})
        if kind == OURS and ("failed" in raw or raw["proof"]["verdict"] != "kept"):
            lost.append(f"round {number}: {raw['failed'] if 'failed' in raw else '; '.join(raw['proof']['reasons'])}")
    both = sorted(runs[OURS].keys() & runs[STOCK].keys())
    if not both:
        said = "".join(f"\n  round {one['round']}, {one['kind']}: {one['reason']}" for one in left_out)
        raise FiguresError(f"no round has figures of both kinds{said}")
    return {
        "rounds": len(both),
        "ours": _rows(list(runs[OURS].values()), OUR_ROWS),
        "stock": _rows(list(runs[STOCK].values()), STOCK_ROWS),
        "doubt": max(run["doubt"] or 0.0 for found in runs.values() for run in found.values()),
        "left_out": left_out,
        **_judged(runs, both, lost),
    }


def _judged(
    runs: Mapping[str, Mapping[int, Mapping[str, float | None]]], both: Sequence[int], lost: Sequence[str]
) -> dict[str, Any]:
    def ratio(theirs: str) -> dict[str, float]:
        pairs = [(runs[OURS][number]["after_detection"], runs[STOCK][number][theirs]) for number in both]
        return _spread(mine / other for mine, other in pairs if mine is not None and other)

    alike = ratio("total")
    return {
        "ratio": {**alike, "at_most": AT_MOST, "kept": alike["median"] <= AT_MOST},
        "to_unpaused": ratio("activate"),
        "lost": list(lost),
        "kept": alike["median"] <= AT_MOST and not lost,
    }


def as_text(found: Mapping[str, Any]) -> str:
    """The summary for a person."""
    lines = [f"seconds, medians of {found['rounds']} rounds (lowest to highest)", "", "ours, by its own takeover"]
    lines += [_line(title, found["ours"].get(name)) for name, title in OUR_ROWS.items()]
    lines += ["", "stock: xl remus without network buffering to xl migrate-receive -r"]
    lines += [_line(title, found["stock"].get(name)) for name, title in STOCK_ROWS.items()]
    ratio = found["ratio"]
    lines += [
        "",
        f"ours less the detection / stock, both to the first answer: {_shown(ratio)}"
        f" (at most {ratio['at_most']:.2f}): {'kept' if ratio['kept'] else 'MISSED'}",
        f"the same with stock until its guest is unpaused: {_shown(found['to_unpaused'])}",
        f"doubt about the clocks: {found['doubt']:.3f} s",
    ]
    lines += [f"a failover of ours that is none: MISSED: {reason}" for reason in found["lost"]]
    lines += [f"left out: round {one['round']}, {one['kind']}: {one['reason']}" for one in found["left_out"]]
    return "\n".join([*lines, ""])


def _shown(one: Mapping[str, float]) -> str:
    return f"{one['median']:.2f} ({one['low']:.2f}-{one['high']:.2f})"


def _line(title: str, row: Mapping[str, float] | None) -> str:
    return f"  {title:42}{'-' if row is None else _shown(row):>22}"
