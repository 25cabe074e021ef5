"""The commands of `remusctl` that only look."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Final

from remus_agent.cli import render
from remus_agent.cli.client import Client
from remus_agent.cli.output import entry, show
from remus_agent.cli.progress import ProgressLines
from remus_agent.errors import ConfigError, RefusedError

MARGIN: Final = 30.0
"""Seconds that a request may take longer than the agent was given for it."""
FENCE_TIMEOUT: Final = 3 * 3600.0 + MARGIN
"""Three runs of a fence agent with the longest timeout that can be configured."""
FOLLOW_SECONDS: Final = 1.0


def list_domains(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """All domains that the agent knows."""
    answer = client.call("list")
    show(options, answer, render.domains(answer.get("domains") or []))
    return 0


def status(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """One domain in full, or all in short."""
    if options.domain is None:
        return list_domains(client, options, progress)
    answer = client.call("status", {"domain": options.domain})
    show(options, answer, render.status(answer))
    return 0


def agent(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """The agent, its host and its peers."""
    answer = client.call("agent")
    show(options, answer, render.agent(answer))
    return 0


def probe(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Whether a domain could be protected."""
    params = {"domain": options.domain, "peer": options.peer}
    answer = client.call("probe", params, timeout=60.0, on_progress=progress)
    progress.end()
    show(options, answer, render.probe(answer, options.domain, options.peer))
    return 0 if answer.get("ok") else RefusedError.exit_code


def fence_check(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """What the fence agent of a peer says."""
    answer = client.call("fence-check", {"host": options.host}, timeout=FENCE_TIMEOUT)
    show(options, answer, render.fence_check(answer))
    return ConfigError.exit_code if answer.get("unknown_options") else 0


def events(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """What happened; with --follow also what happens."""
    params: dict[str, Any] = {"since": options.since, "limit": options.limit}
    if options.problems:
        params["problems"] = True
    if options.domain is not None:
        params["domain"] = options.domain
    found: list[dict[str, Any]] = client.call("events", params).get("events") or []
    if not options.follow:
        show(options, {"events": found}, "\n".join(map(render.event, found)) or "No events.")
        return 0
    while True:
        for one in found:
            print(render.event(one) if options.output == "table" else entry(one, options.output))
            params["since"] = max(params["since"], one["id"])
        sys.stdout.flush()
        if not found:
            time.sleep(FOLLOW_SECONDS)
        found = client.call("events", params).get("events") or []


def validate_config(_: Client, options: argparse.Namespace, __: ProgressLines) -> int:
    """Whether a configuration is right."""
    # Imported here, as all that most commands run without: on a slow host it doubles the time they take to start.
    from remus_agent import config  # noqa: PLC0415

    path = options.file or config.DEFAULT_PATH
    config.check_own(config.load(path))
    show(options, {"file": str(path), "valid": True}, f"{path} is valid.")
    return 0
