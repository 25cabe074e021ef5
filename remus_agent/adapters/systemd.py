"""Tells systemd that the agent is ready and alive (sd_notify(3)): one datagram to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send a state such as READY=1. Does nothing when systemd did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto(state.encode(), address)
        except OSError:
            # systemd restarting is no reason for the agent to fail; the watchdog decides.
            return


def watchdog_seconds() -> float | None:
    """How often to give systemd a sign of life; None when it wants none. A twentieth of its patience, so that an agent which
    stands still is borne for nearly all of that, whenever it begins to."""
    microseconds = os.environ.get("WATCHDOG_USEC")
    return int(microseconds) / 20e6 if microseconds else None
