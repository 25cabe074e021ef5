"""The primary's steps of a switchover, in the order that `switchover` explains, and what follows when its outcome is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from remus_agent.errors import PeerError, PeerTimeout, RemusError
from remus_agent.faults import FaultName, active
from remus_agent.machines.primary import Event
from remus_agent.ports import Domain
from remus_agent.services.epoch_loop import EpochLoop
from remus_agent.services.kept_record import KeptRecord
from remus_agent.services.leaving import close_disks
from remus_agent.services.ownership import PrimaryRights
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.retry_events import Complaints
from remus_agent.services.session_parts import SessionParts
from remus_agent.services.settings import Settings
from remus_agent.services.switchover import SwitchoverRequest, ask_backup
from remus_agent.services.trouble import Trouble


class Departure:
    """Of one guest. address: of its backup. alone: become its sole owner, for this reason. depart: destroys it here, for good."""

    def __init__(
        self,
        domain: Domain,
        address: str,
        ports: PrimaryPorts,
        settings: Settings,
        rights: PrimaryRights,
        parts: SessionParts,
        epochs: EpochLoop,
        kept: KeptRecord,
        trouble: Trouble,
        request: SwitchoverRequest,
        alone: Callable[[str], Awaitable[Event]],
        depart: Callable[[Domain], Awaitable[None]],
    ) -> None:
        self._domain = domain
        self._address = address
        self._ports = ports
        self._settings = settings
        self._rights = rights
        self._parts = parts
        self._epochs = epochs
        self._kept = kept
        self._trouble = trouble
        self._request = request
        self._alone = alone
        self._depart = depart
        self._complaints = Complaints(ports.events)

    async def take_last(self) -> Event:
        """The last epoch, after which the guest stays down."""
        seconds, epoch = self._request.seconds, self._epochs.commit.running
        try:
            async with asyncio.timeout(seconds):
                await self._epochs.one(epoch, last=True)
        except TimeoutError:
            return self._trouble.failed(
                PeerTimeout(
                    f"the last epoch was not committed within {seconds:g} s",
                    operation="switchover",
                    domain=self._domain.name,
                    epoch=epoch,
                    left="the guest goes on here, its output held until the backup is there again",
                    hint="give it more time (--timeout), or ask when the guest writes less",
                )
            )
        except RemusError as error:
            return self._trouble.failed(error)
        return Event.LAST_COMMITTED

    async def hand_over(self) -> Event:
        """A durable note, then the supervisor, then the backup, once; its word is the outcome."""
        session, source, _ = self._parts.in_session()
        try:
            await self._kept.save(handed=session.id)
            await source.leave_down()
            if session.over is not None:
                raise session.over  # nothing is sent any more
        except RemusError as error:
            self._trouble.failed(error)
            return Event.DECLINED
        if active(FaultName.SWITCHOVER_RESUMES):
            await self._ports.hypervisor.resume(self._domain)
        try:
            outcome = await session.hand_over(self._settings.activate + self._settings.ack)
        except RemusError as error:
            self._trouble.failed(error)
            return Event.SESSION_LOST
        if outcome.result == "running":
            return Event.TAKEN_OVER
        self._trouble.failed(PeerError(f"the backup does not run it: {outcome.reason}", operation="switchover"))
        return Event.DECLINED if outcome.result == "declined" else Event.SESSION_LOST

    async def ask_outcome(self, since: float) -> Event:
        """What has become of the hand-over, by the backup's word or the witness's. since: when that came in doubt."""
        answer = await ask_backup(
            self._ports.connector, self._address, self._kept.now.handed or "", self._domain, self._settings
        )
        if answer is not None:
            self._trouble.reason = answer.reason or self._trouble.reason
            if answer.result != "unknown":
                return Event.TAKEN_OVER if answer.result == "running" else Event.DECLINED
        if await self._rights.handed_back(self._kept.now.generation):
            return Event.HANDED_BACK
        # An activation that goes well takes a shorter time than that.
        long = self._ports.clock.now() - since >= self._settings.activate
        if answer is None or self._rights.solo_due(self._parts.heard_at) or long:
            event = await self._alone("a switchover whose outcome the backup does not say")
            if event is not Event.WITNESS_SILENT:
                return event
        return Event.OUTCOME_UNKNOWN

    async def destroy(self) -> Event:
        """The guest runs on the backup by now."""
        try:
            await self._depart(self._domain)
            await close_disks(self._parts.disks_left, given_up=True)
        except RemusError as error:
            self._trouble.failed(error)
            self._complaints.note(self._domain.name, "handed-over-guest-stands", reason=str(error))
            return Event.GUEST_STANDS
        self._trouble.reason = f"it was moved to {self._kept.now.peer}"
        return Event.GUEST_GONE
