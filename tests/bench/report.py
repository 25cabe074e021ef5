#!/usr/bin/env python3
"""Reads the raw figures in a results folder (`raw-*.json`) and writes `summary.json` and `summary.txt` there.

Exit code: 0 all budgets kept, 1 one is missed, 2 the figures do not suffice.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.figures import as_text, summary
from bench.run import report


def main(arguments: list[str]) -> int:
    """Run from the command line."""
    return report("bench", Path(arguments[0]), summary, as_text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
