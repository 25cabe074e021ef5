"""`remusctl reprotect`, `pause` and `resume`: protections that end for a time, and begin again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from remus_agent.cli import changing_render, render
from remus_agent.cli.changing import confirm, confirmed
from remus_agent.cli.client import Client
from remus_agent.cli.output import show
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.reading import MARGIN
from remus_agent.errors import AlreadyProtected, ConfigError, RefusedError

_PROBE_TIMEOUT: Final = 60.0
_PAUSE_TIMEOUT: Final = 120.0
"""Seconds for the end of a protection, as the agent is told."""
_UNDER_WAY: Final = frozenset({"protected", "connecting", "seeding"})


def reprotect(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Protect a domain again where it runs, toward the host that it came from, or that lost its copy."""
    status = client.call("status", {"domain": options.domain})
    peer = _peer(client, options, status)
    if options.dry_run:
        found = client.call("probe", {"domain": options.domain, "peer": peer}, timeout=_PROBE_TIMEOUT)
        show(options, {"peer": peer, **found}, render.probe(found, options.domain, peer))
        return 0 if found.get("ok") else RefusedError.exit_code
    params = {
        "domain": options.domain,
        "peer": peer,
        "wait": not options.no_wait,
        "timeout": options.timeout,
    }
    answer = client.call("protect", params, timeout=options.timeout + MARGIN, on_progress=progress)
    progress.end()
    show(options, answer, render.status(answer))
    return 0


def _peer(client: Client, options: argparse.Namespace, status: Mapping[str, Any]) -> str:
    """The host that shall keep the copy. Raises RemusError when the domain is not to be protected from here."""
    role, state, known = status.get("role"), status.get("state"), status.get("peer")
    if role == "backup":
        raise RefusedError(
            f"it does not run here: this host holds a copy of it ({state})",
            operation="reprotect",
            domain=options.domain,
            left="nothing was changed",
            hint=f"run this on {known}, or see remusctl topology",
        )
    if role == "primary" and state in _UNDER_WAY and options.peer in (None, known):
        raise AlreadyProtected(
            f"it is {state}, to {known}", operation="reprotect", domain=options.domain, left="nothing was changed"
        )
    if options.peer or known:
        return str(options.peer or known)
    peers = sorted(client.call("agent").get("peers") or {})
    if len(peers) == 1:
        return str(peers[0])
    raise ConfigError(
        "nobody here knows which host had it before",
        operation="reprotect",
        domain=options.domain,
        left="nothing was changed",
        hint=f"name it: --peer {' or '.join(peers) or 'HOST'}",
    )


def pause(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Suspend a protection."""
    params: dict[str, Any] = {
        "domain": options.domain,
        "seconds": options.seconds,
        "reason": options.reason,
        "timeout": _PAUSE_TIMEOUT,
    }
    if options.dry_run or not options.yes:
        status = client.call("pause", {**params, "dry_run": True})
        plan = changing_render.pause_plan(status, options.seconds)
        if options.dry_run:
            show(options, {"domain": options.domain, "would": plan, "changed": False}, plan)
            return 0
        confirm(plan)
        params["expected"] = confirmed(status)
    answer = client.call("pause", params, timeout=_PAUSE_TIMEOUT + MARGIN, on_progress=progress)
    progress.end()
    show(options, answer, render.status(answer))
    return 0


def resume(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """End a pause."""
    params = {"domain": options.domain, "wait": not options.no_wait, "timeout": options.timeout}
    answer = client.call("resume", params, timeout=options.timeout + MARGIN, on_progress=progress)
    progress.end()
    show(options, answer, render.status(answer))
    return 0
