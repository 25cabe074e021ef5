"""The arguments of `remusctl`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from remus_agent.cli import stream_arguments
from remus_agent.cli.output import FORMATS

MAX_INTERVAL_MS: Final = 60_000
DESCRIPTION: Final = "Protect running Xen guests with a copy on a second host, and look at what the agent does."
EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 refused, 4 no such domain,"
    " 5 protected already, 6 protocol, 7 the other host, 8 Xen, 9 output buffer, 10 journal, 11 authority,"
    " 12 no agent here, 13 a file or the output, 14 to 16 see remusctl stream --help, 17 the witness, 18 fencing,"
    " 19 a switchover was called off (the domain runs here), 20 a switchover is in doubt (it is down here), 130 interrupted."
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

    protect = verb("protect", "keep a copy of a running domain on another host")
    protect.add_argument("domain")
    protect.add_argument("--peer", required=True, help="host that keeps the copy, as the configuration names it")
    protect.add_argument(
        "--interval-ms",
        type=_interval,
        help="time between checkpoints; 0: as fast as it goes (default: configuration)",
    )
    protect.add_argument("--no-wait", action="store_true", help="do not wait until the domain is protected")
    protect.add_argument(
        "--timeout", type=_seconds, default=900.0, help="seconds to wait until it is protected (default: 900)"
    )

    unprotect = verb("unprotect", "end the protection of a domain; the domain runs on")
    unprotect.add_argument("domain")
    unprotect.add_argument("--force", action="store_true", help="on the backup: discard the copy of the domain")
    unprotect.add_argument("--yes", action="store_true", help="do not ask")

    failover = verb("failover", "run a domain here from its last commit, after its host died and was fenced")
    failover.add_argument("domain")
    failover.add_argument("--fenced-host", required=True, metavar="HOST", help="host that was fenced")
    failover.add_argument(
        "--fenced-method", required=True, metavar="METHOD", help="how it was fenced, for example power-off"
    )
    failover.add_argument("--evidence", default="", metavar="TEXT", help="how you know that it is off; recorded")
    failover.add_argument(
        "--accept-loss",
        action="store_true",
        help="where the witness can't be asked or does not offer this copy: run it all the same. The old host may have run on"
        " alone; what it has told clients since this copy was made is lost then. Recorded as a possible loss",
    )
    failover.add_argument("--expected-generation", type=_count, metavar="N", help="refuse when it is another one")
    failover.add_argument("--yes", action="store_true", help="do not ask")

    switchover = verb("switchover", "move a protected domain to its backup, with nothing lost")
    switchover.add_argument("domain")
    switchover.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        help="seconds that its last epoch may take; after that it goes on here (default: 60)",
    )
    switchover.add_argument("--dry-run", action="store_true", help="only say whether it could be moved now")
    switchover.add_argument("--expected-generation", type=_count, metavar="N", help="refuse when it is another one")

    probe = verb("probe", "see whether a domain could be protected; changes nothing")
    probe.add_argument("domain")
    probe.add_argument("--peer", required=True, help="host that would keep the copy")

    fence = verb("fence-check", "ask the fence agent of a peer whether it works; switches nothing")
    fence.add_argument("host", help="peer that it would switch off, as the configuration names it")

    _add_forget(verb)

    events = verb("events", "show what happened")
    events.add_argument("domain", nargs="?")
    events.add_argument("--follow", action="store_true", help="go on with new events until interrupted")
    events.add_argument("--since", type=_count, default=0, metavar="ID", help="only events after this one")
    events.add_argument("--limit", type=_count, default=200, metavar="N", help="at most so many (default: 200)")

    check = verb("validate-config", "check a configuration of the agent; starts and asks nothing")
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: /etc/remus/agent.toml")

    stream_arguments.add(verb, shared)
    return main


def _add_forget(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    forget = verb("forget", "remove the witness's record of a guest that is gone for good")
    forget.add_argument("uuid", metavar="UUID", type=_uuid, help="of the guest, as `xl list -v` shows it")
    forget.add_argument(
        "--force",
        action="store_true",
        help="also where another host owns it: that host is gone for good, and you made sure that the guest runs nowhere",
    )
    forget.add_argument("--yes", action="store_true", help="do not ask")


def _uuid(value: str) -> str:
    try:
        usual = str(UUID(value))
    except ValueError:
        usual = None
    if value != usual:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a UUID in its usual form"
            + (f", which would be {usual}" if usual else "")
            + "; find it with `xl list -v` or `xl vm-list`, or as `uuid` in the guest's configuration"
        )
    return value


def _count(value: str) -> int:
    number = int(value)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _interval(value: str) -> int:
    number = _count(value)
    if number > MAX_INTERVAL_MS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_INTERVAL_MS}")
    return number


def _seconds(value: str) -> float:
    number = float(value)
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError("must be above 0 and at most 86400")
    return number
