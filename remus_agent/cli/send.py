"""`remusctl stream send`: the arguments, the banner and the summary of a relay; who relays is given to it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remus_agent.cli import files
from remus_agent.cli.client import socket_path
from remus_agent.cli.output import message
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.render import duration, facts, size
from remus_agent.errors import ConfigError, FileError, RemusError
from remus_agent.protocol.control import Progress

BANNER: Final = b"xl migration receiver ready, send binary domain data.\n"
"""What xl reads before it sends anything (Xen: tools/xl/xl_migrate.c)."""
_EVERY: Final = 0.2
"""Seconds between looks at the progress, on a terminal."""
_ENDS: Final = {
    "whole": "with its END",
    "between-epochs": "between epochs: everything complete is acknowledged",
    "broken-off": "broken off",
}

Show = Callable[[Mapping[str, Any]], None]
"""Told what was relayed so far, as the summary has it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to relay. fd, name: the stream. to: a peer's name or ADDRESS:PORT. domain: the only one that may be relayed.
    config: of this host's agent; socket: its control socket. ready: to be called when the stream may begin."""

    fd: int
    name: str
    to: str
    domain: str | None
    config: Path
    socket: Path
    ready: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A relay that has ended. report: its summary; code: for the process, unless an error says it."""

    report: Mapping[str, Any]
    code: int
    error: RemusError | None


Send = Callable[[Request, Show], Outcome]


def run(send: Send, options: argparse.Namespace, progress: ProgressLines) -> int:
    """The tool; returns the exit code. Raises RemusError."""
    if options.banner and options.domain is None:
        raise ConfigError(
            "--banner needs --domain",
            hint="xl touches the guest once it has the banner, so what forbids that must be known before",
        )
    if options.banner and options.file != files.STANDARD:
        raise ConfigError("--banner is for standard input", hint="leave one of the two away")
    with files.Input(options.file, progress, "sending") as source:
        request = Request(
            fd=source.fileno(),
            name=source.name,
            to=options.to,
            domain=options.domain,
            config=options.config,
            socket=socket_path(options.socket),
            ready=_say_banner if options.banner else lambda: None,
        )
        outcome = send(request, _shower(progress))
    if outcome.report.get("domain") is not None:
        _summarize(outcome.report, options.output)
    if outcome.error is not None:
        raise outcome.error
    return outcome.code


def _say_banner() -> None:
    try:
        os.write(sys.stdout.fileno(), BANNER)
    except OSError as error:
        raise FileError(f"cannot write the banner: {error.strerror}", left="nothing was sent") from error


def _shower(progress: ProgressLines) -> Show:
    if not sys.stderr.isatty():
        return lambda _: None
    next_at = 0.0

    def show(report: Mapping[str, Any]) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + _EVERY
            message = f"{report['epochs']} epochs acknowledged"
            done = report["bytes"] >> 20
            progress(Progress(phase="sending", done=done, unit="MiB", message=message, elapsed=report["seconds"]))

    return show


def _summarize(report: Mapping[str, Any], output: str) -> None:
    """On standard error, because standard output may lead to xl."""
    if output != "table":
        print(message({"summary": dict(report)}, output), file=sys.stderr)
        return
    pairs = [
        ("domain", report["domain"]),
        ("backup", report["backup"]),
        ("session", report["session"]),
        ("acknowledged", f"{report['epochs']} epochs, {report['pages']} pages"),
        ("sent", f"{size(report['bytes'])} ({report['bytes']} bytes)"),
        ("duration", duration(report["seconds"])),
        ("the stream ended", _ENDS[report["ended"]]),
    ]
    print(facts(pairs), file=sys.stderr)
