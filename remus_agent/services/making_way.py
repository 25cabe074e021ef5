"""A host that still has a guest which another one owns by now, or that owns one itself, towards a session that arrives for it."""

from __future__ import annotations

import asyncio
import logging

from remus_agent.errors import RefusedError
from remus_agent.machines.primary import NOT_OURS
from remus_agent.ports import Domain
from remus_agent.protocol.replication.messages import Hello
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary import is_over

log = logging.getLogger(__name__)


class MakingWay:
    """Of one host. seconds: for a guest to be destroyed before its owner's session is refused."""

    def __init__(self, primaries: Primaries, seconds: float) -> None:
        self._primaries = primaries
        self._seconds = seconds

    def owned(self, uuid: str) -> int | None:
        """See `BackupService.owned`."""
        mine = [each.record.generation for each in self._primaries.running() if each.domain.uuid == uuid]
        return max(mine, default=None)

    def gives_way(self, hello: Hello) -> Domain | None:
        """See `BackupService.gives_way`: what is paused here because that host owns it."""
        paused = (
            each for each in self._primaries.values() if each.domain.uuid == hello.uuid and each.state in NOT_OURS
        )
        return next((each.domain for each in paused if each.record.peer == hello.host and not is_over(each)), None)

    async def make_way(self, hello: Hello) -> None:
        """See `BackupService.make_way`: a session of the new owner of a guest that is paused here shows that it runs there."""
        for name, service in list(self._primaries.items()):
            if service.domain.uuid != hello.uuid or service.state not in NOT_OURS:
                continue
            if hello.generation <= service.record.generation:
                raise RefusedError(
                    f"the session is of generation {hello.generation}, older than the guest that is paused here",
                    operation="open session",
                    domain=name,
                )
            log.info("%s: %s runs it, so it is destroyed here", name, hello.host)
            service.owner_runs()
            await asyncio.wait({self._primaries.tasks[name]}, timeout=self._seconds)
            if not is_over(service):
                raise RefusedError(
                    "the guest that was given up here is not destroyed yet", operation="open session", domain=name
                )
