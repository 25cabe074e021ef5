"""What a command would change, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remus_agent.cli.render import duration, facts, text


def is_there_to_end(status: Mapping[str, Any]) -> bool:
    """Whether `unprotect` would end or discard anything, by the status of a domain."""
    return status.get("role") != "none" or status.get("state") == "paused"


def pause_plan(status: Mapping[str, Any], seconds: float) -> str:
    """By the status of a domain, of which an agent's trial has found that it can be paused."""
    name, peer = text(status.get("domain")), text(status.get("peer"))
    again = f"after {duration(seconds)} it is protected again by itself, with a full copy"
    if status.get("role") == "none":
        return f"The pause of {name} would be counted anew: {again}. Until then there is no copy of it."
    return (
        f"The protection of {name} ({text(status.get('state'))}) would end for a time: {peer} discards its copy first, then held"
        f" output flows; {again}. Until then {name} is gone when this host dies."
    )


def unprotect_plan(status: Mapping[str, Any], *, force: bool) -> str:
    """By the status of a domain, of which an agent's trial has found that its protection can be ended in this way."""
    name, role, state = text(status.get("domain")), status.get("role"), text(status.get("state"))
    peer = text(status.get("peer"))
    if role == "backup":
        copy = f"The copy of {name} on this host ({state}, epoch {text(status.get('committed_epoch'))}"
        return f"{copy} of generation {text(status.get('generation'))}) would be discarded for good."
    if role == "none":
        return (
            f"Its pause would end, and {name} stay unprotected."
            if state == "paused"
            else f"Nothing: {name} is {state}."
        )
    if state == "stood-down":
        return f"{name} is paused here because {peer} owns it: it would be destroyed."
    if state == "starting":
        return f"{name} was built here to run, and never ran: it would be destroyed."
    end = (
        f"The protection of {name} ({state}) would end: {peer} discards its copy first, then held output flows. From then on"
        f" {name} is gone when this host dies."
    )
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
