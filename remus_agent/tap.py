"""The process of one disk's write tap, which the agent starts: `python -m remus_agent.tap NAME FD FD FD FD`.

It lives as long as the agent's ends of its four conversations (`protocol.disk.tap_messages`): signals that tell the agent to stop
do not concern it, because the guest's writes wait for it until the agent is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from remus_agent.adapters import memory, turns
from remus_agent.adapters.disk.tap_worker import TapWorker
from remus_agent.observe import logs


def main() -> None:
    """Run one tap."""
    logs.setup()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    memory.lock()
    turns.shorten()
    commands, barriers, pieces, copies = (socket.socket(fileno=int(word)) for word in sys.argv[2:6])
    TapWorker(commands, barriers, pieces, copies).run()
    os._exit(0)  # a thread may be in the middle of a read


if __name__ == "__main__":
    main()
