"""`remusctl`: the command line of the agent on this host."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from remus_agent.cli import again, changing, history, reading, render, selftest, topology, watch
from remus_agent.cli.arguments import parser
from remus_agent.cli.client import AgentError, Client, socket_path
from remus_agent.cli.output import message
from remus_agent.cli.progress import ProgressLines
from remus_agent.errors import ConfigError, FileError, RemusError

if TYPE_CHECKING:
    from remus_agent.cli.send import Send

Verb = Callable[[Client, argparse.Namespace, ProgressLines], int]

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
    print(render.error(facts) if output == "table" else message({"error": facts}, output), file=sys.stderr)


def _support_bundle(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    # Imported here: archives and the configuration take longer to load than most commands take to run.
    from remus_agent.cli import bundle  # noqa: PLC0415

    return bundle.support_bundle(client, options, progress)


def _stream(send: Send | None, _: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    if options.tool == "send":
        from remus_agent.cli import send as relayed  # noqa: PLC0415

        if send is None:
            raise ConfigError("streams can be sent by the installed remusctl only")
        return relayed.run(send, options, progress)
    # Imported here: numpy takes longer to load than every other command takes to run.
    from remus_agent.cli import stream  # noqa: PLC0415

    return stream.run(options, progress)


VERBS: Final[dict[str, Verb]] = {
    "list": reading.list_domains,
    "status": reading.status,
    "agent": reading.agent,
    "topology": topology.topology,
    "history": history.history,
    "watch": watch.watch,
    "top": watch.watch,
    "protect": changing.protect,
    "reprotect": again.reprotect,
    "pause": again.pause,
    "resume": again.resume,
    "unprotect": changing.unprotect,
    "failover": changing.failover,
    "switchover": changing.switchover,
    "probe": reading.probe,
    "fence-check": reading.fence_check,
    "forget": changing.forget,
    "selftest": selftest.selftest,
    "support-bundle": _support_bundle,
    "events": reading.events,
    "validate-config": reading.validate_config,
}
CHANGING: Final = frozenset(
    {"protect", "reprotect", "pause", "resume", "unprotect", "failover", "switchover", "forget"}
)

if __name__ == "__main__":
    sys.exit(main())
