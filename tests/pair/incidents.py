"""What happens to links, hosts and the witness, and what comes of it: read from both hosts and from the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pair import agent
from pair.beacon import Listener, listening
from pair.guest import copies, running_copies
from pair.hosts import HOSTS, labctl
from pair.load import acknowledged
from pair.protection import NOT_YET, wait_protected
from pair.wait import until

WITNESS = "gamma"
AUTOMATIC = 180.0
"""Seconds for what an agent does by itself: to suspect, to ask, to take over or to run on alone."""
REPLIES = 30
"""That the client must get before an incident, during it, and after it."""
SETTLE = 2.0
"""Seconds in which frames that had left a host before another copy spoke may still be on their way."""

Commands = list[tuple[str, ...]]
"""Each the words of one labctl command."""
HEAL: Commands = [("heal", "replication"), ("heal", "guests")]


@dataclass(frozen=True)
class Incident:
    """begin: what happens, given the names of the guest's owner and of its backup. end: what undoes it. moves: the backup is to
    run the guest afterwards; else the owner goes on. solo: it goes on alone; else nothing changes."""

    begin: Callable[[str, str], Commands]
    end: Callable[[str, str], Commands]
    moves: bool
    solo: bool = False


def _apart(one: str, other: str, *direction: str) -> Commands:
    """Both paths between two hosts."""
    return [("cut", "replication", one, *direction), ("cut", "guests", one, "--peer", other, *direction)]


def _partition(begin: Callable[[str, str], Commands], *, moves: bool, solo: bool = False) -> Incident:
    return Incident(begin, lambda _owner, _backup: HEAL, moves, solo)


_POWER_LOSS = Incident(lambda owner, _backup: [("kill", owner)], lambda owner, _backup: [("start", owner)], moves=True)
"""Its host boots again with the disk that it had."""

INCIDENTS: dict[str, dict[str, Incident]] = {
    "partition": {
        "two-way": _partition(_apart, moves=True),
        "owner-unheard": _partition(lambda owner, backup: _apart(owner, backup, "--direction", "out"), moves=True),
        # Without acknowledgements TCP sends no more than a window: the backup soon hears nothing either, and is the first to ask.
        "backup-unheard": _partition(lambda owner, backup: _apart(backup, owner, "--direction", "out"), moves=True),
        "owner-alone": _partition(
            lambda owner, backup: [*_apart(owner, backup), ("cut", "guests", owner, "--peer", WITNESS)], moves=True
        ),
        "backup-alone": _partition(
            lambda owner, backup: [*_apart(owner, backup), ("cut", "guests", backup, "--peer", WITNESS)],
            moves=False,
            solo=True,
        ),
        "replication-alone": _partition(lambda _owner, _backup: [("cut", "replication")], moves=False, solo=True),
        "witness-cut-off": _partition(lambda _owner, _backup: [("cut", "guests", WITNESS)], moves=False),
    },
    "frozen_primary": {
        "frozen": Incident(
            lambda owner, _backup: [("freeze", owner)], lambda owner, _backup: [("thaw", owner)], moves=True
        ),
    },
    "reprotect": {
        "first-host-dies": _POWER_LOSS,
        "second-host-dies": _POWER_LOSS,
    },
    "witness_loss": {
        "witness-killed": Incident(
            lambda _owner, _backup: [("kill", WITNESS)], lambda _owner, _backup: [("start", WITNESS)], moves=False
        ),
    },
}
"""By molecule scenario and name."""


@dataclass(frozen=True)
class Outcome:
    """One incident. at: when it began, seconds since the epoch. wanted: the host that was to run the guest. seconds: until it
    said that it does. speaking: hosts that let frames of the guest out from then on, before the end. late: frames of the other
    host after the end. state: of the agent of WANTED, before the end. running: hosts where the guest runs when all is whole
    again. same_session: whether the session of before goes on."""

    name: str
    at: float
    owner: str
    wanted: str
    seconds: float
    speaking: list[str]
    late: int
    state: str
    running: list[str]
    protected: bool
    same_session: bool


def owner() -> str:
    """The host where the guest is protected."""
    return next(host for host in HOSTS if agent.protected(agent.status(host)))


def more_replies(history: Path) -> None:
    """Wait until the client has got REPLIES more."""
    before = acknowledged(history)
    until(
        f"{REPLIES} more replies than {before}",
        lambda: acknowledged(history),
        lambda count: count >= before + REPLIES,
        timeout=600,
    )


def _in_charge(host: str, plan: Incident) -> Callable[[], bool]:
    def look() -> bool:
        state = agent.status(host)["state"]
        if plan.moves:
            return state in ("active", "solo") and any(copy.runs for copy in copies(host))
        return bool(state == ("solo" if plan.solo else "protected"))

    return look


def happen(results: Path, scenario: str, name: str) -> None:
    """Let it happen, see who goes on, undo it, see the pair whole again. Adds an Outcome to RESULTS/incidents.json; the client
    that writes RESULTS/history.jsonl must run."""
    plan, history = INCIDENTS[scenario][name], results / "history.jsonl"
    source = owner()
    other = next(host for host in HOSTS if host != source)
    wanted, idle = (other, source) if plan.moves else (source, other)
    before = wait_protected(host=source)
    more_replies(history)
    with listening(source) as near, listening(other) as far:
        wires = {source: near, other: far}
        at, started = time.time(), time.monotonic()
        try:
            for words in plan.begin(source, other):
                labctl(*words)
            until(f"{wanted} is in charge", _in_charge(wanted, plan), timeout=AUTOMATIC, passing=NOT_YET)
            seconds = time.monotonic() - started
            more_replies(history)
            begin = _first(wires[wanted], started) + (SETTLE if plan.moves else 0)
            until("frames of the guest", lambda: wires[wanted].between(begin), timeout=300)
            state = str(agent.status(wanted)["state"])
            ended = time.monotonic()
        finally:
            for words in plan.end(source, other):
                labctl(*words)
        after = wait_protected(host=wanted)
        more_replies(history)
        late = len(wires[idle].between(ended))
    outcome = Outcome(
        name,
        at,
        source,
        wanted,
        round(seconds, 3),
        [host for host in HOSTS if wires[host].between(begin, ended)],
        late,
        state,
        sorted(copy.host for copy in running_copies()),
        agent.protected(after),
        agent.session(before) == agent.session(after),
    )
    _add(results / "incidents.json", outcome)


def _first(wire: Listener, since: float) -> float:
    """When the first frame of the guest came by."""
    return min((frame.mono for frame in wire.between(since)), default=float("inf"))


def _add(path: Path, outcome: Outcome) -> None:
    found = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*found, asdict(outcome)], indent=2) + "\n")
