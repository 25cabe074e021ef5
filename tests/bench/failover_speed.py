#!/usr/bin/env python3
"""How long a guest is away when its host loses power, phase by phase, and how long stock `xl remus` needs to activate a copy on
the same pair: in turn, in one run, under the same load.

    failover_speed.py [--rounds 3] [--results results/failovers-...]
    failover_speed.py --report FOLDER

Needs the lab (`make lab-up`, `playbooks/site.yml`). It brings a witness up and afterwards leaves the pair without one, the
lab's guest fresh on alpha. Raw figures, the environment and the clients' histories stay in the results folder. Exit code:
0 the budget is kept, 1 it is missed, 2 the figures do not suffice.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pair.protection import require_agents
from pair.stock_remus import COMMAND

from bench import failover_figures as names
from bench.environment import hosts, machine
from bench.failover_pair import CHECKPOINTS, FAILURES, Failovers, prepared
from bench.run import end_in_order, report, say

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="folder for raw figures (default: a new one under results/)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="only summarise what was measured before")
    options = parser.parse_args()
    if options.report:
        return report("failover_speed", options.report, names.summary, names.as_text)
    folder = options.results or ROOT / "results" / time.strftime("failovers-%Y%m%d-%H%M%S")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    end_in_order()
    try:
        require_agents()
        with prepared(folder, say) as pair:
            (folder / "environment.json").write_text(json.dumps(_environment(options.rounds), indent=2) + "\n")
            for number in range(1, options.rounds + 1):
                _round(pair, number, folder)
    except KeyboardInterrupt as error:
        say(f"interrupted: {error}")
    except FAILURES as error:
        say(f"no further rounds: {error}")
    # Of a run that did not come to its end as well: ratios are within a round.
    return report("failover_speed", folder, names.summary, names.as_text)


def _round(pair: Failovers, number: int, folder: Path) -> None:
    """One of each; every other round the other way round, so that what drifts favours nobody."""
    for kind in (names.OURS, names.STOCK) if number % 2 else (names.STOCK, names.OURS):
        raw = pair.measure(kind, number)
        (folder / f"raw-{number:02}-{kind}.json").write_text(json.dumps(raw, indent=2) + "\n")


def _environment(rounds: int) -> dict[str, Any]:
    return {**machine(), "rounds": rounds, "stock": COMMAND, "checkpoints": CHECKPOINTS, "hosts": hosts()}


if __name__ == "__main__":
    sys.exit(main())
