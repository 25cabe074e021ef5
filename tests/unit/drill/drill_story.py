"""Folders of drills that never were, as the playbook, the client and the looks would have left them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

BEGIN = 1000.0
"""The controller's clock at the beginning."""
BOOTED = {"alpha": 400.0, "beta": 970.0}
"""What its clock said when a host was booted."""
PHASES = {"before": 0.0, "breaking": 20.0, "broken": 21.5, "mending": 41.5, "mended": 43.0, "end": 80.0}


def plan(**more: Any) -> dict[str, Any]:
    """Of a killed agent; see what the role writes."""
    return {
        "id": "20260102T030405Z-redis1-agent_kill",
        "time": "2026-01-02T03:04:05Z",
        "guest": "redis1",
        "fault": "agent_kill",
        "side": "primary",
        "sites": [{"host": "alpha", "fault": "agent_kill", "links": [], "witness": False, "fence": ""}],
        "expected": "Output is held until a new agent has protected the guest again.",
        "seconds": 20,
        "owner": "alpha",
        "witnessed": True,
        "hosts": {"alpha": {"socket": "/run/remus/agent.sock"}, "beta": {"socket": "/run/remus/agent.sock"}},
        "marks": "/run/remus-drill",
        "look_seconds": 0.5,
        "ready": 60,
        "longest": 600,
        "client": {"address": ["10.77.0.100", 6379], "kind": "redis", "interval": 0.05, "command": None, "grace": 10},
        "prefix": [],
        **more,
    }


def final(owner: str = "alpha", protected: bool = True, **more: Any) -> dict[str, Any]:
    """What the playbook found at the end."""
    other = {"alpha": "beta", "beta": "alpha"}[owner]
    guest = {"name": "redis1", "owner": owner, "other": other, "holder": other, "protected": protected}
    guest["status"] = {owner: {"state": "protected" if protected else "silent"}}
    undone = [{"host": "alpha", "undone": "now", "by_hand": "sh /run/remus-drill/undo.sh"}]
    return {"guest": guest, "problem": "", "undone": undone, "missing": [], **more}


class Story:
    """Says at each moment where the guest is and what the agents say; write() makes a folder of it. Times: seconds since the
    beginning."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.plan = plan()
        self.final = final()
        self.takeover: float | None = None
        self.away: tuple[float, float] = (20.9, 24.0)
        """The primary's agent does not answer."""
        self.unreached = False
        """Nor does its host, meanwhile."""
        self.silent_until = 31.0

    def state(self, host: str, at: float) -> tuple[str, str] | None:
        """(role, state)."""
        gone, back = self.away
        if self.takeover is not None:
            return self._after_takeover(host, at, self.takeover)
        if host == "beta":
            return ("backup", "ready" if not gone < at < self.silent_until else "receiving")
        if gone <= at < back:
            return None
        return ("primary", "protected" if at < gone or at >= self.silent_until else "silent")

    def _after_takeover(self, host: str, at: float, takeover: float) -> tuple[str, str] | None:
        gone, back = self.away
        if host == "beta" and at < takeover:
            return ("backup", "ready" if at < gone + 4 else "orphaned")
        if host == "beta":
            return ("primary", "active" if at < back + 4 else "seeding" if at < self.silent_until else "protected")
        if at < gone:
            return ("primary", "protected")
        return None if at < back else ("backup", "receiving" if at < self.silent_until else "ready")

    def write(self) -> Path:
        """The folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "plan.json").write_text(json.dumps(self.plan))
        (self.folder / "final.json").write_text(json.dumps(self.final) + "\n")
        phases = [{"phase": name, "mono": BEGIN + at, "wall": 1.7e9 + at} for name, at in PHASES.items()]
        self._lines("phases", phases)
        commits = self._epochs()
        self._lines("client", self._client([at for at, _ in commits]))
        for host in ("alpha", "beta"):
            self._lines(f"looks-{host}", self._looks(host, commits))
        return self.folder

    def _lines(self, name: str, lines: list[dict[str, Any]]) -> None:
        (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _epochs(self) -> list[tuple[float, dict[str, Any]]]:
        """(when it was acknowledged, its record with the controller's time)."""
        found, at, number = [], 0.0, 100
        while at < PHASES["end"]:
            running = [host for host in ("alpha", "beta") if (self.state(host, at) or ("", ""))[1] == "protected"]
            if running:
                pages = int(self.random.lognormvariate(5, 0.5))
                down = 2.0 + pages / 100 + self.random.random()
                ack = 20 + 20 * self.random.random()
                record = {
                    "epoch": number,
                    "started": at,
                    "pages": pages,
                    "bytes": pages * 4100,
                    "down_ns": int(down * 1e6),
                }
                record |= {"send_ns": 3_000_000, "ack_ns": int(ack * 1e6), "host": running[0]}
                found.append((at + (down + ack) / 1e3, record))
                number += 1
            at += 0.12
        return found

    def _client(self, commits: list[float]) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [
            {"event": "connected", "mono": BEGIN, "connection": 1, "peer": "10.77.0.100:6379"}
        ]
        lines.append({"event": "kept", "mono": BEGIN, "digest": "d"})
        answers: list[dict[str, Any]] = []
        number = 0
        at = 0.05
        while at < PHASES["end"] - 1:
            number += 1
            lines.append({"event": "sent", "mono": BEGIN + at, "number": number})
            out = next((one for one in commits if one > at + 0.04), None)
            open_ = self.takeover is not None and self.takeover <= at < self.silent_until
            held = self.takeover is not None and self.away[0] <= at < self.takeover
            when = out
            if self.takeover is not None and (open_ or held):
                when = max(at + 0.002, self.takeover + 0.3)
            if when is not None and when < PHASES["end"]:
                fact = {"number": number, "seconds": round(when - at, 6), "value": number}
                answers.append({"event": "answered", "mono": BEGIN + when, **fact})
            at += 0.05
        lines += answers
        lines.sort(key=lambda line: line["mono"])
        end = BEGIN + PHASES["end"]
        return [
            *lines,
            {"event": "checked", "mono": end, "digest": "d"},
            {"event": "final", "mono": end, "value": number},
        ]

    def _looks(self, host: str, commits: list[tuple[float, dict[str, Any]]]) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        at, told = 0.1, 0
        while at < PHASES["end"]:
            said = self.state(host, at)
            line: dict[str, Any] = {
                "asked": BEGIN + at,
                "answered": BEGIN + at + 0.02,
                "reached": True,
                "error": "",
                "status": None,
            }
            line |= {
                "clock": BEGIN + at + 0.01 - BOOTED[host],
                "boot": f"b-{host}",
                "epochs": [],
                "events": [],
                "marks": [],
            }
            if said is None:
                line |= {"error": "No such file or directory"}
                if self.unreached:
                    line = {key: line[key] for key in ("asked", "answered", "status")} | {
                        "reached": False,
                        "error": "no answer",
                    }
            else:
                acked = max((one["epoch"] for when, one in commits if when <= at), default=99)
                held = 40_000 * self.random.random() if said[1] == "protected" else 0
                if said[1] == "silent":
                    held = min(900_000.0, (at - self.away[0]) * 60_000)
                line["status"] = {
                    "role": said[0],
                    "state": said[1],
                    "session": "s1",
                    "acked_epoch": acked,
                    "held_bytes": int(held),
                }
                if said[0] == "primary":
                    mine = [one for when, one in commits if when <= at and one["host"] == host and one["epoch"] > told]
                    told = max([told, *(one["epoch"] for one in mine)])
                    line["epochs"] = [one | {"started": BEGIN + one["started"] - BOOTED[host]} for one in mine]
            lines.append(line)
            at += 0.5
        return lines


def killed(folder: Path) -> Path:
    """The agent of the primary is killed; everything is as it should be."""
    return Story(folder).write()


def taken_over(folder: Path, **more: Any) -> Path:
    """The primary's host loses its power, the backup takes the guest over."""
    story = Story(folder)
    story.plan = plan(fault="host_power_loss", id="20260102T030405Z-redis1-host_power_loss", **more)
    story.takeover, story.away, story.silent_until, story.unreached = 30.0, (21.5, 50.0), 62.0, True
    story.final = final("beta") | {
        "undone": [{"host": "alpha", "undone": "boot", "by_hand": "sh /run/remus-drill/undo.sh"}]
    }
    return story.write()


def left_silent(folder: Path) -> Path:
    """The backup never comes back: the guest is not protected at the end."""
    story = Story(folder)
    story.silent_until = 1e9
    missing = ["redis1 is not protected: alpha says silent, beta says receiving"]
    story.final = final(protected=False, missing=missing)
    return story.write()


if __name__ == "__main__":
    import sys

    for name, make in (("killed", killed), ("taken-over", taken_over), ("left-silent", left_silent)):
        make(Path(sys.argv[1]) / name)
