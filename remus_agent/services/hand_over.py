"""A backup's side of a switchover: it runs the guest on the primary's hand-over, and says afterwards what has become of it.

Before the guest is made to run there is a durable note of it (a guest record with the role `active`), so that an agent that is
started anew never says of a guest that has run here that it has not. The note goes when it is certain that the guest never ran,
and when this host is its backup again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from remus_agent.errors import DomainNotFound, JournalError, PeerError, RefusedError, RemusError
from remus_agent.machines.backup import Event, State
from remus_agent.ports import Clock, Connection, GuestRecord, GuestStore, Hypervisor
from remus_agent.protocol.replication.frames import FrameType
from remus_agent.protocol.replication.messages import AskOutcome, Outcome, Plain, encode
from remus_agent.services.copy import Copy
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)


class HandOvers:
    """Of one host. run: activates a copy that is TAKING, by whatever permits it. copies: those of a domain."""

    def __init__(
        self,
        run: Callable[[Copy], Awaitable[None]],
        copies: Callable[[str], list[Copy]],
        store: GuestStore,
        hypervisor: Hypervisor,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._run = run
        self._copies = copies
        self._store = store
        self._hypervisor = hypervisor
        self._settings = settings
        self._clock = clock

    async def take(self, copy: Copy, connection: Connection) -> Outcome:
        """Carry out a hand-over that has come in: run the guest, or say that it will not run. Never raises RemusError."""
        beating = asyncio.create_task(self._beat(connection), name=f"heartbeat {copy.hello.domain}")
        try:
            return await self._take(copy)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def outcome(self, ask: AskOutcome) -> Outcome:
        """What has become of the hand-over of a session. Raises RefusedError for who was not its primary."""
        copy = next((each for each in self._copies(ask.domain) if each.hello.session == ask.session), None)
        if copy is None:
            return await self._remembered(ask)
        if copy.hello.host != ask.host:
            raise RefusedError(
                f"the primary of that session is {copy.hello.host}", operation="ask for the outcome", domain=ask.domain
            )
        await copy.disconnect()  # so that no hand-over can come any more
        match copy.state:
            case State.ACTIVE:
                return Outcome(session=ask.session, result="running")
            case State.TAKING | State.ACTIVATING:
                return Outcome(session=ask.session, result="unknown", reason="its activation is under way")
        if copy.may_have_run:
            return _may_have_run(ask.session, copy.reason)
        return Outcome(session=ask.session, result="declined", reason=copy.reason or "no hand-over has arrived")

    async def forget(self, domain: str) -> None:
        """This host is its backup (again): what was noted when it ran here is of the past."""
        try:
            if (await self._noted(domain)) is not None:
                await self._store.remove(domain)
        except RemusError as error:
            log.warning("%s: what was noted of an earlier activation stays: %s", domain, error)

    async def _take(self, copy: Copy) -> Outcome:
        hello = copy.hello
        note = GuestRecord(
            name=hello.domain,
            uuid=hello.uuid,
            role="active",
            peer=hello.host,
            generation=copy.generation + 1,
            committed=False,
            interval_ms=0,
            output_limit_bytes=0,
        )
        try:
            await self._store.save(note)
        except RemusError as error:
            copy.refused(Event.OWNERSHIP_REFUSED)
            return _declined(hello.session, error)
        try:
            await self._run(copy)
        except RemusError as error:
            if copy.state is not State.ACTIVE:
                log.error("%s: not taken over: %s", hello.domain, error)
                if copy.may_have_run:
                    return _may_have_run(hello.session, str(error))
                await self.forget(hello.domain)
                return _declined(hello.session, error)
            log.error("%s: taken over, but: %s", hello.domain, error)
        return Outcome(session=hello.session, result="running")

    async def _remembered(self, ask: AskOutcome) -> Outcome:
        """An agent that knows nothing of the session: an earlier one had it."""
        try:
            there = await self._hypervisor.domain(ask.domain)
            if there.uuid == ask.uuid:
                return Outcome(session=ask.session, result="running")
        except DomainNotFound:
            pass
        try:
            noted = await self._noted(ask.domain)
        except JournalError as error:
            return Outcome(session=ask.session, result="unknown", reason=str(error)[:4000])
        if noted is not None:
            return _may_have_run(ask.session, "it was started here, and does not run now")
        return Outcome(session=ask.session, result="declined", reason="this host has no copy of it any more")

    async def _noted(self, domain: str) -> GuestRecord | None:
        loaded = await self._store.load_all()
        for error in loaded.damaged:
            if error.domain in (domain, None):
                raise error
        return next((record for record in loaded.records if record.name == domain and record.role == "active"), None)

    async def _beat(self, connection: Connection) -> None:
        try:
            while True:
                await self._clock.sleep(self._settings.heartbeat)
                await connection.send(encode(Plain(FrameType.HEARTBEAT)))
        except PeerError:
            return  # it will ask


def _declined(session: str, error: RemusError) -> Outcome:
    return Outcome(session=session, result="declined", reason=str(error)[:4000])


def _may_have_run(session: str, why: str | None) -> Outcome:
    return Outcome(session=session, result="unknown", reason=f"it may have run here for a moment: {why or '-'}"[:4000])
