"""What fio does on each device, and what is taken from its report; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def job_file(target: str, cells: Sequence[Cell], seconds: float, size_mib: int, engine: str = "libaio") -> str:
    """All cells one after the other in one run of fio. target: a device, or the URI of an nbd server."""
    where = f"uri={target}" if engine == "nbd" else f"filename={target}"
    lines = ["[global]", f"ioengine={engine}", where, f"size={size_mib}m", "direct=1", "thread", "norandommap"]
    lines += ["time_based", f"runtime={seconds:g}", "ramp_time=1", "clocksource=clock_gettime", "group_reporting"]
    for cell in cells:
        lines += ["", f"[{cell.name}]", "stonewall", f"rw={cell.kind}", f"bs={cell.block}", f"iodepth={cell.depth}"]
    return "\n".join([*lines, ""])


def figures(said: str, cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Of each cell: requests and bytes a second, and latencies in milliseconds. said: fio's JSON, with what its engines
    print in front of it. Raises FiguresError for a cell that is not there or has failed."""
    start = said.find("{")
    try:
        jobs = {job["jobname"]: job for job in json.loads(said[start:])["jobs"]} if start >= 0 else {}
    except (ValueError, KeyError) as error:
        raise FiguresError(f"fio's report cannot be read: {error}") from error
    return {cell.name: _of(jobs.get(cell.name), cell) for cell in cells}


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
