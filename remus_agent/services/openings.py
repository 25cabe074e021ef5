"""Sessions that a backup is about to take in: one of each domain at a time.

What has to be done first asks the witness, Xen and disks, and ends what an earlier session has left. Where one of these does not
answer, it is waited for, because work that is half done must not be left so. But the primary has long given up then and asks
again: whoever comes after is told what is waited for, instead of waiting as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from remus_agent.errors import RefusedError
from remus_agent.ports import Clock


class Opening:
    """One of them. doing: what is done for it now, for people."""

    def __init__(self, since: float) -> None:
        self.doing = "it has just begun"
        self.since = since
        self.over = asyncio.Event()


class Openings:
    """Of one host. patience: seconds to wait for the one before."""

    def __init__(self, host: str, clock: Clock, patience: float) -> None:
        self._host = host
        self._clock = clock
        self._patience = patience
        self._of: dict[str, Opening] = {}

    @contextlib.asynccontextmanager
    async def turn(self, domain: str) -> AsyncIterator[Opening]:
        """Around all that comes before a session. Raises RefusedError where another one's goes on."""
        before = self._of.get(domain)
        if before is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await before.over.wait()
            before = self._of.get(domain)
        if before is not None:
            raise RefusedError(
                f"an earlier session is being opened for {self._clock.now() - before.since:.0f} s: {before.doing}",
                operation="open session",
                domain=domain,
                left="the copy that was committed stands",
                hint=f"nothing where {self._host} is only slow; else see there what hangs: dmesg, `timeout 5 xenstore-list /`",
            )
        mine = self._of[domain] = Opening(self._clock.now())
        try:
            yield mine
        finally:
            del self._of[domain]
            mine.over.set()


def does_not_end(domain: str, operation: str, hangs: str | None) -> RefusedError:
    """The error where a session that is over does not come back from what it does. hangs: what is known of that."""
    return RefusedError(
        f"its session does not end: {hangs or 'its last epoch is still taken in'}",
        operation=operation,
        domain=domain,
        left="nothing was activated, the copy stands",
        hint="see dmesg on this host for a device that does not answer, then repeat it; do not restart the agent here, with which"
        " the copy would go",
    )
