"""The arguments of those commands of `remusctl` that change something."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from remus_agent.cli.argument_types import count, guest_uuid, interval, period, seconds

Verb = Callable[[str, str], argparse.ArgumentParser]
"""Makes a command: its name, and what it does."""


def add(verb: Verb) -> None:
    """Add them."""
    _protection(verb)
    _roles(verb)
    _forget(verb)


def _protection(verb: Verb) -> None:
    protect = verb("protect", "keep a copy of a running domain on another host")
    protect.add_argument("domain")
    protect.add_argument("--peer", required=True, help="host that keeps the copy, as the configuration names it")
    protect.add_argument(
        "--interval-ms",
        type=interval,
        help="time between checkpoints; 0: as fast as it goes (default: configuration)",
    )
    protect.add_argument("--no-wait", action="store_true", help="do not wait until the domain is protected")
    protect.add_argument(
        "--timeout", type=seconds, default=900.0, help="seconds to wait until it is protected (default: 900)"
    )

    again = verb("reprotect", "protect a domain again that runs here after a failover or an outage")
    again.add_argument("domain")
    again.add_argument("--peer", help="host that keeps the copy (default: the one that had it, or ran it, before)")
    again.add_argument("--no-wait", action="store_true", help="do not wait until the domain is protected")
    again.add_argument(
        "--timeout", type=seconds, default=900.0, help="seconds to wait until it is protected (default: 900)"
    )
    again.add_argument("--dry-run", action="store_true", help="only say whether it could be protected there")

    pause = verb("pause", "suspend a protection for a time: the copy goes, the domain runs on unprotected")
    pause.add_argument("domain")
    pause.add_argument(
        "--for",
        dest="seconds",
        type=period,
        required=True,
        metavar="TIME",
        help="after which it is protected again by itself: 90s, 30m, 2h, 1h30m, at most 7d",
    )
    pause.add_argument("--reason", default="", metavar="TEXT", help="for those who see it in the status")
    pause.add_argument(
        "--dry-run", action="store_true", help="only say whether it could be paused, and what that means"
    )
    pause.add_argument("--yes", action="store_true", help="do not ask")

    resume = verb("resume", "protect a domain again whose protection is paused")
    resume.add_argument("domain")
    resume.add_argument("--no-wait", action="store_true", help="do not wait until the domain is protected")
    resume.add_argument(
        "--timeout", type=seconds, default=900.0, help="seconds to wait until it is protected (default: 900)"
    )

    unprotect = verb("unprotect", "end the protection of a domain; the domain runs on")
    unprotect.add_argument("domain")
    unprotect.add_argument(
        "--force",
        action="store_true",
        help="on the backup: discard the copy of the domain. On the primary: you made sure that no copy of it will run."
        " Of a domain that is paused here because another host owns it, or waits to run: destroy it",
    )
    unprotect.add_argument("--dry-run", action="store_true", help="only say what would end or be discarded")
    unprotect.add_argument("--yes", action="store_true", help="do not ask")


def _roles(verb: Verb) -> None:
    failover = verb("failover", "run a domain here from its last commit, after its host died and was fenced")
    failover.add_argument("domain")
    failover.add_argument("--fenced-host", required=True, metavar="HOST", help="host that was fenced")
    failover.add_argument(
        "--fenced-method", required=True, metavar="METHOD", help="how it was fenced, for example power-off"
    )
    failover.add_argument("--evidence", required=True, metavar="TEXT", help="how you know that it is off; recorded")
    failover.add_argument(
        "--accept-loss",
        action="store_true",
        help="where the witness can't be asked or does not offer this copy: run it all the same. The old host may have run on"
        " alone; what it has told clients since this copy was made is lost then. Recorded as a possible loss",
    )
    failover.add_argument("--expected-generation", type=count, metavar="N", help="refuse when it is another one")
    failover.add_argument(
        "--dry-run", action="store_true", help="only say whether and by what right it could be run here"
    )
    failover.add_argument("--yes", action="store_true", help="do not ask")

    switchover = verb("switchover", "move a protected domain to its backup, with nothing lost")
    switchover.add_argument("domain")
    switchover.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        help="seconds that its last epoch may take; after that it goes on here (default: 60)",
    )
    switchover.add_argument("--dry-run", action="store_true", help="only say whether it could be moved now")
    switchover.add_argument("--yes", action="store_true", help="do not ask")
    switchover.add_argument("--expected-generation", type=count, metavar="N", help="refuse when it is another one")


def _forget(verb: Verb) -> None:
    forget = verb("forget", "remove the witness's record of a guest that is gone for good")
    forget.add_argument("uuid", metavar="UUID", type=guest_uuid, help="of the guest, as `xl list -v` shows it")
    forget.add_argument(
        "--force",
        action="store_true",
        help="also where another host owns it: that host is gone for good, and you made sure that the guest runs nowhere",
    )
    forget.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    forget.add_argument("--yes", action="store_true", help="do not ask")
