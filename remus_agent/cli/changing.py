"""The commands of `remusctl` that change something."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from remus_agent.cli import changing_render, render
from remus_agent.cli.client import Client
from remus_agent.cli.output import show
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.reading import MARGIN
from remus_agent.errors import ConfigError, RefusedError

UNPROTECT_TIMEOUT: Final = 300.0
FAILOVER_TIMEOUT: Final = 900.0
SWITCHOVER_MARGIN: Final = 600.0
"""Seconds for everything but the last epoch: to activate the copy there, to destroy the guest here."""
FORGET_TIMEOUT: Final = 120.0
"""For two requests to a witness of several nodes, and for a request before it that asks it too."""


def protect(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Keep a copy of a domain on another host."""
    params: dict[str, Any] = {
        "domain": options.domain,
        "peer": options.peer,
        "wait": not options.no_wait,
        "timeout": options.timeout,
    }
    if options.interval_ms is not None:
        params["interval_ms"] = options.interval_ms
    answer = client.call("protect", params, timeout=options.timeout + MARGIN, on_progress=progress)
    progress.end()
    show(options, answer, render.status(answer))
    return 0


def unprotect(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """End the protection, or destroy a copy."""
    params: dict[str, Any] = {"domain": options.domain, "force": options.force}
    if options.dry_run or not options.yes:
        status = client.call("unprotect", {**params, "dry_run": True})
        plan = changing_render.unprotect_plan(status, force=options.force)
        if options.dry_run:
            show(options, {"domain": options.domain, "would": plan, "changed": False}, plan)
            return 0
        if changing_render.is_there_to_end(status):
            confirm(plan)
        params["expected"] = confirmed(status)
    answer = client.call("unprotect", params, timeout=UNPROTECT_TIMEOUT, on_progress=progress)
    progress.end()
    show(options, answer, render.status(answer))
    return 0


_LOSS: Final = (
    " Clients may have been told more than this copy knows, without the witness's word that they were not: you accept that loss,"
    " and it is recorded."
)


def failover(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Run a copy here after its primary's host was fenced."""
    params: dict[str, Any] = {
        "domain": options.domain,
        "fenced": {
            "host": options.fenced_host,
            "method": options.fenced_method,
            "evidence": options.evidence,
        },
    }
    if options.expected_generation is not None:
        params["expected_generation"] = options.expected_generation
    if options.accept_loss:
        params["accept_loss"] = True
    if options.dry_run:
        answer = client.call("failover", params | {"dry_run": True}, timeout=FAILOVER_TIMEOUT)
        show(options, answer, changing_render.failover_plan(answer))
        return 0
    if not options.yes:
        status = client.call("status", {"domain": options.domain})
        confirm(
            f"{options.domain} is {status.get('role')} here ({status.get('state')}). It will run on this host"
            f" from epoch {status.get('committed_epoch')} of generation {status.get('generation')}; whatever"
            f" came after that is lost. If {options.fenced_host} still runs it, its data will be damaged."
            + (_LOSS if options.accept_loss else "")
        )
        # What was confirmed is what may happen, nothing newer.
        params.setdefault("expected_generation", status.get("generation"))
        if status.get("session") is not None:
            params["expected_session"] = status["session"]
    answer = client.call("failover", params, timeout=FAILOVER_TIMEOUT, on_progress=progress)
    progress.end()
    show(options, answer, render.status(answer))
    return 0


def switchover(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Move a domain to its backup."""
    params: dict[str, Any] = {"domain": options.domain, "timeout": options.timeout, "dry_run": options.dry_run}
    if options.expected_generation is not None:
        params["expected_generation"] = options.expected_generation
    if not options.yes and not options.dry_run:
        trial = client.call("switchover", params | {"dry_run": True}, timeout=MARGIN)
        confirm(
            f"{options.domain} is moved to {trial.get('to')} and is gone from this host then; its clients notice a pause."
            " With a witness it is protected there by itself, unless [automatic] there says otherwise; without one not before"
            " somebody says so."
        )
        # What was confirmed is what may be moved, nothing newer.
        if trial.get("generation") is not None:
            params.setdefault("expected_generation", trial["generation"])
    timeout = options.timeout + SWITCHOVER_MARGIN
    answer = client.call("switchover", params, timeout=timeout, on_progress=progress)
    progress.end()
    show(options, answer, render.switchover(answer, trial=options.dry_run))
    return 0


_FORCED: Final = (
    " You made sure that {owner} is gone for good and that the guest runs nowhere: if it does, two hosts may run it."
)


def forget(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """Remove a guest's record from the witness."""
    params: dict[str, Any] = {"uuid": options.uuid, "force": options.force}
    if options.dry_run:
        answer = client.call("forget", {**params, "dry_run": True}, timeout=FORGET_TIMEOUT)
        show(options, answer, changing_render.forget_plan(answer))
        return 0
    if not options.yes:
        answer = client.call("forget", {**params, "dry_run": True}, timeout=FORGET_TIMEOUT)
        found = answer.get("record")
        if found is None:
            show(options, answer, render.forgotten(answer))
            return 0
        shown = {name: render.text(value) for name, value in found.items()}
        confirm(
            f"{shown.get('name')} is owned by {shown.get('owner')} (generation {shown.get('generation')}, {shown.get('state')}:"
            f" {shown.get('reason')}). That record is removed for good, and no copy of the guest can be activated by itself any"
            " more." + (_FORCED.format(owner=shown.get("owner")) if options.force else "")
        )
        # What was confirmed is what may go, nothing newer.
        params["expected_generation"] = found.get("generation")
    answer = client.call("forget", params, timeout=FORGET_TIMEOUT)
    show(options, answer, render.forgotten(answer))
    return 0


def confirmed(status: Mapping[str, Any]) -> dict[str, Any]:
    """What was shown to whom was asked, for the agent: that may end, nothing newer."""
    return {"role": status.get("role"), "generation": status.get("generation")}


class Unconfirmed(KeyboardInterrupt):
    """Ctrl-C in answer to a question: nothing was asked of the agent yet."""


def confirm(question: str) -> None:
    """Ask on the terminal. Raises RefusedError unless the answer is yes, ConfigError when there is nobody to
    ask, Unconfirmed at Ctrl-C."""
    if not sys.stdin.isatty():
        raise ConfigError("this needs a confirmation, and standard input is not a terminal", hint="add --yes")
    print(f"{question}\nContinue? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        raise Unconfirmed from None
    if answer.strip().lower() not in {"y", "yes"}:
        raise RefusedError("not confirmed", left="nothing was changed")
