"""`remusctl history`: when a guest changed its host, ran alone, or lost and got its backup, from this host's events.

The agent keeps its newest events, so this goes back as far as they do. Each host tells its own side: of a takeover the new owner
tells how it came, the old one that its guest is `stood-down`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from remus_agent.cli.client import Client
from remus_agent.cli.output import show
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.render import duration, table
from remus_agent.machines.backup import Event as Copied

_MOST: Final = 10_000
"""As many events as the agent gives at once; it keeps fewer."""
_ALONE: Final = frozenset({"solo", "seeking", "reprotecting"})


def history(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """What became of a guest."""
    found = client.call("events", {"domain": options.domain, "limit": _MOST}, timeout=60.0).get("events") or []
    moments = moments_of(found)
    answer = {"domain": options.domain, "since": found[0]["time"] if found else None, "history": moments}
    show(options, answer, _render(answer))
    return 0


@dataclass
class _Story:
    """What was heard since the last moment. last: the kind of the state that it was in. alone: the moment with which it began
    to run on alone, as long as it does."""

    last: str | None = None
    began: str | None = None
    why: str | None = None
    by: str = "takeover"
    generation: int | None = None
    primary: str | None = None
    alone: dict[str, Any] | None = None
    moments: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, event: Mapping[str, Any], kind: str, why: str | None) -> None:
        """This host begins to take the guest over."""
        self.began = self.began or event["time"]
        self.by = kind if self.by == "takeover" else self.by
        self.why = why or self.why

    def add(self, event: Mapping[str, Any], what: str, reason: str | None, **more: Any) -> dict[str, Any]:
        """Something has become of the guest."""
        moment = {"time": event["time"], "what": what, "generation": self.generation, "reason": reason, **more}
        if self.alone is not None:
            self.alone["seconds"] = seconds_between(self.alone["time"], event["time"])
            self.alone = None
        self.moments.append(moment)
        self.began, self.why, self.by = None, None, "takeover"
        return moment


def moments_of(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The moments that matter, the oldest first. Each has time, what, generation and reason, as far as they are known; seconds:
    how long a takeover took, or how long the guest ran alone (None: it still does)."""
    story = _Story()
    for event in events:
        _take(story, event, event.get("detail") or {})
    return story.moments


def _take(story: _Story, event: Mapping[str, Any], detail: Mapping[str, Any]) -> None:
    kind = event["event"]
    because = detail.get("because")
    match kind:
        case "ownership":
            story.generation = detail.get("generation")
            story.why = detail.get("reason") if story.began else story.why
        case "receiving":
            story.primary = detail.get("primary") or story.primary
        case "failover-asked":
            proof = f"{detail.get('fenced_host')} was fenced by {detail.get('method')}: {detail.get('evidence')}"
            story.begin(event, "failover", proof)
        case "suspect" | "taking":
            by = "switchover" if because == Copied.HANDED_OVER.value else "takeover"
            story.begin(event, by, None if kind == "suspect" else because)
        case "active":
            began = story.began or event["time"]
            took = seconds_between(began, event["time"])
            story.add(event, f"{story.by} to here", story.why or because, seconds=took, **{"from": story.primary})
        case "override":
            story.generation = detail.get("generation")
            story.add(event, "override, a possible loss", because)
        case "solo" if story.last not in _ALONE:
            story.alone = story.add(event, "solo", detail.get("reason") or because, seconds=None)
        case "departed":
            story.add(event, "switchover from here", detail.get("reason") or because)
        case "protected" if story.last != "protected":
            story.add(event, "protected", because)
        case "silent" if story.last == "protected":
            story.add(event, "silent", detail.get("reason") or because)
        case "stood-down" | "given-back" | "stopped" | "failed" | "guest-gone" | "not-taken-over":
            story.add(event, kind, detail.get("reason") or because)
    if kind in _STATES:
        story.last = kind


_STATES: Final = _ALONE | frozenset(
    {"protected", "silent", "reconnecting", "reseeding", "going-solo", "stood-down", "stopped", "failed", "active"}
)
"""Kinds that say in which state the guest is from then on."""


def seconds_between(first: str, then: str) -> float:
    """Between two times as events have them."""
    return round((datetime.fromisoformat(then) - datetime.fromisoformat(first)).total_seconds(), 3)


def _render(answer: Mapping[str, Any]) -> str:
    moments = answer["history"]
    if not moments:
        return f"Nothing became of {answer['domain']} as far as this host's events go back."
    return table(
        ("TIME", "WHAT", "GENERATION", "FOR", "REASON"),
        (
            (
                one["time"],
                one["what"] + (f", from {one['from']}" if one.get("from") else ""),
                one["generation"],
                _lasted(one),
                one["reason"],
            )
            for one in moments
        ),
    )


def _lasted(one: Mapping[str, Any]) -> str | None:
    if "seconds" not in one:
        return None
    return "until now" if one["seconds"] is None else duration(one["seconds"])
