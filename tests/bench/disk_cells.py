"""What fio does on each device, and what is taken from its report; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import FiguresError


@dataclass(frozen=True, slots=True)
class Cell:
    """One pattern. kind: fio's `rw`; block: of one request; depth: requests under way at once. small: counted in requests
    a second and not in bytes."""

    name: str
    kind: str
    block: str
    depth: int

    @property
    def writes(self) -> bool:
        """Whether it changes the device."""
        return self.kind.endswith("write")

    @property
    def small(self) -> bool:
        """Whether it is told in requests a second."""
        return self.block == "4k"


CELLS = (
    Cell("read-seq", "read", "256k", 4),
    Cell("read-4k-16", "randread", "4k", 16),
    Cell("write-seq", "write", "256k", 4),
    Cell("write-4k-1", "randwrite", "4k", 1),
    Cell("write-4k-16", "randwrite", "4k", 16),
)
WRITES = tuple(cell for cell in CELLS if cell.writes)
READS = tuple(cell for cell in CELLS if not cell.writes)
RAMP = 1.0
"""Seconds of each pattern that do not count."""


def job_file(target: str, cells: Sequence[Cell], seconds: float, size_mib: int, engine: str = "libaio") -> str:
    """All cells one after the other in one run of fio. target: a device, or the URI of an nbd server."""
    where = f"uri={target}" if engine == "nbd" else f"filename={target}"
    return "\n".join(
        [*_global(seconds, size_mib, engine), where, *(line for cell in cells for line in _job(cell.name, cell)), ""]
    )


def turns_file(devices: Mapping[str, str], turns: int, seconds: float, size_mib: int) -> str:
    """Reads of several devices in turns, in one run of fio: of each cell every device once, then the other way round, and so on.
    What the machine does beside it, and what drifts, meets all of them alike. devices: by the name of a target."""
    lines = _global(seconds, size_mib, "libaio")
    for cell, turn, target in _turns(list(devices), turns):
        lines += [*_job(_turn_name(cell, turn, target), cell), f"filename={devices[target]}"]
    return "\n".join([*lines, ""])


def _turns(targets: Sequence[str], turns: int) -> Iterator[tuple[Cell, int, str]]:
    for cell in READS:
        for turn in range(1, turns + 1):
            for target in targets if turn % 2 else targets[::-1]:
                yield cell, turn, target


def _turn_name(cell: Cell, turn: int, target: str) -> str:
    return f"{cell.name}/{turn}/{target}"


def _global(seconds: float, size_mib: int, engine: str) -> list[str]:
    lines = ["[global]", f"ioengine={engine}", f"size={size_mib}m", "direct=1", "thread", "norandommap"]
    return [
        *lines,
        "time_based",
        f"runtime={seconds:g}",
        f"ramp_time={RAMP:g}",
        "clocksource=clock_gettime",
        "group_reporting",
    ]


def _job(name: str, cell: Cell) -> list[str]:
    return ["", f"[{name}]", "stonewall", f"rw={cell.kind}", f"bs={cell.block}", f"iodepth={cell.depth}"]


def figures(said: str, cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Of each cell: requests and bytes a second, and latencies in milliseconds. said: fio's JSON, with what its engines
    print in front of it. Raises FiguresError for a cell that is not there or has failed."""
    jobs = _jobs(said)
    return {cell.name: _of(jobs.get(cell.name), cell) for cell in cells}


def turn_figures(said: str, targets: Sequence[str], turns: int) -> dict[tuple[str, int], dict[str, dict[str, float]]]:
    """The same of a run of `turns_file`, by target and turn. Raises FiguresError as `figures` does."""
    jobs = _jobs(said)
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for cell, turn, target in _turns(targets, turns):
        found.setdefault((target, turn), {})[cell.name] = _of(jobs.get(_turn_name(cell, turn, target)), cell)
    return found


def _jobs(said: str) -> dict[str, dict[str, Any]]:
    start = said.find("{")
    try:
        return {job["jobname"]: job for job in json.loads(said[start:])["jobs"]} if start >= 0 else {}
    except (ValueError, KeyError) as error:
        raise FiguresError(f"fio's report cannot be read: {error}") from error


def _of(job: dict[str, Any] | None, cell: Cell) -> dict[str, float]:
    if job is None or job["error"]:
        raise FiguresError(f"{cell.name}: {'error ' + str(job['error']) if job else 'not in the report'}")
    side = job["write" if cell.writes else "read"]
    if not side["iops"]:
        raise FiguresError(f"{cell.name}: not a single request was completed")
    percentiles = side["clat_ns"].get("percentile", {})
    return {
        "iops": round(side["iops"], 2),
        "bytes_per_second": side["bw_bytes"],
        "mean_ms": round(side["clat_ns"]["mean"] / 1e6, 3),
        "p99_ms": round(percentiles.get("99.000000", 0) / 1e6, 3),
        "longest_ms": round(side["clat_ns"]["max"] / 1e6, 3),
    }
