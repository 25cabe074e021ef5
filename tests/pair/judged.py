"""What the proof's checker says of a scenario's client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pair.hosts import PROJECT, REDIS, in_namespace


def judge(results: Path, marks: Mapping[str, object]) -> dict[str, Any]:
    """Its report on RESULTS/history.jsonl against what the guest holds now, with what it printed (`text`) and its `exit_code`;
    kept as proof.json and proof.txt. marks: moments by name, in seconds since the epoch."""
    words = [sys.executable, str(PROJECT / "tests" / "proof" / "checker.py"), str(results / "history.jsonl")]
    words += ["--guest", REDIS, "--report", str(results / "proof.json")]
    for name, wall in marks.items():
        words += ["--mark", f"{name}={wall}"]
    done = subprocess.run(in_namespace(*words), capture_output=True, text=True, timeout=1800, check=False)
    (results / "proof.txt").write_text(done.stdout + done.stderr)
    report: dict[str, Any] = json.loads((results / "proof.json").read_text())
    return report | {"text": done.stdout, "exit_code": done.returncode}
