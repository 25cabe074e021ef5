"""A connection to etcd that is opened before it is needed: on a slow host the handshake takes longer than a request, and clients
wait for both. Used from one thread, except that a request has it for itself while it is taken.
"""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Final

KEPT: Final = 30.0
"""Seconds for which it may be used; after that the host's certificate is read anew."""


class ReadyConnection:
    """None at first."""

    def __init__(self) -> None:
        self._held: http.client.HTTPSConnection | None = None
        self._endpoint = ""
        self._until = 0.0

    def hold(self, connection: http.client.HTTPSConnection, endpoint: str) -> None:
        """One that was opened just now."""
        self.close()
        self._held, self._endpoint, self._until = connection, endpoint, time.monotonic() + KEPT

    @property
    def stands(self) -> bool:
        """Whether there is one that may be used; one that may not is closed."""
        if self._held is not None and (time.monotonic() >= self._until or not _open(self._held)):
            self.close()
        return self._held is not None

    def take(self, endpoint: str) -> http.client.HTTPSConnection | None:
        """For one request, if it leads to this endpoint."""
        if endpoint != self._endpoint or not self.stands:
            return None
        taken, self._held = self._held, None
        return taken

    def give_back(self, taken: http.client.HTTPSConnection) -> None:
        """After a request that has its answer; for no longer than before."""
        if time.monotonic() < self._until:
            self._held = taken
        else:
            taken.close()

    def close(self) -> None:
        """Safe to call twice."""
        held, self._held = self._held, None
        if held is not None:
            held.close()


def _open(connection: http.client.HTTPSConnection) -> bool:
    """Whether the other side has neither closed it nor said anything. What is only TLS's own (session tickets) is passed over."""
    link = connection.sock
    if link is None:
        return False
    timeout = link.gettimeout()
    try:
        link.settimeout(0)
        link.recv(1)
    except ssl.SSLWantReadError:
        link.settimeout(timeout)
        return True
    except OSError:
        return False
    return False
