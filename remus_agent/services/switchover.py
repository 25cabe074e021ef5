"""A primary's side of a switchover: what is asked of it, and what surrounds the last epoch.

The order is the point of it. The guest is down, the last epoch is committed and its output released. Then a durable note, then
the supervisor is told to leave the guest down, then the hand-over is sent, once. Whatever fails before that is answered by
resuming the guest; whatever fails after it, by asking the backup (or the witness) which of the two runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from remus_agent.errors import DomainNotFound, RefusedError, RemusError, SwitchoverError, SwitchoverInDoubt
from remus_agent.machines.primary import NOT_OURS, State
from remus_agent.ports import Connector, Domain, EventSink, Hypervisor
from remus_agent.protocol.replication.frames import FrameType
from remus_agent.protocol.replication.message_frames import decode, encode
from remus_agent.protocol.replication.messages import AskOutcome, Outcome, Plain, Refuse
from remus_agent.services.asking import Work, first_of
from remus_agent.services.session import refused_by_peer
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

UNDER_WAY = frozenset({State.PROTECTED, State.SWITCHING, State.HANDED, State.DEPARTING})
"""States in which a switchover that was asked for has not come out yet."""


class SwitchoverRequest:
    """What an operator wants of one guest. seconds: how long its last epoch may take, from its suspension to its commit."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._asked = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether it is wanted, or under way."""
        return self._asked.is_set()

    def ask(self, seconds: float) -> None:
        """From now on it is wanted."""
        self.seconds = seconds
        self._asked.set()

    def moved(self, state: State) -> None:
        """The guest's protection is in this state now. What came out, or cannot be any more, is not wanted any more."""
        if state not in UNDER_WAY:
            self._asked.clear()

    async def cuts_short(self, work: Work) -> None:
        """Wait for the work, but not when a switchover is wanted."""
        await first_of(work, self._asked.wait)


async def ask_backup(
    connector: Connector, address: str, session: str, domain: Domain, settings: Settings
) -> Outcome | None:
    """What the backup says of a hand-over whose answer did not come; None when it does not say anything."""
    question = AskOutcome(session=session, domain=domain.name, uuid=domain.uuid, host=settings.host)
    try:
        connection = await connector.connect(address, settings.connect)
        try:
            async with asyncio.timeout(settings.ack):
                await connection.send(encode(question))
                while True:
                    message = decode(await connection.receive())
                    if isinstance(message, Outcome) and message.session == session:
                        return message
                    if isinstance(message, Refuse):
                        raise refused_by_peer(message, domain.name)
                    if not (isinstance(message, Plain) and message.type is FrameType.HEARTBEAT):
                        return None
        finally:
            await connection.close()
    except (RemusError, TimeoutError) as error:
        log.warning("%s: the backup does not say what has become of the hand-over: %s", domain.name, error or "timeout")
        return None


async def resume_guest(
    domain: Domain,
    hypervisor: Hypervisor,
    events: EventSink,
    sleep: Callable[[], Awaitable[None]],
) -> bool:
    """Let the guest run again, however often it takes. False when it is gone. sleep: between two attempts."""
    told = False
    while True:
        try:
            if await hypervisor.resume(domain):
                events.note(domain.name, "resumed")
        except DomainNotFound:
            return False
        except RemusError as error:
            log.error("%s: it cannot be resumed, and is tried again: %s", domain.name, error)
            if not told:
                events.note(domain.name, "not-resumed", reason=str(error))
            told = True
            await sleep()
        else:
            return True


class Switched(Protocol):
    """What is asked of a PrimaryService here."""

    state: State
    domain: Domain

    @property
    def reason(self) -> str | None: ...

    @property
    def switchover(self) -> SwitchoverRequest: ...


def refuse_unless_protected(service: Switched, generation: int, expected: int | None) -> None:
    """Raise RefusedError when this guest cannot be moved to its backup now."""
    name = service.domain.name
    if expected is not None and expected != generation:
        raise RefusedError(
            f"its generation is {generation}, not {expected}: ownership changed since it was looked at",
            operation="switchover",
            domain=name,
            left="nothing was changed",
            hint="look again with `remusctl status`",
        )
    if service.state is State.PROTECTED and not service.switchover.asked:
        return
    under_way = service.switchover.asked or service.state in (State.SWITCHING, State.HANDED, State.DEPARTING)
    raise RefusedError(
        "a switchover is under way"
        if under_way
        else f"it is {service.state.value}, and only a protected guest can be moved",
        operation="switchover",
        domain=name,
        left="nothing was changed",
        hint="watch it with `remusctl status`"
        if under_way
        else "see `remusctl status`: the backup has to be there, with a committed copy",
    )


def raise_unless_departed(service: Switched, peer: str) -> None:
    """What an operator is told at the end."""
    name, why = service.domain.name, service.reason or "no reason is known"
    if service.state is State.DEPARTED:
        return
    if service.state in (*NOT_OURS, State.GIVEN_UP, State.RETURNING):
        raise SwitchoverInDoubt(
            f"{peer} owns it, by the witness's record, and had not said that it runs it: {why}",
            operation="switchover",
            domain=name,
            left=f"{service.state.value}: the guest is paused here until {peer} has shown that it runs it, or gives it back",
            hint="see `remusctl status` on both hosts; it is settled by itself as soon as they reach each other or the witness",
        )
    if service.state in (State.HANDED, State.IN_DOUBT, State.DEPARTING):
        departing = service.state is State.DEPARTING
        raise SwitchoverInDoubt(
            f"it runs on {peer}, and is not yet destroyed here: {why}"
            if departing
            else f"it was handed over to {peer}, which has not said whether it runs it: {why}",
            operation="switchover",
            domain=name,
            left=f"{service.state.value}: the guest is down here and is not resumed; the agent asks again every few seconds",
            hint="see `journalctl -u remus-agent` on this host"
            if departing
            else f"repair the link or the agent on {peer}, and it is settled by itself. If `xl list` on {peer} shows that "
            f"the guest does not run there, and never will: `remusctl unprotect {name} --force` here lets it go on here",
        )
    raise SwitchoverError(
        f"it was called off: {why}",
        operation="switchover",
        domain=name,
        left=f"{service.state.value}: the guest runs here, nothing runs on {peer}",
        hint="see `remusctl status`; it can be asked for again as soon as the guest is protected",
    )


def facts(service: Switched, peer: str) -> dict[str, Any]:
    """Which guest is moved, and to which host."""
    return {"domain": service.domain.name, "to": peer}
