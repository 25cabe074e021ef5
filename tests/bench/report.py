#!/usr/bin/env python3
"""Reads the raw figures in a results folder (`raw-*.json`) and writes `summary.json` and `summary.txt` there.

Exit code: 0 all budgets kept, 1 one is missed, 2 the figures do not suffice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.figures import FiguresError, as_text, summary


def main(arguments: list[str]) -> int:
    """Run from the command line."""
    folder = Path(arguments[0])
    raws = [json.loads(path.read_text()) for path in sorted(folder.glob("raw-*.json"))]
    try:
        found = summary(raws)
    except FiguresError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    (folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    text = as_text(found)
    (folder / "summary.txt").write_text(text)
    sys.stdout.write(text)
    return 0 if found["kept"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
