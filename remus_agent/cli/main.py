"""`remusctl`: the command line of the agent on this host."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from remus_agent.cli import render
from remus_agent.cli.arguments import parser
from remus_agent.cli.client import AgentError, Client, socket_path
from remus_agent.cli.progress import ProgressLines
from remus_agent.errors import ConfigError, FileError, RefusedError, RemusError

if TYPE_CHECKING:
    from remus_agent.cli.send import Send

Verb = Callable[[Client, argparse.Namespace, ProgressLines], int]

MARGIN: Final = 30.0
"""Seconds that a request may take longer than the agent was given for it."""
UNPROTECT_TIMEOUT: Final = 300.0
FAILOVER_TIMEOUT: Final = 900.0
SWITCHOVER_MARGIN: Final = 600.0
"""Seconds for everything but the last epoch: to activate the copy there, to destroy the guest here."""
FENCE_TIMEOUT: Final = 3 * 3600.0 + MARGIN
"""Three runs of a fence agent with the longest timeout that can be configured."""
FORGET_TIMEOUT: Final = 120.0
"""For two requests to a witness of several nodes, and for a request before it that asks it too."""
FOLLOW_SECONDS: Final = 1.0
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None, *, send: Send | None = None) -> int:
    """Run one command; returns the exit code. No traceback reaches the user. send: how to relay a stream, which takes more
    than this package may use."""
    options = parser().parse_args(arguments)
    verbs: dict[str, Verb] = {**VERBS, "stream": functools.partial(_stream, send)}
    progress = ProgressLines(sys.stderr)
    try:
        try:
            with Client(socket_path(options.socket)) as client:
                code = verbs[options.verb](client, options, progress)
        except RemusError as error:
            progress.end()
            _report(error, options.output)
            code = error.status if isinstance(error, AgentError) else error.exit_code
        sys.stdout.flush()  # what was printed before an error as well
    except KeyboardInterrupt:
        progress.end()
        if options.verb in CHANGING:
            print("remusctl: interrupted; the agent carries on, see remusctl status", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The agent's socket and files have errors of their own, so this is our output: a full disk, mostly.
        progress.end()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"remusctl: cannot write the result: {error.strerror or error}", file=sys.stderr)
        return FileError.exit_code
    except Exception as error:
        progress.end()
        if os.environ.get("REMUS_DEBUG"):
            raise
        print(
            f"remusctl: this should not happen: {type(error).__name__}: {error}\n"
            "  next: report it, with the output of the same command under REMUS_DEBUG=1",
            file=sys.stderr,
        )
        return 1
    return code


def _report(error: RemusError, output: str) -> None:
    facts = error.as_dict()
    print(json.dumps({"error": facts}) if output == "json" else render.error(facts), file=sys.stderr)


def _show(options: argparse.Namespace, answer: Any, shown: str) -> None:
    print(render.as_json(answer) if options.output == "json" else shown)


def _list(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    answer = client.call("list")
    _show(options, answer, render.domains(answer.get("domains") or []))
    return 0


def _status(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    if options.domain is None:
        return _list(client, options, progress)
    answer = client.call("status", {"domain": options.domain})
    _show(options, answer, render.status(answer))
    return 0


def _agent(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    answer = client.call("agent")
    _show(options, answer, render.agent(answer))
    return 0


def _protect(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
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
    _show(options, answer, render.status(answer))
    return 0


def _unprotect(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    if options.force and not options.yes:
        status = client.call("status", {"domain": options.domain})
        _confirm(
            f"{options.domain} is {status.get('role')} here ({status.get('state')}). Its protection ends,"
            " and a copy on this host is discarded for good; so is a guest that is paused here because another host owns it."
        )
    params = {"domain": options.domain, "force": options.force}
    answer = client.call("unprotect", params, timeout=UNPROTECT_TIMEOUT, on_progress=progress)
    progress.end()
    _show(options, answer, render.status(answer))
    return 0


_LOSS: Final = (
    " Clients may have been told more than this copy knows, without the witness's word that they were not: you accept that loss,"
    " and it is recorded."
)


def _failover(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
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
    if not options.yes:
        status = client.call("status", {"domain": options.domain})
        _confirm(
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
    _show(options, answer, render.status(answer))
    return 0


def _switchover(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    params: dict[str, Any] = {"domain": options.domain, "timeout": options.timeout, "dry_run": options.dry_run}
    if options.expected_generation is not None:
        params["expected_generation"] = options.expected_generation
    timeout = options.timeout + SWITCHOVER_MARGIN
    answer = client.call("switchover", params, timeout=timeout, on_progress=progress)
    progress.end()
    _show(options, answer, render.switchover(answer, trial=options.dry_run))
    return 0


def _probe(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    params = {"domain": options.domain, "peer": options.peer}
    answer = client.call("probe", params, timeout=60.0, on_progress=progress)
    progress.end()
    _show(options, answer, render.probe(answer, options.domain, options.peer))
    return 0 if answer.get("ok") else RefusedError.exit_code


def _fence_check(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    answer = client.call("fence-check", {"host": options.host}, timeout=FENCE_TIMEOUT)
    _show(options, answer, render.fence_check(answer))
    return ConfigError.exit_code if answer.get("unknown_options") else 0


_FORCED: Final = (
    " You made sure that {owner} is gone for good and that the guest runs nowhere: if it does, two hosts may run it."
)


def _forget(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    params: dict[str, Any] = {"uuid": options.uuid, "force": options.force}
    if not options.yes:
        answer = client.call("forget", {**params, "dry_run": True}, timeout=FORGET_TIMEOUT)
        found = answer.get("record")
        if found is None:
            _show(options, answer, render.forgotten(answer))
            return 0
        shown = {name: render.text(value) for name, value in found.items()}
        _confirm(
            f"{shown.get('name')} is owned by {shown.get('owner')} (generation {shown.get('generation')}, {shown.get('state')}:"
            f" {shown.get('reason')}). That record is removed for good, and no copy of the guest can be activated by itself any"
            " more." + (_FORCED.format(owner=shown.get("owner")) if options.force else "")
        )
        # What was confirmed is what may go, nothing newer.
        params["expected_generation"] = found.get("generation")
    answer = client.call("forget", params, timeout=FORGET_TIMEOUT)
    _show(options, answer, render.forgotten(answer))
    return 0


def _events(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    params: dict[str, Any] = {"since": options.since, "limit": options.limit}
    if options.domain is not None:
        params["domain"] = options.domain
    found: list[dict[str, Any]] = client.call("events", params).get("events") or []
    if not options.follow:
        _show(options, {"events": found}, "\n".join(map(render.event, found)) or "No events.")
        return 0
    while True:
        for one in found:
            print(json.dumps(one) if options.output == "json" else render.event(one))
            params["since"] = max(params["since"], one["id"])
        sys.stdout.flush()
        if not found:
            time.sleep(FOLLOW_SECONDS)
        found = client.call("events", params).get("events") or []


def _validate_config(_: Client, options: argparse.Namespace, __: ProgressLines) -> int:
    # Imported here, as all that most commands run without: on a slow host it doubles the time they take to start.
    from remus_agent import config  # noqa: PLC0415

    path = options.file or config.DEFAULT_PATH
    config.check_own(config.load(path))
    _show(options, {"file": str(path), "valid": True}, f"{path} is valid.")
    return 0


def _stream(send: Send | None, _: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    if options.tool == "send":
        from remus_agent.cli import send as relayed  # noqa: PLC0415

        if send is None:
            raise ConfigError("streams can be sent by the installed remusctl only")
        return relayed.run(send, options, progress)
    # Imported here: numpy takes longer to load than every other command takes to run.
    from remus_agent.cli import stream  # noqa: PLC0415

    return stream.run(options, progress)


def _confirm(question: str) -> None:
    """Ask on the terminal. Raises RefusedError unless the answer is yes, ConfigError when there is nobody to
    ask."""
    if not sys.stdin.isatty():
        raise ConfigError("this needs a confirmation, and standard input is not a terminal", hint="add --yes")
    print(f"{question}\nContinue? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RefusedError("not confirmed", left="nothing was changed")


VERBS: Final[dict[str, Verb]] = {
    "list": _list,
    "status": _status,
    "agent": _agent,
    "protect": _protect,
    "unprotect": _unprotect,
    "failover": _failover,
    "switchover": _switchover,
    "probe": _probe,
    "fence-check": _fence_check,
    "forget": _forget,
    "events": _events,
    "validate-config": _validate_config,
}
CHANGING: Final = frozenset({"protect", "unprotect", "failover", "switchover", "forget"})

if __name__ == "__main__":
    sys.exit(main())
