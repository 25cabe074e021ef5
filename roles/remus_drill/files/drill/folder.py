"""The folder of one drill: who writes what there.

plan.json          the playbook, before anything begins
phases.jsonl       the playbook, when a phase begins
looks-HOST.jsonl   watch
client.jsonl       the client
stop               whoever wants both of them to end
final.json         the playbook, what it found at the end
report.html, report.json, junit.xml
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PHASES = ("before", "breaking", "broken", "mending", "mended", "end")
"""broken: the fault has begun. mended: it is undone, or its host was told to boot."""


def plan(folder: Path) -> dict[str, Any]:
    """What the playbook wants."""
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return found


def looks(folder: Path, host: str) -> Path:
    """Of one host."""
    return folder / f"looks-{host}.jsonl"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; a last one without its end is left out, a missing file has none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    for line in text.split("\n")[:-1]:
        yield json.loads(line)


def last(path: Path) -> dict[str, Any] | None:
    """The newest whole line."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 1_000_000))
            found = file.read().split(b"\n")[-2:-1]
    except FileNotFoundError:
        return None
    try:
        return json.loads(found[0]) if found else None
    except ValueError:
        return None


def mark(folder: Path, phase: str) -> None:
    """A phase begins now."""
    entry = {"phase": phase, "mono": round(time.monotonic(), 6), "wall": round(time.time(), 3)}
    with (folder / "phases.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
