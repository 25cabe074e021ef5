"""What a drill left in its folder, read into one record in the controller's time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drill import folder


@dataclass(frozen=True)
class Look:
    """One look at a host. What it says was true between asked and answered, in seconds of the controller's clock.

    reached: the host answered; status: None also where its agent did not."""

    host: str
    asked: float
    answered: float
    reached: bool
    state: str | None = None
    role: str | None = None
    session: str | None = None
    acked: int = 0
    held: int = 0
    error: str = ""


@dataclass(frozen=True)
class Epoch:
    """One epoch as its primary measured it. at: when the guest was asked to suspend; milliseconds, bytes."""

    host: str
    at: float
    epoch: int
    pages: int
    sent: int
    down_ms: float
    send_ms: float
    ack_ms: float


@dataclass(frozen=True)
class Event:
    """What an agent noted, when it was seen."""

    host: str
    at: float
    kind: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass
class Question:
    """One question of the client, or one run of the probe. answered: None while it was not. good: the answer is one."""

    number: int
    sent: float
    answered: float | None = None
    value: int | None = None
    good: bool = True

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.answered is None else self.answered - self.sent


@dataclass
class Run:
    """All of it. phases: when each began. plan, final: as the playbook wrote them."""

    plan: dict[str, Any]
    final: dict[str, Any]
    phases: dict[str, float]
    wall: dict[str, float]
    looks: list[Look] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    damaged: list[tuple[float, str]] = field(default_factory=list)
    kept: str | None = None
    checked: str | None = None
    final_value: int | None = None

    @property
    def hosts(self) -> list[str]:
        """The pair, the primary of the beginning first."""
        owner = self.plan["owner"]
        return [owner, *(host for host in self.plan["hosts"] if host != owner)]

    @property
    def fault_begun(self) -> float | None:
        """From then on it was there."""
        return self.phases.get("broken")

    @property
    def fault_ended(self) -> float | None:
        """From then on it was not."""
        return self.phases.get("mended")

    @property
    def start(self) -> float:
        """The beginning of every axis."""
        moments = [
            *self.phases.values(),
            *(one.asked for one in self.looks[:1]),
            *(one.sent for one in self.questions[:1]),
        ]
        return min(moments, default=0.0)

    @property
    def end(self) -> float:
        """And its end."""
        moments = [*self.phases.values(), *(one.answered for one in self.looks[-1:])]
        moments += [one.answered or one.sent for one in self.questions]
        return max(moments, default=1.0)

    def of(self, host: str) -> list[Look]:
        """Looks at one host, in order."""
        return [look for look in self.looks if look.host == host]

    @property
    def answered(self) -> list[Question]:
        """Questions with a good answer, in the order of the answers."""
        found = [one for one in self.questions if one.answered is not None and one.good]
        return sorted(found, key=lambda one: one.answered or 0.0)


def read(where: Path) -> Run:
    """A drill's folder, whole or not."""
    final = folder.last(where / "final.json") or {}
    phases = list(folder.lines(where / "phases.jsonl"))
    run = Run(
        folder.plan(where),
        final,
        {one["phase"]: one["mono"] for one in phases},
        {one["phase"]: one["wall"] for one in phases},
    )
    for host in run.plan["hosts"]:
        _looks(run, host, list(folder.lines(folder.looks(where, host))))
    run.looks.sort(key=lambda one: one.asked)
    run.epochs.sort(key=lambda one: one.at)
    run.events.sort(key=lambda one: one.at)
    _client(run, list(folder.lines(where / "client.jsonl")))
    return run


def _looks(run: Run, host: str, said: list[dict[str, Any]]) -> None:
    offsets = _offsets(said)
    seen: set[tuple[str, int]] = set()
    for one in said:
        status = one.get("status") or {}
        run.looks.append(
            Look(
                host,
                one["asked"],
                one["answered"],
                bool(one.get("reached")),
                status.get("state"),
                status.get("role"),
                status.get("session"),
                int(status.get("acked_epoch") or 0),
                int(status.get("held_bytes") or 0),
                str(one.get("error") or ""),
            )
        )
        for epoch in one.get("epochs") or []:
            key = (str(status.get("session")), epoch["epoch"])
            if key not in seen:
                seen.add(key)
                run.epochs.append(_epoch(host, epoch, offsets[one["boot"]]))
        run.events += [
            Event(host, one["answered"], event["event"], event.get("detail") or {}) for event in one.get("events") or []
        ]


def _offsets(said: list[dict[str, Any]]) -> dict[str, float]:
    """By boot, what turns the host's clock into the controller's: as the look says that took the least time."""
    best: dict[str, tuple[float, float]] = {}
    for one in said:
        if "clock" in one:
            took = one["answered"] - one["asked"]
            offset = (one["asked"] + one["answered"]) / 2 - one["clock"]
            best[one["boot"]] = min(best.get(one["boot"], (took, offset)), (took, offset))
    return {boot: offset for boot, (_, offset) in best.items()}


def _epoch(host: str, said: dict[str, Any], offset: float) -> Epoch:
    return Epoch(
        host,
        said["started"] + offset,
        said["epoch"],
        said["pages"],
        said["bytes"] + said.get("disk_bytes", 0),
        said["down_ns"] / 1e6,
        said["send_ns"] / 1e6,
        said["ack_ns"] / 1e6,
    )


def _client(run: Run, said: list[dict[str, Any]]) -> None:
    questions: dict[int, Question] = {}
    for one in said:
        event = one["event"]
        if event == "sent":
            questions[one["number"]] = Question(one["number"], one["mono"])
        elif event in ("answered", "probe"):
            question = questions[one["number"]]
            question.answered = one["mono"]
            question.value = one.get("value")
            question.good = one.get("code", 0) == 0
        elif event == "lost":
            run.lost.append((one["mono"], one["error"]))
        elif event == "damaged":
            run.damaged.append((one["mono"], one["error"]))
        elif event == "kept":
            run.kept = one["digest"]
        elif event == "checked":
            run.checked = one["digest"]
        elif event == "final":
            run.final_value = one["value"]
    run.questions = list(questions.values())
