"""Raw figures of devices under fio to medians, spreads and ratios; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.disk_cells import CELLS, Cell
from bench.figures import FiguresError

BARE, BESIDE, LINEAR, PROTECTED = "bare", "bare-beside", "linear", "protected"
DRBD, DRBD_BESIDE = "drbd", "drbd-beside"
GUEST, GUEST_PROTECTED, TAP, TAP_HERE = "guest", "guest-protected", "tap-alone", "tap-here"
IN_GUEST = (GUEST, GUEST_PROTECTED)
TITLES = {
    BARE: "bare device",
    BESIDE: "bare device beside a protected guest",
    LINEAR: "mapper device, unprotected",
    PROTECTED: "mapper device, protected",
    DRBD: "DRBD 8.4, protocol C",
    DRBD_BESIDE: "DRBD 8.4, protocol C, beside a protected guest",
    GUEST: "in the guest, unprotected",
    GUEST_PROTECTED: "in the guest, protected",
    TAP: "the tap alone, below the kernel's nbd",
    TAP_HERE: "the tap alone, no kernel, on the bench's machine",
}
PAIRS = (
    (LINEAR, BARE),
    (PROTECTED, BARE),
    (PROTECTED, BESIDE),
    (DRBD, BARE),
    (PROTECTED, DRBD),
    (PROTECTED, DRBD_BESIDE),
    (GUEST_PROTECTED, GUEST),
    (GUEST_PROTECTED, DRBD),
    (PROTECTED, TAP),
)
"""What is divided by what. The write path alone is what is compared where both are beside a protected guest, whose checkpoints
take the processor from either."""
RUNNING = f"{GUEST_PROTECTED} / {GUEST} while it runs"
"""The same by the part of the time in which a protected guest runs at all: what the way to its disk costs, without what its
checkpoints do."""
READS_AT_LEAST = 0.9
"""Of the bare device's reads, in turns with them. Beside a guest that is protected as well: its checkpoints take the same
processor. In the guest while it runs: of what it reads unprotected."""
WRITES_AT_LEAST = 1 / 3
"""Of DRBD's writes; less is a defect."""


def _value(cell: Cell, found: Mapping[str, float]) -> float:
    return found["iops"] if cell.small else found["bytes_per_second"] / 1e6


def table(raws: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each target and cell the median over the rounds, with the lowest and the highest: requests a second of small ones,
    MB/s of large ones."""
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for raw in raws:
        for cell in CELLS:
            if cell.name in raw["cells"]:
                seen[raw["target"]][cell.name].append(_value(cell, raw["cells"][cell.name]))
    return {
        target: {name: {"median": median(few), "low": min(few), "high": max(few)} for name, few in cells.items()}
        for target, cells in seen.items()
    }


def ratios(raws: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Ratios of the pairs that were measured, each within one round, or within one turn of a round; median, lowest and highest
    over all of them."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    moments: dict[tuple[int, int | None], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for raw in raws:
        moments[raw["round"], raw.get("turn")][raw["target"]] = raw
    for one in moments.values():
        for ours, theirs in PAIRS:
            if ours not in one or theirs not in one:
                continue
            for cell in CELLS:
                if cell.name in one[ours]["cells"] and cell.name in one[theirs]["cells"]:
                    quotient = _value(cell, one[ours]["cells"][cell.name]) / _value(
                        cell, one[theirs]["cells"][cell.name]
                    )
                    found[f"{ours} / {theirs}"][cell.name].append(quotient)
                    if theirs == GUEST and "ran" in one[ours]:
                        found[RUNNING][cell.name].append(quotient / one[ours]["ran"])
    return {
        pair: {name: {"median": median(few), "low": min(few), "high": max(few)} for name, few in cells.items()}
        for pair, cells in found.items()
    }


def summary(raws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Table, ratios and verdicts; of a run that only read in turns, those of reads. Raises FiguresError when a side of a verdict
    was not measured."""
    quotients = ratios(raws)
    verdicts = []
    wanted = [(f"{LINEAR} / {BARE}", False, READS_AT_LEAST), (f"{PROTECTED} / {BESIDE}", False, READS_AT_LEAST)]
    if any(cell.name in raw["cells"] for raw in raws for cell in CELLS if cell.writes):
        wanted.append((f"{PROTECTED} / {DRBD}", True, WRITES_AT_LEAST))
    if RUNNING in quotients:
        wanted.append((RUNNING, False, READS_AT_LEAST))
    for pair, writes, least in wanted:
        for cell in CELLS:
            if cell.writes is not writes:
                continue
            if cell.name not in quotients.get(pair, {}):
                raise FiguresError(f"{cell.name} of {pair} was not measured in one round")
            ratio = quotients[pair][cell.name]["median"]
            verdicts.append(
                {"pair": pair, "cell": cell.name, "ratio": ratio, "at_least": least, "kept": ratio >= least}
            )
    held: dict[tuple[int, str, bool], bool] = defaultdict(lambda: True)
    for raw in raws:
        if raw["target"] in (PROTECTED, GUEST_PROTECTED):
            held[raw["round"], raw["target"], "turn" in raw] &= raw["session_held"]
    return {
        "rounds": len({raw["round"] for raw in raws}),
        "table": table(raws),
        "ratios": quotients,
        "verdicts": verdicts,
        "kept": all(verdict["kept"] for verdict in verdicts),
        "sessions_lost": list(held.values()).count(False),
        "protected_runs": len(held),
    }


def as_text(found: Mapping[str, Any]) -> str:
    """The summary for a person."""
    head = f"{'':52}" + "".join(f"{cell.name:>20}" for cell in CELLS)
    units = f"{'':52}" + "".join(f"{'requests/s' if cell.small else 'MB/s':>20}" for cell in CELLS)
    lines = [f"medians of {found['rounds']} rounds (lowest to highest)", "", head, units]
    for target, title in TITLES.items():
        if target in found["table"]:
            lines.append(f"{title:52}" + "".join(_shown(found["table"][target], cell, 1) for cell in CELLS))
    lines += ["", "ratios within a round, of reads within a turn", head]
    for pair in (*(f"{ours} / {theirs}" for ours, theirs in PAIRS), RUNNING):
        if pair in found["ratios"]:
            lines.append(f"{pair:52}" + "".join(_shown(found["ratios"][pair], cell, 2) for cell in CELLS))
    lines.append("")
    for verdict in found["verdicts"]:
        said = "kept" if verdict["kept"] else "MISSED"
        lines.append(
            f"{verdict['cell']} of {verdict['pair']}: {verdict['ratio']:.2f} (at least {verdict['at_least']:.2f}): {said}"
        )
    lines.append(f"sessions that ended under the load: {found['sessions_lost']} of {found['protected_runs']}")
    return "\n".join([*lines, ""])


def _shown(row: Mapping[str, Mapping[str, float]], cell: Cell, digits: int) -> str:
    if cell.name not in row:
        return f"{'-':>20}"
    one = row[cell.name]
    return f"{one['median']:.{digits}f} ({one['low']:.{digits}f}-{one['high']:.{digits}f})".rjust(20)
