"""Runs on a host, given to its Python as text: answers each line on standard input with one look at the agent, a JSON line.

Nothing else of this package is there, and its Python may be older than the controller's. Arguments: control socket, guest, folder
of the drill's marks.

    {"clock": CLOCK_BOOTTIME, "boot": id, "status": {...} or null, "error": words, "epochs": [...], "events": [...],
     "marks": [...]}
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

MOST = 4096
PATIENCE = 2.0


class Agent:
    """The control socket; connects anew after any failure."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: Any = None
        self._link: socket.socket | None = None
        self._number = 0

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One answer. Raises OSError or ValueError; returns {"error": ...} where the agent refuses."""
        try:
            if self._file is None:
                self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._link.settimeout(PATIENCE)
                self._link.connect(self._path)
                self._file = self._link.makefile("rwb")
            self._number += 1
            request = {"version": 1, "id": self._number, "method": method, "params": params}
            self._file.write(json.dumps(request).encode() + b"\n")
            self._file.flush()
            while True:
                line = self._file.readline()
                if not line.endswith(b"\n"):
                    raise OSError("the agent closed the connection")
                answer: dict[str, Any] = json.loads(line.decode("utf-8"))
                if "result" in answer or "error" in answer:
                    return answer
        except (OSError, ValueError):
            self.close()
            raise

    def close(self) -> None:
        """Forget the connection."""
        if self._link is not None:
            self._link.close()
        self._link = self._file = None


def boot() -> str:
    """The kernel's name for this boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - fewer imports, each costs a small dom0 time
            return file.read().strip()
    except OSError:
        return ""


class Looker:
    """What has been told already is not told again."""

    def __init__(self, path: str, guest: str, marks: str) -> None:
        self._agent = Agent(path)
        self._guest = guest
        self._marks = marks
        self._session: str | None = None
        self._epoch = -1
        self._event: int | None = None

    def look(self) -> dict[str, Any]:
        """One look."""
        found: dict[str, Any] = {
            "clock": time.clock_gettime(time.CLOCK_BOOTTIME),
            "boot": boot(),
            "status": None,
            "error": "",
        }
        found.update(epochs=[], events=[], marks=[])
        if os.path.isdir(self._marks):  # noqa: PTH112
            found["marks"] = sorted(name for name in os.listdir(self._marks) if "." not in name)  # noqa: PTH208
        try:
            answer = self._agent.ask("status", domain=self._guest)
            if "error" in answer:
                found["error"] = answer["error"].get("message", "refused")
                return found
            status = found["status"] = answer["result"]
            if status.get("role") == "primary":
                found["epochs"] = self._epochs(status)
            found["events"] = self._events()
        except (OSError, ValueError) as failure:
            found["error"] = str(failure) or type(failure).__name__
        return found

    def _epochs(self, status: dict[str, Any]) -> list[dict[str, Any]]:
        if status.get("session") != self._session:
            self._session, self._epoch = status.get("session"), -1
        first = self._epoch < 0
        answer = self._agent.ask("records", domain=self._guest, limit=64 if first else MOST)
        epochs = [one for one in answer.get("result", {}).get("epochs", []) if one["epoch"] > self._epoch]
        if epochs:
            self._epoch = epochs[-1]["epoch"]
        return epochs

    def _events(self) -> list[dict[str, Any]]:
        if self._event is None:
            newest = self._agent.ask("events", limit=1).get("result", {}).get("events", [])
            self._event = newest[-1]["id"] if newest else 0
            return []
        events: list[dict[str, Any]] = (
            self._agent.ask("events", domain=self._guest, since=self._event).get("result", {}).get("events", [])
        )
        if events:
            self._event = events[-1]["id"]
        return events


def main() -> None:
    """Answer until standard input ends."""
    looker = Looker(*sys.argv[1:4])
    for _line in sys.stdin:
        sys.stdout.write(json.dumps(looker.look(), separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
