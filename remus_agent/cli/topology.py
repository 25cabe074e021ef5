"""`remusctl topology`: where every guest of a pair runs, as this host sees it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from remus_agent.cli.client import Client
from remus_agent.cli.output import show
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.render import duration, table, text

_TIMEOUT: Final = 60.0
"""Seconds for a witness of three nodes of which none answers, and for the guests' states."""


def topology(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """Both hosts, their paths, the witness, and every guest."""
    answer = client.call("topology", timeout=_TIMEOUT)
    show(options, answer, render(answer))
    return 0


def render(answer: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"seen from {text(answer.get('host'))}"]
    lines += [f"{text(name)}: {_paths(peer)}" for name, peer in sorted((answer.get("peers") or {}).items())]
    lines += [f"witness: {_witness(answer.get('witness'))}", ""]
    guests = answer.get("guests") or []
    if not guests:
        return "\n".join([*lines, "No guest is known to the agent."])
    lines.append(table(("GUEST", "RUNS ON", "BACKUP", "GEN", "HERE", "THERE", "RECORD"), map(_row, guests)))
    for guest in guests:
        lines += _notes(guest)
    return "\n".join(lines)


def _paths(peer: Mapping[str, Any]) -> str:
    link = f"replication {text(peer.get('address'))} {_heard(peer.get('heard'), 'no session')}"
    if peer.get("second") is None:
        return f"{link}; no second path"
    second = f"{link}; second path {text(peer['second'])} {_heard(peer.get('second_heard'), 'not heard')}"
    problem = peer.get("second_problem")
    return second if problem is None else f"{second}, nothing gets through to it: {text(problem)}"


def _heard(age: float | None, never: str) -> str:
    return never if age is None else f"heard {duration(age)} ago"


def _witness(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "none, roles change on an operator's word"
    if found.get("answers") is None:
        return "not asked, there is no guest"
    return "answers" if found["answers"] else f"DOES NOT ANSWER: {text(found.get('problem'))}"


def _row(guest: Mapping[str, Any]) -> tuple[object, ...]:
    here, there = guest.get("here") or {}, guest.get("there") or {}
    return (
        guest.get("domain"),
        guest.get("runs_on") or "?",
        guest.get("backup"),
        guest.get("generation") or None,
        f"{text(here.get('role'))}, {text(here.get('state'))}",
        f"{text(there['is'])} ({text(there.get('host'))})" if there.get("is") else None,
        _record(guest.get("record")),
    )


def _record(found: Mapping[str, Any] | None) -> str | None:
    if found is None:
        return None
    backup = f", backup {found.get('backup')}" if found.get("backup") else ""
    known = "" if found.get("current") else " (as last read)"
    return f"{found.get('owner')}/{found.get('generation')} {found.get('state')}{backup}{known}"


def _notes(guest: Mapping[str, Any]) -> Iterator[str]:
    here, record = guest.get("here") or {}, guest.get("record") or {}
    if here.get("reason"):
        yield f"{text(guest.get('domain'))}: {text(here['reason'])}"
    if record.get("owner") and guest.get("runs_on") and record["owner"] != guest["runs_on"]:
        yield (
            f"{text(guest.get('domain'))}: the record names {text(record['owner'])} as its owner, and it seems to run on"
            f" {text(guest['runs_on'])}: see remusctl status on both hosts"
        )
