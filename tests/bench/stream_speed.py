#!/usr/bin/env python3
"""How fast `remusctl stream` goes through a saved domain, against `cat` and memcpy, all on one core in one run.

    stream_speed.py [FILE] [--mib 1024] [--runs 5] [--results results/stream-speed]

Without FILE it makes a stream with checkpoints in /dev/shm (in /tmp where that is too small) and removes it afterwards.
The commands take turns; medians count. Speeds are bytes by processor seconds (user and system), so that other load on
the machine does not count; `net` ones leave out what starting the command costs (`start alone`). Raw figures and the
environment stay in the results folder. Exit code: 0 the budgets are kept, 1 one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
REMUSCTL = (sys.executable, "-m", "remus_agent.cli.main", "stream")
MIB = 1 << 20
SHARE_OF_MEMCPY = 1 / 5
"""Of memcpy's speed that verify and convert must reach."""
MEMORY_LIMIT = 64 * MIB
"""Peak resident memory that a command may reach, beyond the page buffers in flight."""
BUFFERS = 3 * 4 * MIB
"""A PAGE_DATA record of 1024 pages as it is read, the one before, and zeros of its size."""

MEMCPY = """
import sys, time, numpy as np
size, block = int(sys.argv[1]), 64 << 20
a = np.ones(block, np.uint8); b = np.empty_like(a); np.copyto(b, a)
start = time.process_time(); done = 0
while done < size:
    np.copyto(b[: size - done], a[: size - done]); done += block
print(time.process_time() - start)
"""
MAKE = """
import sys
import numpy as np
from remus_agent.protocol.stream import writer
sys.path.insert(0, "tests")
from streams import builder
path, pages = sys.argv[1], int(sys.argv[2]) << 8
block = np.random.default_rng(1).integers(1, 1 << 63, size=1024 * 512, dtype=np.uint64)
first = pages * 7 // 8 >> 10 << 10
with open(path, "wb") as out:
    out.write(builder.preamble())
    for start in range(0, pages, 1024):
        block[:: 512] = np.arange(start, start + 1024)
        pfns = np.arange(start, start + 1024, dtype=np.uint64) % np.uint64(first)
        out.writelines(buffer for part in writer.page_data(pfns, memoryview(block)) for buffer in part)
        if start + 1024 >= first and (start // 1024) % 8 == 7:
            out.write(builder.Epoch(zeros=range(64)).raw)
    out.write(builder.Epoch().raw)
"""


def main() -> int:
    """Run from the command line."""
    options = _arguments()
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    folder = options.results or ROOT / "results" / time.strftime("stream-speed-%Y%m%d-%H%M%S")
    with tempfile.TemporaryDirectory(dir=_room(options.mib * MIB * 2 + 256 * MIB), prefix="stream-speed-") as scratch:
        stream = options.file or _made(Path(scratch) / "stream", options.mib)
        runs = _measure(stream, Path(scratch) / "written", options.runs)
    found = _summary(runs, stream.name if options.file else "made", options.runs)
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"environment": _environment(), "runs": runs} | found
    (folder / "stream-speed.json").write_text(json.dumps(raw, indent=2) + "\n")
    text = _text(found)
    (folder / "stream-speed.txt").write_text(text)
    sys.stdout.write(f"{text}raw figures: {folder}\n")
    return 0 if found["kept"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "file", nargs="?", type=lambda name: Path(name).resolve(), help="stream to read (default: make one)"
    )
    parser.add_argument("--mib", type=int, default=1024, help="size of the stream that is made (default: 1024)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default: 5)")
    parser.add_argument("--results", type=Path, help="folder for raw figures (default: a new one under results/)")
    return parser.parse_args()


def _room(needed: int) -> str:
    for folder in ("/dev/shm", tempfile.gettempdir()):  # noqa: S108
        if Path(folder).is_dir() and shutil.disk_usage(folder).free > needed:
            return folder
    raise SystemExit(f"stream_speed: neither /dev/shm nor {tempfile.gettempdir()} has {needed // MIB} MiB free")


def _made(path: Path, mib: int) -> Path:
    print(f"making a stream of {mib} MiB in {path.parent}", file=sys.stderr)
    subprocess.run([sys.executable, "-c", MAKE, str(path), str(mib)], check=True)
    return path


def _measure(stream: Path, target: Path, rounds: int) -> list[dict[str, Any]]:
    """All commands in turn, `rounds` times. Bytes are those of the stream."""
    size = stream.stat().st_size
    name, null = str(stream), Path(os.devnull)
    commands: list[tuple[str, tuple[str, ...], Path]] = [
        ("memcpy", (sys.executable, "-c", MEMCPY, str(size)), target),
        ("cat to /dev/null", ("cat", name), null),
        ("cat to a file", ("cat", name), target),
        ("verify", (*REMUSCTL, "verify", name), null),
        ("inspect", (*REMUSCTL, "inspect", name), null),
        ("convert to /dev/null", (*REMUSCTL, "convert", name, "-"), null),
        ("convert to a file", (*REMUSCTL, "convert", name, str(target)), null),
        ("diff with itself", (*REMUSCTL, "diff", name, name), null),
        ("start alone", (*REMUSCTL, "verify", os.devnull), null),
    ]
    runs = []
    for number in range(rounds):
        for what, command, output in commands:
            run = {"what": what, "round": number, "bytes": size} | _run(command, output)
            if what == "memcpy":
                run["cpu_seconds"] = float(target.read_text())
            target.unlink(missing_ok=True)
            runs.append(run)
            print(
                f"round {number + 1}: {what} {run['seconds']:.3f} s, processor {run['cpu_seconds']:.3f} s",
                file=sys.stderr,
            )
    return runs


def _run(command: tuple[str, ...], output: Path) -> dict[str, Any]:
    with output.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "command": [Path(command[0]).name, *(() if "-c" in command else command[1:])],  # figures travel, paths do not
        "exit": process.returncode,
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
    }


def _summary(runs: list[dict[str, Any]], stream: str, rounds: int) -> dict[str, Any]:
    def median(what: str, key: str) -> float:
        middle: float = statistics.median(run[key] for run in runs if run["what"] == what)
        return middle

    size = runs[0]["bytes"]
    memcpy = median("memcpy", "cpu_seconds")
    start = median("start alone", "cpu_seconds")
    lines = []
    for what in dict.fromkeys(run["what"] for run in runs):
        ours = not what.startswith(("memcpy", "cat", "start"))
        passes = 2 if what.startswith("diff") else 1
        cpu = median(what, "cpu_seconds")
        net = cpu - start if ours else cpu
        cat = median("cat to a file" if what.endswith("file") else "cat to /dev/null", "cpu_seconds")
        lines.append(
            {
                "what": what,
                "seconds": median(what, "seconds"),
                "cpu_seconds": cpu,
                "net_gb_per_s": passes * size / net / 1e9,
                "of_memcpy": passes * memcpy / cpu,
                "net_of_memcpy": passes * memcpy / net,
                "net_of_cat": passes * cat / net,
                "peak_mib": max(run["peak_bytes"] for run in runs if run["what"] == what) / MIB,
            }
        )
    by_name = {line["what"]: line for line in lines}
    budgets = [
        {"name": f"{what}: net share of memcpy", "value": by_name[what]["net_of_memcpy"], "at_least": SHARE_OF_MEMCPY}
        for what in ("verify", "convert to /dev/null")
    ]
    peaks = [line["peak_mib"] for line in lines if not line["what"].startswith(("memcpy", "cat", "diff"))]
    budgets.append({"name": "peak MiB", "value": max(peaks), "at_most": (MEMORY_LIMIT + BUFFERS) / MIB})
    kept = all(one["value"] >= one.get("at_least", 0) and one["value"] <= one.get("at_most", 1e9) for one in budgets)
    return {"stream": stream, "bytes": size, "rounds": rounds, "figures": lines, "budgets": budgets, "kept": kept}


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"stream: {found['stream']}, {found['bytes'] / MIB:.0f} MiB; medians of {found['rounds']} runs on one core",
        f"{'':<22} {'wall s':>7} {'cpu s':>7} {'net GB/s':>9} {'memcpy':>7} {'net':>5} {'cat, net':>9} {'peak MiB':>9}",
    ]
    for one in found["figures"]:
        shown = f"{one['what']:<22} {one['seconds']:>7.3f} {one['cpu_seconds']:>7.3f}"
        if one["what"] != "start alone":
            shown += f" {one['net_gb_per_s']:>9.2f} {one['of_memcpy']:>7.2f} {one['net_of_memcpy']:>5.2f}"
            shown += f" {one['net_of_cat']:>9.2f} {one['peak_mib']:>9.1f}"
        lines.append(shown)
    for one in found["budgets"]:
        limit = f"at least {one['at_least']:.2f}" if "at_least" in one else f"at most {one['at_most']:.0f}"
        lines.append(f"budget: {one['name']} {one['value']:.2f}, {limit}")
    return "\n".join([*lines, "all budgets kept" if found["kept"] else "A BUDGET IS MISSED", ""])


def _environment() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit,
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "xxhash")},
        "own_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    sys.exit(main())
