"""A backup's side of a switchover: it runs the guest on the primary's hand-over, and says afterwards what has become of it.

Before the guest is made to run there is a durable note of it, so that an agent that is started anew never says of a guest that
has run here that it has not. With a witness these are the notes of every takeover (`takeover_notes`), and what an agent does not
know the record says. Without one it is a guest record with the role `active` (`ByWord`), which goes when it is certain that the
guest never ran, and when this host is its backup again. What an agent has left that died between that note and the guest's first
moment is the next one's work (`unfinished`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from remus_agent.errors import DomainNotFound, HypervisorError, JournalError, PeerError, RefusedError, RemusError
from remus_agent.machines.backup import State
from remus_agent.ports import Clock, Connection, Hypervisor
from remus_agent.protocol.replication.frames import FrameType
from remus_agent.protocol.replication.message_frames import encode
from remus_agent.protocol.replication.messages import AskOutcome, Outcome, Plain
from remus_agent.services.copy import Copy
from remus_agent.services.fresh_word import LOOK_AGAIN, FreshWord, fresh_word
from remus_agent.services.settings import Settings
from remus_agent.store_ports import GuestRecord, GuestStore

log = logging.getLogger(__name__)


BeforeRun = Callable[[Copy], Awaitable[None]]
"""What is to be done when a copy is built and about to run."""


class Permission(Protocol):
    """What permits a host to run a guest that was handed over."""

    async def hand_over(self, copy: Copy) -> None:
        """Activate a copy that is TAKING, noted durably before. Raises RemusError."""
        ...

    async def doubt(self, domain: str, copy: Copy | None) -> str | None:
        """Why it is not certain that the guest, which does not run here, has never run here by a hand-over and never will; None
        when it is. copy: None when an earlier agent had it."""
        ...

    async def forget_hand_over(self, domain: str, still: Callable[[], None]) -> None:
        """This host is its backup (again): what was noted when it ran here is of the past. still: raises RemusError where that is
        not so any more; then what is noted stays."""
        ...


class ByWord:
    """Permission by the primary's word, without a witness. taking_over: no session of the domain is taken in meanwhile."""

    def __init__(
        self,
        store: GuestStore,
        taking_over: Callable[[str], AbstractContextManager[None]],
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._taking_over = taking_over
        self._clock = clock
        self._settings = settings

    async def hand_over(self, copy: Copy) -> None:
        domain = copy.hello.domain

        async def before_run() -> None:
            await self._store.save(active_record(copy, starting=copy.working_name))
            word.require(domain, "take over", f"nothing: {copy.hello.host} is told, and its guest goes on there")

        with self._taking_over(domain):
            try:
                async with fresh_word(self._clock, self._settings) as word:
                    await copy.take(before_run)
            except RemusError:
                if not copy.may_have_run:
                    await self.forget_hand_over(domain)
                raise
            await self._ran(copy)

    async def failover(
        self, activate: Callable[[BeforeRun], Awaitable[Copy]], word: FreshWord, proof: Callable[[], str]
    ) -> Copy:
        """Activate a copy on an operator's word. activate: calls what it is given when the guest is built and about to run.
        proof: his, as it is noted then. Without that note the guest runs as well; only that it is not finished then, should
        this agent die right there. Raises RemusError; JournalError also when it runs and a restart would not know that."""
        noted: Copy | None = None

        async def before_run(copy: Copy) -> None:
            nonlocal noted
            try:
                await self._store.save(
                    active_record(copy, starting=copy.working_name, override=proof(), until=word.until)
                )
                noted = copy
            except RemusError as error:
                log.error("%s: would not be finished by the next agent: %s", copy.hello.domain, error)
            word.require(copy.hello.domain, "failover", LOOK_AGAIN)

        try:
            copy = await activate(before_run)
        except RemusError:
            if noted is not None and not noted.may_have_run:
                await self.forget_hand_over(noted.hello.domain)
            raise
        await self._store.save(active_record(copy))
        return copy

    async def _ran(self, copy: Copy) -> None:
        try:
            await self._store.save(active_record(copy))
        except RemusError as error:
            log.error("%s: a restart has to find out that it runs: %s", copy.hello.domain, error)

    async def doubt(self, domain: str, copy: Copy | None) -> str | None:
        if copy is not None:
            return None
        try:
            noted = await self._noted(domain)
        except JournalError as error:
            return str(error)
        return None if noted is None else "it may have run here for a moment: it was started here, and does not run now"

    async def forget_hand_over(self, domain: str, still: Callable[[], None] = lambda: None) -> None:
        try:
            if (await self._noted(domain)) is not None:
                still()  # what was found may be of an activation that has begun meanwhile
                await self._store.remove(domain)
        except RemusError as error:
            log.warning("%s: what was noted of an earlier activation stays: %s", domain, error)

    async def _noted(self, domain: str) -> GuestRecord | None:
        loaded = await self._store.load_all()
        for error in loaded.damaged:
            if error.domain in (domain, None):
                raise error
        return next((record for record in loaded.records if record.name == domain and record.role == "active"), None)


class HandOvers:
    """Of one host. copies: those of a domain."""

    def __init__(
        self,
        permission: Permission,
        copies: Callable[[str], list[Copy]],
        hypervisor: Hypervisor,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._permission = permission
        self._copies = copies
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
            return await self._without_copy(ask)
        if copy.hello.host != ask.host:
            raise RefusedError(
                f"the primary of that session is {copy.hello.host}", operation="ask for the outcome", domain=ask.domain
            )
        if not await copy.disconnect(self._settings.connect / 2):  # so that no hand-over can come any more
            return _outcome(ask.session, "unknown", copy.hangs or "its last epoch is still taken in")
        match copy.state:
            case State.ACTIVE:
                return Outcome(session=ask.session, result="running")
            case State.TAKING | State.ACTIVATING:
                return Outcome(session=ask.session, result="unknown", reason="its activation is under way")
        return await self._not_running(ask.session, ask.domain, copy, copy.reason or "no hand-over has arrived")

    async def _without_copy(self, ask: AskOutcome) -> Outcome:
        try:
            if await self._runs(ask):
                return Outcome(session=ask.session, result="running")
        except RemusError as error:
            return _outcome(ask.session, "unknown", str(error))
        return await self._not_running(ask.session, ask.domain, None, "this host has no copy of it any more")

    async def forget(self, domain: str, still: Callable[[], None]) -> None:
        """As Permission.forget_hand_over says."""
        await self._permission.forget_hand_over(domain, still)

    async def _take(self, copy: Copy) -> Outcome:
        hello = copy.hello
        try:
            await self._permission.hand_over(copy)
        except RemusError as error:
            if copy.state is not State.ACTIVE:
                log.error("%s: not taken over: %s", hello.domain, error)
                return await self._not_running(hello.session, hello.domain, copy, str(error))
            log.error("%s: taken over, but: %s", hello.domain, error)
        return Outcome(session=hello.session, result="running")

    async def _not_running(self, session: str, domain: str, copy: Copy | None, why: str) -> Outcome:
        """`declined` only when it is certain that the guest never ran here and will not by this hand-over."""
        if copy is not None and copy.may_have_run:
            return _outcome(session, "unknown", f"it may have run here for a moment: {why}")
        doubt = await self._permission.doubt(domain, copy)
        return _outcome(session, "declined", why) if doubt is None else _outcome(session, "unknown", doubt)

    async def _runs(self, ask: AskOutcome) -> bool:
        """Raises RemusError when it is here and does not run, or what it does is not known: it may run yet."""
        try:
            domain = await self._hypervisor.domain(ask.domain)
            if domain.uuid != ask.uuid:
                return False
            paused = await self._hypervisor.is_paused(domain)
        except DomainNotFound:
            return False
        if paused:
            raise HypervisorError("it is here, and paused", operation="ask for the outcome", domain=ask.domain)
        return True

    async def _beat(self, connection: Connection) -> None:
        try:
            while True:
                await self._clock.sleep(self._settings.heartbeat)
                await connection.send(encode(Plain(FrameType.HEARTBEAT)))
        except PeerError:
            return  # it will ask


def active_record(copy: Copy, *, starting: str = "", override: str = "", until: float = 0.0) -> GuestRecord:
    """That the guest runs here from a copy, without a witness, or is about to; see `GuestRecord`."""
    return GuestRecord(
        name=copy.hello.domain,
        uuid=copy.hello.uuid,
        role="active",
        peer=copy.hello.host,
        generation=copy.hello.generation + 1,
        committed=False,
        interval_ms=0,
        output_limit_bytes=0,
        override=override,
        starting=starting,
        until=until,
        members=copy.hello.member_names,
    )


def _outcome(session: str, result: Literal["declined", "unknown"], why: str) -> Outcome:
    return Outcome(session=session, result=result, reason=why[:4000])
