"""Links that fail between the hosts and their witness: what comes of it, read from both hosts and from the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pair import agent
from pair.beacon import Listener, listening
from pair.guest import running_copies
from pair.hosts import HOSTS, labctl
from pair.load import acknowledged
from pair.protection import NOT_YET, wait_protected
from pair.wait import until

WITNESS = "gamma"
AUTOMATIC = 180.0
"""Seconds for what an agent does by itself: to suspect, to ask, to take over or to run on alone."""
REPLIES = 30
"""That the client must get before a cut, during it, and after it."""
SETTLE = 2.0
"""Seconds in which frames that had left a host before another copy spoke may still be on their way."""

Links = list[tuple[str, ...]]
"""Each the words of one `labctl cut`."""


@dataclass(frozen=True)
class Partition:
    """links: what is cut, given the names of the guest's owner and of its backup. moves: the backup is to run the guest
    afterwards; else the owner goes on. solo: it goes on alone; else nothing changes."""

    links: Callable[[str, str], Links]
    moves: bool
    solo: bool = False


def _apart(one: str, other: str, *direction: str) -> Links:
    """Both paths between two hosts."""
    return [("replication", one, *direction), ("guests", one, "--peer", other, *direction)]


PARTITIONS = {
    "two-way": Partition(_apart, moves=True),
    "owner-unheard": Partition(lambda owner, backup: _apart(owner, backup, "--direction", "out"), moves=True),
    "backup-unheard": Partition(
        lambda owner, backup: _apart(backup, owner, "--direction", "out"), moves=False, solo=True
    ),
    "owner-alone": Partition(
        lambda owner, backup: [*_apart(owner, backup), ("guests", owner, "--peer", WITNESS)], moves=True
    ),
    "backup-alone": Partition(
        lambda owner, backup: [*_apart(owner, backup), ("guests", backup, "--peer", WITNESS)], moves=False, solo=True
    ),
    "witness-alone": Partition(lambda _owner, _backup: [("guests", WITNESS)], moves=False),
}
"""By name. All but the last cut both paths between the hosts, in one direction or in both."""


@dataclass(frozen=True)
class Outcome:
    """One partition. at: seconds since the epoch when the links were cut. wanted: the host that was to run the guest.
    seconds: until it said that it does. speaking: hosts that let frames of the guest out from then on, while the links were cut.
    states: of the agents, at the end of the cut. running: hosts where the guest runs after the heal. same_session: whether the
    session of before goes on."""

    name: str
    at: float
    owner: str
    wanted: str
    seconds: float
    speaking: list[str]
    states: dict[str, str]
    running: list[str]
    protected: bool
    same_session: bool


def owner() -> str:
    """The host where the guest is protected."""
    return next(host for host in HOSTS if agent.protected(agent.status(host)))


def heal() -> None:
    """Make all links whole."""
    labctl("heal", "replication")
    labctl("heal", "guests")


def more_replies(history: Path) -> None:
    """Wait until the client has got REPLIES more."""
    before = acknowledged(history)
    until(
        f"{REPLIES} more replies than {before}",
        lambda: acknowledged(history),
        lambda count: count >= before + REPLIES,
        timeout=600,
    )


def _in_charge(host: str, plan: Partition) -> Callable[[], bool]:
    def look() -> bool:
        state = agent.status(host)["state"]
        if plan.moves:
            return state in ("active", "solo") and any(copy.host == host for copy in running_copies())
        return bool(state == ("solo" if plan.solo else "protected"))

    return look


def partition(results: Path, name: str) -> None:
    """Cut, see who goes on, heal, see the pair whole again. Adds an Outcome to RESULTS/partitions.json; the client that writes
    RESULTS/history.jsonl must run."""
    plan, history = PARTITIONS[name], results / "history.jsonl"
    source = owner()
    other = next(host for host in HOSTS if host != source)
    wanted = other if plan.moves else source
    before = wait_protected(host=source)
    more_replies(history)
    with listening(source) as near, listening(other) as far:
        wires = {source: near, other: far}
        at, started = time.time(), time.monotonic()
        try:
            for words in plan.links(source, other):
                labctl("cut", *words)
            until(f"{wanted} is in charge", _in_charge(wanted, plan), timeout=AUTOMATIC, passing=NOT_YET)
            seconds = time.monotonic() - started
            more_replies(history)
            begin = _first(wires[wanted], started) + (SETTLE if plan.moves else 0)
            until("frames of the guest", lambda: wires[wanted].between(begin), timeout=300)
            ended = time.monotonic()
            states = {host: str(agent.status(host)["state"]) for host in HOSTS}
        finally:
            heal()
        speaking = [host for host in HOSTS if wires[host].between(begin, ended)]
    after = wait_protected(host=wanted)
    more_replies(history)
    outcome = Outcome(
        name,
        at,
        source,
        wanted,
        round(seconds, 3),
        speaking,
        states,
        sorted(copy.host for copy in running_copies()),
        agent.protected(after),
        agent.session(before) == agent.session(after),
    )
    _add(results / "partitions.json", outcome)


def _first(wire: Listener, since: float) -> float:
    """When the first frame of the guest came by."""
    return min((frame.mono for frame in wire.between(since)), default=float("inf"))


def _add(path: Path, outcome: Outcome) -> None:
    found = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*found, asdict(outcome)], indent=2) + "\n")
