#!/usr/bin/env python3
"""How fast a guest's disk is, unprotected and protected, against the bare device and against DRBD's protocol C on the same
pair: fio in the guest, in dom0, and at the write tap alone, all in one run, alternating; reads of devices in short turns.

    disk_speed.py [--rounds 2] [--seconds 3] [--reads-only] [--turns 12]
                  [--read-ms 60] [--interval-ms 100] [--results results/disks-...]
    disk_speed.py --report FOLDER

Needs the lab (`make lab-up`, `playbooks/site.yml`) and, on this machine, fio and drbd-utils of Debian: they are carried to
the hosts. REMUS_FIO names another fio for them. All devices are loop devices with direct I/O over files of the same file
system, on which a read takes the time that a disk would need (dm-delay). Raw figures and the environment stay in the results
folder. Exit code: 0 the budgets are kept, 1 one is missed, 2 the figures do not suffice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pair.slow import BUSY

from bench import disk_figures as names
from bench.disk_cells import CELLS, READS
from bench.disk_pair import FIO, READ_MS, Pair, prepared
from bench.environment import hosts, machine
from bench.run import end_in_order, report, say

ROOT = Path(__file__).resolve().parent.parent.parent
BEFORE = (names.TAP_HERE, names.BARE, names.DRBD, names.TAP, names.LINEAR, names.GUEST)
WHILE = (names.PROTECTED, names.DRBD_BESIDE, names.GUEST_PROTECTED)
"""Targets that are measured without protection, and with."""
READ_BEFORE = (names.BARE, names.LINEAR, names.DRBD)
READ_WHILE = (names.BESIDE, names.PROTECTED)
"""Devices whose reads are measured in turns: first, since writes are still under way to the other host when they are answered."""
TURNS = 12


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each pattern on each device (default: 3)")
    parser.add_argument("--reads-only", action="store_true", help="only what devices read, in turns, and the guest")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"in which devices are read (default: {TURNS})")
    parser.add_argument(
        "--read-ms",
        type=_read_ms,
        default=READ_MS,
        metavar="MS",
        help=f"what a read takes on every device (default: {READ_MS}); 0: nothing but the processor's time",
    )
    parser.add_argument(
        "--interval-ms",
        type=int,
        metavar="MS",
        help="how long the guest runs between checkpoints (default: the agent's)",
    )
    parser.add_argument("--results", type=Path, help="folder for raw figures (default: a new one under results/)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="only summarise what was measured before")
    options = parser.parse_args()
    if options.report:
        return report("disk_speed", options.report, names.summary, names.as_text)
    folder = options.results or ROOT / "results" / time.strftime("disks-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    end_in_order()
    (folder / "environment.json").write_text(json.dumps(_environment(options), indent=2) + "\n")
    preparing = prepared(options.seconds, options.turns, options.read_ms, options.interval_ms, say)
    with contextlib.suppress(KeyboardInterrupt), preparing as pair:
        for number in range(1, options.rounds + 1):
            _round(pair, number, folder, reads_only=options.reads_only)
    # Of an interrupted run as well: ratios are within a round.
    return report("disk_speed", folder, names.summary, names.as_text)


def _read_ms(value: str) -> int:
    if 0 < int(value) <= BUSY:
        raise argparse.ArgumentTypeError(f"must be 0 or above {BUSY}: up to that the kernel would wait by spinning")
    return int(value)


def _round(pair: Pair, number: int, folder: Path, *, reads_only: bool) -> None:
    """One of everything; writes every other round the other way round, so that what drifts favours nobody."""
    for read, written, protected in ((READ_BEFORE, BEFORE, False), (READ_WHILE, WHILE, True)):
        if protected:
            pair.protect()
        for raw in pair.reads(read, number):
            _keep(raw, folder / f"raw-{number:02}-{raw['turn']}-{raw['target']}.json")
        others = [target for target in written if not reads_only or target in names.IN_GUEST]
        for target in others if number % 2 else others[::-1]:
            raw = pair.measure(target, number, in_guest=READS if reads_only else CELLS)
            _keep(raw, folder / f"raw-{number:02}-{target}.json")
    pair.unprotect()


def _keep(raw: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(raw, indent=2) + "\n")


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    fio = subprocess.run([FIO, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        **machine(),
        "fio": fio,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "turns": options.turns,
        "read_ms": options.read_ms,
        "interval_ms": options.interval_ms,
        "cells": [f"{cell.name}: {cell.kind}, {cell.block}, depth {cell.depth}" for cell in CELLS],
        "hosts": hosts(drbd="modinfo -F version drbd"),
    }


if __name__ == "__main__":
    sys.exit(main())
