"""What every benchmark does beside its measuring: it says how far it is, can be ended, and reports on its results folder."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.figures import FiguresError


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def end_in_order() -> None:
    """SIGTERM is a KeyboardInterrupt from now on: the lab is put back then, too."""
    signal.signal(signal.SIGTERM, _terminated)


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt("terminated")


def report(
    program: str,
    folder: Path,
    summary: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
    as_text: Callable[[dict[str, Any]], str],
) -> int:
    """Read the raw figures in a results folder (`raw-*.json`), write `summary.json` and `summary.txt` there and show it. The exit
    code: 0 all budgets kept, 1 one is missed, 2 the figures do not suffice."""
    raws = [json.loads(path.read_text()) for path in sorted(folder.glob("raw-*.json"))]
    try:
        found = summary(raws)
    except FiguresError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 2
    (folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    text = as_text(found)
    (folder / "summary.txt").write_text(text)
    sys.stdout.write(f"{text}raw figures: {folder}\n")
    return 0 if found["kept"] else 1
