"""The arguments of `remusctl`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from remus_agent.cli import changing_arguments, stream_arguments
from remus_agent.cli.argument_types import count, pause
from remus_agent.cli.output import FORMATS
from remus_agent.cli.stream_arguments import CONFIG

DESCRIPTION: Final = "Protect running Xen guests with a copy on a second host, and look at what the agent does."
EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 refused, 4 no such domain,"
    " 5 protected already, 6 protocol, 7 the other host, 8 Xen, 9 output buffer, 10 journal, 11 authority,"
    " 12 no agent here, 13 a file or the output, 14 to 16 see remusctl stream --help, 17 the witness, 18 fencing,"
    " 19 a switchover was called off (the domain runs here), 20 a switchover is in doubt (it is down here),"
    " 129 hung up, 130 interrupted, 143 terminated."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="remusctl", description=DESCRIPTION, epilog=EPILOG)
    main.add_argument("-o", "--output", choices=FORMATS, default="table", help="how to print results")
    main.add_argument("--socket", metavar="PATH", help="control socket (default: $REMUS_SOCKET, /run/remus/agent.sock)")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-o", "--output", choices=FORMATS, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    shared.add_argument("--socket", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    verbs = main.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, text: str, **more: Any) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=[shared], **more)

    verb("list", "list the domains of this host and their protection")
    verb("agent", "show the agent of this host and its peers")

    status = verb("status", "show the protection of one domain, or of all")
    status.add_argument("domain", nargs="?")

    verb("topology", "show where every guest of the pair runs: both hosts, paths, generations, the witness")

    history = verb("history", "show when a domain failed over, was moved, or ran alone, as far as events go back")
    history.add_argument("domain")

    watch = verb(
        "watch", "show all domains again and again: state, epochs, pause, held output, progress", aliases=["top"]
    )
    watch.add_argument(
        "--interval", type=pause, default=1.0, metavar="SECONDS", help="between two looks (default: 1, at least 0.2)"
    )
    watch.add_argument("--once", action="store_true", help="without a terminal: one look, then end")

    changing_arguments.add(verb)

    probe = verb("probe", "see whether a domain could be protected; changes nothing")
    probe.add_argument("domain")
    probe.add_argument("--peer", required=True, help="host that would keep the copy")

    fence = verb("fence-check", "ask the fence agent of a peer whether it works; switches nothing")
    fence.add_argument("host", help="peer that it would switch off, as the configuration names it")

    events = verb("events", "show what happened")
    events.add_argument("domain", nargs="?")
    events.add_argument("--follow", action="store_true", help="go on with new events until interrupted")
    events.add_argument(
        "--problems", action="store_true", help="only what somebody has to do something about, and where to read how"
    )
    events.add_argument("--since", type=count, default=0, metavar="ID", help="only events after this one")
    events.add_argument("--limit", type=count, default=200, metavar="N", help="at most so many (default: 200)")

    test = verb(
        "selftest", "check this host, its agent and all that they need: each with the next step; changes nothing"
    )
    test.add_argument("--config", type=Path, default=CONFIG, metavar="FILE", help="of the agent (%(default)s)")
    test.add_argument(
        "--supervisor",
        type=Path,
        default=Path("/run/remus/supervisor.sock"),
        metavar="PATH",
        help="the supervisor's socket (%(default)s)",
    )

    bundle = verb("support-bundle", "collect what somebody needs who shall help, without secrets, in one file")
    bundle.add_argument("file", type=Path, metavar="FILE", help="to write, a .tar.xz that does not exist yet")
    bundle.add_argument("--config", type=Path, default=CONFIG, metavar="FILE", help="of the agent (%(default)s)")
    bundle.add_argument(
        "--state", type=Path, default=Path("/var/lib/remus"), metavar="DIR", help="of the agent (%(default)s)"
    )

    check = verb("validate-config", "check a configuration of the agent; starts and asks nothing")
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: /etc/remus/agent.toml")

    stream_arguments.add(verb, shared)
    return main
