"""Looks at one host's agent, again and again, each with when it was asked and when it was answered by the controller's clock.

What an answer says was true at some moment between the two. A host that does not answer is a line as well: its error is why.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drill.reach import Target, Unreachable, Way, way_to

PATIENCE = 4.0
FIRST = 15.0
"""Seconds for the first answer on a new way: a busy host takes some to start what answers."""
AGAIN = 1.0

Open = Callable[[Target, list[str]], Way]


class Looks:
    """One host's thread. Writes JSON lines to `file` until stop is set."""

    def __init__(
        self,
        target: Target,
        arguments: list[str],
        file: Path,
        interval: float,
        stop: threading.Event,
        open_way: Open = way_to,
    ) -> None:
        self._target = target
        self._arguments = arguments
        self._file = file
        self._interval = interval
        self._stop = stop
        self._open = open_way
        self._way: Way | None = None
        self.thread = threading.Thread(target=self.run, name=f"looks at {target.name}", daemon=True)

    def run(self) -> None:
        """Look until told to stop."""
        with self._file.open("w") as lines:
            while not self._stop.is_set():
                asked = time.monotonic()
                found = self._one()
                answered = time.monotonic()
                entry = {"asked": round(asked, 6), "answered": round(answered, 6), **found}
                lines.write(json.dumps(entry, separators=(",", ":")) + "\n")
                lines.flush()
                pause = AGAIN if "reached" in found and not found["reached"] else self._interval
                self._stop.wait(max(0.0, asked + pause - answered))
        if self._way is not None:
            self._way.close()

    def _one(self) -> dict[str, Any]:
        patience = PATIENCE
        try:
            if self._way is None:
                self._way = self._open(self._target, self._arguments)
                patience = FIRST
            said: dict[str, Any] = json.loads(self._way.ask(patience))
        except (Unreachable, ValueError) as error:
            if self._way is not None:
                self._way.close()
                self._way = None
            return {"reached": False, "error": str(error), "status": None}
        return {"reached": True, **said}
