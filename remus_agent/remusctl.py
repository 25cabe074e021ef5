"""`remusctl` as it is installed: the command line, and what only a composition root may give to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remus_agent.cli.send import Outcome, Request, Show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        # Imported here: whoever presses Ctrl-C while it loads is to see no traceback.
        from remus_agent.cli import main as cli  # noqa: PLC0415
    except KeyboardInterrupt:
        return 130
    return cli.main(arguments, send=_send)


def _send(request: Request, show: Show) -> Outcome:
    # Imported here: the event loop takes longer to load than every other command takes to run.
    from remus_agent import relay  # noqa: PLC0415

    return relay.send(request, show)


if __name__ == "__main__":
    sys.exit(main())
