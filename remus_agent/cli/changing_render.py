"""What a command would change, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remus_agent.cli.render import facts, text


def unprotect_plan(status: Mapping[str, Any], *, force: bool) -> str:
    """By the status of a domain."""
    name, role, state = text(status.get("domain")), status.get("role"), text(status.get("state"))
    peer = text(status.get("peer"))
    if role == "backup":
        copy = f"the copy of {name} on this host ({state}, epoch {text(status.get('committed_epoch'))}"
        copy += f" of generation {text(status.get('generation'))})"
        return (
            f"{copy} would be discarded for good." if force else f"Refused without --force: {copy} would be discarded."
        )
    if role == "none":
        return (
            f"Its pause would end, and {name} stay unprotected."
            if state == "paused"
            else f"Nothing: {name} is {state}."
        )
    if state == "stood-down":
        paused = f"{name} is paused here because {peer} owns it"
        return f"{paused}: it would be destroyed." if force else f"Refused without --force: {paused}."
    if state == "starting":
        built = f"{name} was built here to run, and never ran"
        return f"{built}: it would be destroyed." if force else f"Refused without --force: {built}."
    end = f"The protection of {name} ({state}) would end: {peer} discards its copy first, then held output flows."
    if force:
        end += (
            f" Where {peer} cannot be asked, output flows all the same: you vouch that its copy will not be activated."
        )
    return end


def failover_plan(answer: Mapping[str, Any]) -> str:
    """By an agent's trial, which has found nothing against it."""
    return f"{text(answer.get('domain'))} could be run here now:\n" + facts(
        [
            ("by", answer.get("by")),
            ("copy of", answer.get("from")),
            ("epoch", answer.get("committed_epoch")),
            ("generation", answer.get("generation")),
            ("session", answer.get("session")),
        ]
    )


def forget_plan(answer: Mapping[str, Any]) -> str:
    """By an agent's trial."""
    record = answer.get("record")
    if record is None:
        return f"The witness has no record of {text(answer.get('uuid'))}: there is nothing to remove."
    return f"The record of {text(record.get('name'))} would be removed:\n" + facts(
        (name, record.get(name)) for name in ("owner", "generation", "state", "backup", "reason")
    )
