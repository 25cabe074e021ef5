"""The proof's client as a process in the lab's namespace."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pair.hosts import POSTGRESQL, PROJECT, REDIS, CommandFailed, in_namespace, run
from pair.wait import SLOWEST, until

PROOF = PROJECT / "tests" / "proof"
LONGEST = 3000.0
"""Seconds after which a client ends by itself, should nobody be left to tell it."""


def acknowledged(history: Path) -> int:
    """Replies in a history so far."""
    with contextlib.suppress(FileNotFoundError), history.open(encoding="utf-8") as file:
        return sum('"event":"ack"' in line for line in file)
    return 0


@dataclass(frozen=True)
class Load:
    """A running (or ended) client and what it writes down. guest: whom it talks to. rows: it is the one that commits rows to
    PostgreSQL."""

    process: subprocess.Popen[str]
    history: Path
    guest: str
    rows: bool = False

    def acknowledged(self) -> int:
        """Replies so far."""
        return acknowledged(self.history)

    def wait_for(self, more: int, timeout: float) -> int:
        """Wait for MORE replies than there are now; how many there are then."""
        before = self.acknowledged()

        def look() -> int:
            if self.process.poll() is not None:
                raise CommandFailed(f"the client ended with status {self.process.returncode}")
            return self.acknowledged()

        what = f"{more} more replies after {before}"
        return until(what, look, lambda now: now >= before + more, timeout=timeout, every=0.3)

    def stop(self, timeout: float = 600) -> None:
        """Tell the client to end, and wait until it has read the final state."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.end(timeout)

    def end(self, timeout: float) -> None:
        """Wait until the client ends by itself."""
        try:
            code = self.process.wait(timeout * SLOWEST)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            raise CommandFailed(f"the client did not end in {timeout:.0f} s") from error
        if code != 0:
            raise CommandFailed(f"the client ended with status {code}; its history is {self.history}")

    def judge(self, marks: dict[str, float] | None = None, timeout: float = 650) -> dict[str, Any]:
        """The checker's report, against what the guest holds now (and what pg_amcheck says of a database); the exit code
        must agree with it."""
        report = self.history.with_suffix(".report.json")
        report.unlink(missing_ok=True)
        words = in_namespace(sys.executable, str(PROOF / "checker.py"), str(self.history))
        words += ["--database" if self.rows else "--guest", self.guest]
        words += ["--report", str(report)]
        for name, wall in (marks or {}).items():
            words += ["--mark", f"{name}={wall:.6f}"]
        try:
            run(words, timeout=timeout)
            verdict = "kept"
        except CommandFailed:
            if not report.exists():
                raise
            verdict = "not kept"
        found: dict[str, Any] = json.loads(report.read_text())
        if (found["verdict"] == "kept") != (verdict == "kept"):
            raise CommandFailed(f"the checker's exit code does not match its report {report}")
        return found


@contextlib.contextmanager
def load(
    history: Path, *options: str, rows: bool = False, guest: str | None = None, first: int = 10, timeout: float = 120
) -> Iterator[Load]:
    """A client that has its first replies; killed at the end if it still runs. guest: another than the lab's own."""
    history.parent.mkdir(parents=True, exist_ok=True)
    history.unlink(missing_ok=True)
    client, usual = ("row_client.py", POSTGRESQL) if rows else ("client.py", REDIS)
    guest = guest or usual
    words = in_namespace(sys.executable, str(PROOF / client), "--guest", guest)
    words += ["--history", str(history), f"--seconds={LONGEST:.0f}", f"--connect-timeout={60 * SLOWEST:.0f}", *options]
    process = subprocess.Popen(words, text=True, cwd=PROJECT)
    try:
        running = Load(process, history, guest, rows)
        running.wait_for(first, timeout)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def now() -> float:
    """Wall time for a mark."""
    return time.time()
