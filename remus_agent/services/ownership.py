"""A primary's side of authority: of which generation its sessions are, and whether it may release, open, go on.

`Unwitnessed` is what a host without a witness has: it permits what an operator's proof permits, and asks nobody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from remus_agent.errors import (
    AuthorityError,
    OwnershipLost,
    RecordLost,
    RemusError,
    WitnessError,
    WitnessUnknown,
    WitnessUnreachable,
)
from remus_agent.faults import FaultName, active
from remus_agent.machines.authority import Stake, Verdict, Want, session_generation
from remus_agent.machines.primary import Event
from remus_agent.ports import Clock
from remus_agent.services.authority import Authority, Settled
from remus_agent.services.session import PrimarySession
from remus_agent.services.settings import Settings
from remus_agent.store_ports import GuestRecord

log = logging.getLogger(__name__)

_QUESTIONS: Final = 3
"""To the witness about one epoch, until an answer is young enough to act on."""


class PrimaryRights(Protocol):
    """What a PrimaryService asks. reason: why the backup cannot take over although the guest is protected, for the status."""

    reason: str | None

    async def before_session(self, generation: int, *, held: bool) -> int:
        """The generation of the session that may be opened now. generation: the one that is known. held: output has been held
        since a copy was committed. Raises OwnershipLost, WitnessUnknown."""
        ...

    def register(self, session: PrimarySession, generation: int) -> None:
        """The first epoch of the session is committed: have the backup named, in the background, until it is or `forget` is
        called. Ends the session when that cannot be."""
        ...

    async def forget(self) -> None:
        """The session is over."""
        ...

    async def may_release(self, sent: float, generation: int) -> None:
        """Returns when an epoch that was sent at this time may be released. Raises OwnershipLost, WitnessError."""
        ...

    def solo_due(self, last_ack: float) -> bool:
        """Whether to ask to run on alone. last_ack: when the backup last acknowledged anything."""
        ...

    async def alone(self, why: str, *, copied: int) -> tuple[Event, int | None]:
        """Become the sole owner: the machine's next event, and of which generation sessions are then. copied: of which a backup
        may have committed a copy; 0: of none."""
        ...

    async def handed_back(self, generation: int) -> bool:
        """Whether the host that took the guest over has made this one its owner again. generation: of the last session."""
        ...


class Unwitnessed:
    """PrimaryRights without a witness."""

    reason: str | None = None

    async def before_session(self, generation: int, *, held: bool) -> int:  # noqa: ARG002 - the protocol's signature
        return generation

    def register(self, session: PrimarySession, generation: int) -> None:
        """Nobody is told."""

    async def forget(self) -> None:
        """Nothing is under way."""

    async def may_release(self, sent: float, generation: int) -> None:
        """An acknowledgement is all it takes."""

    def solo_due(self, last_ack: float) -> bool:  # noqa: ARG002 - the protocol's signature
        return False

    async def alone(self, why: str, *, copied: int) -> tuple[Event, int | None]:  # noqa: ARG002 - the protocol's signature
        return Event.WITNESS_SILENT, None

    async def handed_back(self, generation: int) -> bool:  # noqa: ARG002 - the protocol's signature
        return False


class Witnessed:
    """PrimaryRights by the record in the witness."""

    def __init__(self, authority: Authority, record: GuestRecord, settings: Settings, clock: Clock) -> None:
        self.reason: str | None = None
        self._authority = authority
        self._guest = record.uuid
        self._name = record.name
        self._peer = record.peer
        self._settings = settings
        self._clock = clock
        self._registering: asyncio.Task[None] | None = None
        self._in_doubt = False
        """A change of ours may still be made. Only another change makes that void."""

    async def before_session(self, generation: int, *, held: bool) -> int:
        want = Want.ALONE if self._in_doubt else Want.OPEN if held else Want.CLAIM
        try:
            settled = await self._settle(want, generation, "the backup is looked for", copied=held)
        except (WitnessUnreachable, RecordLost) as error:
            # What is known is enough: a backup that has taken over refuses the session, and output is held as before.
            log.warning("%s: the session is opened without the witness: %s", self._name, error)
            return generation
        self._need(settled)
        return generation if settled.record is None else session_generation(settled.record)

    def register(self, session: PrimarySession, generation: int) -> None:
        self._registering = asyncio.create_task(self._register(session, generation), name=f"register {self._name}")

    async def forget(self) -> None:
        task, self._registering = self._registering, None
        self.reason = None
        if task is None:
            return
        if not task.done():
            self._in_doubt = True  # it may have been asking just now
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def may_release(self, sent: float, generation: int) -> None:
        # The backup has heard what was sent then, or something later, so its detector has not run out yet. After a longer time
        # (this host was frozen, the acknowledgement came late) it may have taken over, and only the witness knows. What the
        # witness says is old as well once that long has passed since it was asked: the host may have been frozen over the answer.
        known, asked = sent, 0
        while self._clock.now() - known >= self._settings.sure and not active(FaultName.GENERATION_UNCHECKED):
            if asked == _QUESTIONS:
                raise WitnessUnreachable(
                    f"{asked} of its answers took longer than {self._settings.sure:.1f} s, and are too old then",
                    operation="release of an old epoch",
                    domain=self._name,
                    left="output is held, and a new session begins",
                    hint="look at the witness and at the path to it, and whether this host is overloaded",
                )
            known, asked = self._clock.now(), asked + 1
            self._need(await self._settle(Want.RELEASE, generation, "release of an old epoch", copied=True))

    def solo_due(self, last_ack: float) -> bool:
        return self._settings.automatic_solo and self._clock.now() - last_ack >= self._settings.solo

    async def alone(self, why: str, *, copied: int) -> tuple[Event, int | None]:
        if active(FaultName.SOLO_WITHOUT_CAS):
            return Event.SOLE_OWNER, None
        try:
            settled = await self._settle(Want.ALONE, copied, why, copied=copied > 0)
            self._need(settled)
        except OwnershipLost as error:
            log.warning("%s: %s", self._name, error)
            return Event.ANOTHER_OWNS, None
        except WitnessError as error:
            log.warning("%s: stays silent: %s", self._name, error)
            return Event.WITNESS_SILENT, None
        return Event.SOLE_OWNER, None if settled.record is None else session_generation(settled.record)

    async def handed_back(self, generation: int) -> bool:
        try:
            settled = await self._settle(Want.RESUME, generation, "looks whether it was given back", copied=True)
        except WitnessError as error:
            log.info("%s: stays paused: %s", self._name, error)
            return False
        return settled.verdict is Verdict.GO

    async def _register(self, session: PrimarySession, generation: int) -> None:
        while True:
            try:
                settled = await self._settle(
                    Want.REGISTER, generation, "the backup holds a committed copy", copied=True
                )
                self._need(settled)
                if settled.verdict is Verdict.AGAIN:
                    raise AuthorityError(
                        f"the record is of another generation than the session ({generation})",
                        operation=Want.REGISTER.value,
                        domain=self._name,
                        left="output is held until a session of the right generation has committed",
                    )
            except WitnessError as error:
                # Output commit goes on as if it stood there: it is right in either case.
                before, self.reason = self.reason, f"the backup cannot take over by itself yet: {error}"
                if self.reason != before:
                    log.warning("%s: %s", self._name, self.reason)
            except RemusError as error:
                session.fail(error)
                return
            except Exception as defect:
                log.critical("%s: the backup is not named, by a defect", self._name, exc_info=True)
                session.fail(AuthorityError(f"a defect of the agent: {defect!r}", operation=Want.REGISTER.value))
                return
            else:
                self.reason = None
                return
            await self._clock.sleep(self._settings.retry)

    async def _settle(self, want: Want, generation: int, reason: str, *, copied: bool = False) -> Settled:
        # The first generation is of sessions without a witness: with one they begin with the second.
        known = copied and generation > 1 and not active(FaultName.LOSS_UNNOTICED)
        stake = Stake(want, self._authority.host, self._name, generation, self._peer, reason, known)
        doubt = self._in_doubt
        if want is Want.ALONE:
            self._in_doubt = True
        try:
            settled = await self._authority.settle(self._guest, stake)
        except (WitnessUnreachable, RecordLost):
            if want is Want.ALONE:
                self._in_doubt = doubt
            raise
        except WitnessUnknown:
            self._in_doubt = True
            raise
        if want is Want.ALONE:
            self._in_doubt = False
        return settled

    def _need(self, settled: Settled) -> None:
        if settled.verdict in (Verdict.STAND_DOWN, Verdict.REFUSE) and settled.record is not None:
            raise OwnershipLost(
                f"{settled.record.owner} owns the guest since generation {settled.record.generation}",
                operation="ask the witness",
                domain=self._name,
                left="its output is held",
                hint="this host gives its guest up and can be a backup of it",
            )


async def claim(authority: Authority, guest: str, name: str, peer: str) -> int:
    """A guest that runs here with its output open is to be protected: the generation of its sessions. Raises WitnessError, or
    AuthorityError when another host owns it."""
    stake = Stake(Want.CLAIM, authority.host, name, 0, peer, "protected for the first time")
    settled = await authority.settle(guest, stake)
    if settled.verdict is Verdict.REFUSE and settled.record is not None:
        raise AuthorityError(
            f"the witness says that {settled.record.owner} owns it (generation {settled.record.generation})",
            operation="protect",
            domain=name,
            left="nothing was changed",
            hint=f"if the guest on {authority.host} is the right one: `remusctl forget {guest}` on {settled.record.owner}; if"
            " that host is gone for good, the same with --force here, while the guest is shut down",
        )
    return 1 if settled.record is None else session_generation(settled.record)
