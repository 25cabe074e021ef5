"""`remusctl`: the command line of the agent on this host."""

from __future__ import annotations

import argparse
import functools
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
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
    options: argparse.Namespace | None = None
    code: int | None = None
    verbs: dict[str, Verb] = {**VERBS, "stream": functools.partial(_stream, send)}
    _ready_streams()
    progress = ProgressLines(sys.stderr)
    try:
        try:
            options = parser().parse_args(arguments)
            with Client(socket_path(options.socket)) as client:
                code = verbs[options.verb](client, options, progress)
        except RemusError as error:
            progress.end()
            code = error.status if isinstance(error, AgentError) else error.exit_code
            _report(error, "table" if options is None else options.output)
        except SystemExit:
            if options is None:  # the parser's help, which somebody may have seen enough of
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # what was printed before an error as well
    except KeyboardInterrupt as stop:
        progress.end()
        if isinstance(stop, changing.Unconfirmed):
            print("\nremusctl: interrupted, nothing was changed", file=sys.stderr)
        elif options is not None and options.verb in CHANGING:
            print("remusctl: interrupted; the agent carries on, see remusctl status", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _unread(code)
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


def _ready_streams() -> None:
    """Standard streams that were closed lead nowhere, and no name of a guest is one that they cannot print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  for as long as the process lives
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unread(code: int | None) -> int:
    """Nobody reads standard output or standard error any more: the exit code. code: of the command, where it has ended. Who read
    our output has seen enough; errors that nobody reads are errors all the same."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    poll = select.poll()
    streams = {stream.fileno() for stream in (sys.stdout, sys.stderr)}
    for fd in streams:
        poll.register(fd, 0)
    broken = {fd for fd, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)}
    ended = 0 if sys.stdout.fileno() in broken else FileError.exit_code
    for fd in broken:
        os.dup2(nowhere, fd)  # Python would complain once more when it flushes at exit
    return ended if code is None else code


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
