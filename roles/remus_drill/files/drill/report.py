"""A drill's report as data: what report.json has, and what the page and junit.xml are made of. Pure functions of a Run."""

from __future__ import annotations

from typing import Any

from drill import figures, verdicts
from drill.record import Run

FAULTS = {
    "agent_kill": "the agent is killed",
    "agent_freeze": "the agent stands still",
    "slow_link": "the replication link is slow",
    "link_cut": "the link is cut",
    "one_way_cut": "the link is cut in one direction",
    "disk_stall": "the agent's disk stands still",
    "witness_loss": "the witness is lost",
    "host_freeze": "the host stands still",
    "host_panic": "the host's kernel panics",
    "host_power_loss": "the host loses its power",
}
BOOTS = ("host_panic", "host_power_loss")
"""What takes a host away for so long that it boots anew."""
FORMAT = 1
QUIET = frozenset({"heartbeat", "probe"})


def summary(run: Run) -> dict[str, Any]:
    """Everything that is said, as data. `ok`: no guarantee was violated, the fault is undone and the guest is protected."""
    judged = verdicts.judge(run)
    guest = run.final.get("guest") or {}
    problem = str(run.final.get("problem") or "") or not_booted(run)
    protected = bool(guest.get("protected")) and not run.final.get("missing")
    undone = list(run.final.get("undone") or [])
    left = [one for one in undone if one.get("error")]
    violated = [one.name for one in judged if one.verdict == verdicts.VIOLATED]
    plan = run.plan
    return {
        "format": FORMAT,
        "id": plan["id"],
        "guest": plan["guest"],
        "fault": plan["fault"],
        "what": FAULTS[plan["fault"]],
        "side": plan["side"],
        "where": sorted({site["host"] for site in plan.get("sites") or []}),
        "held_seconds": plan["seconds"],
        "expected": plan.get("expected", ""),
        "time": plan["time"],
        "owner_before": plan["owner"],
        "owner_after": guest.get("owner"),
        "witness": bool(plan.get("witnessed")),
        "client": client_words(plan),
        "ok": not violated and protected and not left and not problem,
        "violated": violated,
        "protected": protected,
        "problem": problem,
        "missing": list(run.final.get("missing") or []),
        "next": next_steps(run),
        "undone": undone,
        "powers": list(run.final.get("powers") or []),
        "guarantees": [
            {"name": one.name, "title": one.title, "verdict": one.verdict, "evidence": one.evidence} for one in judged
        ],
        "phases": {name: round(at - run.start, 3) for name, at in run.phases.items()},
        "moves": [
            {"at": round(one.at - run.start, 3), "from": one.source, "to": one.target} for one in verdicts.moves(run)
        ],
        "figures": figures.as_data(run),
        "answers": len(run.answered),
        "unanswered": sum(one.answered is None or not one.good for one in run.questions),
        "connections_lost": [{"at": round(at - run.start, 3), "error": words} for at, words in run.lost],
        "events": [
            {"at": round(one.at - run.start, 3), "host": one.host, "event": one.kind, "detail": one.detail}
            for one in run.events
            if one.kind not in QUIET
        ],
    }


def not_booted(run: Run) -> str:
    """What is wrong where a host was to be reset, and has still got what a boot removes; empty where nothing is."""
    resets = [site["host"] for site in run.plan.get("sites") or [] if not site.get("fence")]
    undone = {one["host"]: one.get("undone") for one in run.final.get("undone") or []}
    left = [host for host in resets if run.plan["fault"] in BOOTS and undone.get(host) in ("now", "timer")]
    return f"{', '.join(left)} was to be reset, and has not booted anew: nothing was broken" if left else ""


def client_words(plan: dict[str, Any]) -> str:
    """Who asked the guest."""
    client = plan["client"]
    if client.get("command"):
        return f"the command: {client['command']}"
    host, port = client["address"]
    return f"{client['kind']} at {host}:{port}, a question every {client['interval'] * 1e3:.0f} ms on one connection"


def next_steps(run: Run) -> list[str]:
    """How to get from where the drill ended to a protected guest; nothing where it is one."""
    guest = run.final.get("guest") or {}
    name, owner, holder = run.plan["guest"], guest.get("owner"), guest.get("holder")
    dark = {
        one["host"]: one for one in run.final.get("powers") or [] if one.get("error") and not guest.get("protected")
    }
    power = [
        f"power {host} on ({one['error']}) with this on {one['by']} as root: {one['by_hand']}"
        for host, one in dark.items()
    ]
    steps = [*power] if owner or not holder else []
    for one in run.final.get("undone") or []:
        if one.get("error"):
            booted = f"unless {one['host']} had to boot, " if one["host"] in dark else ""
            steps.append(f"{booted}undo the fault on {one['host']}: run '{one.get('by_hand')}' there as root")
    if guest.get("protected"):
        if run.final.get("missing"):
            steps.append(
                f"look why it is not as before: {'; '.join(run.final['missing'])}. 'remusctl events {name}' on {owner}, and the "
                "guest's console"
            )
        return steps
    state = ((guest.get("status") or {}).get(owner) or {}).get("state")
    if not run.final:
        steps.append("ask where it stands: playbooks/status.yml")
    elif owner and state in ("connecting", "seeding", "silent"):
        steps += [
            f"wait: its agent on {owner} goes on trying ('remusctl watch' there shows it)",
            f"if it does not get there, 'remusctl events {name} --problems' on {owner} says why, and which section of "
            "docs/runbook.md is about it",
        ]
    elif owner:
        steps.append(f"protect it where it runs now: playbooks/reprotect.yml -e remus_domain={name}")
    elif holder:
        steps.append(
            f"see that the old host is off, then run the copy of {holder}: failover.yml -e remus_domain={name} "
            "(docs/runbook.md, A host has died)"
        )
        steps += power  # the copy runs without it, and only while it is off
    else:
        steps.append(
            "bring both hosts and their agents up, then ask again: playbooks/status.yml; docs/runbook.md, A "
            "guest is gone"
        )
    return steps


def timeline(run: Run) -> list[tuple[float, str]]:
    """What happened, in order: (seconds since the beginning, words)."""
    words = {
        "breaking": "the fault is about to begin",
        "broken": f"begun: {FAULTS[run.plan['fault']]}",
        "mending": "it is being undone",
        "mended": "undone",
        "end": "the end of the drill",
    }
    found = [(at - run.start, words[name]) for name, at in run.phases.items() if name in words]
    found += [
        (one.at - run.start, f"{one.target} runs the guest, {one.source} did before") for one in verdicts.moves(run)
    ]
    found += [(at - run.start, f"the client's connection ended: {error}") for at, error in run.lost]
    for host in run.hosts:
        before: str | None = None
        for look in run.of(host):
            said = look.state if look.state is not None else "no agent" if look.reached else "no answer"
            if before is not None and said != before:
                found.append((look.answered - run.start, f"{host}: {before} → {said}"))
            before = said
    return sorted(found)
