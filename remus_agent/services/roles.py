"""What an agent with a witness does beyond one without: it claims guests, takes over, stands down, and protects again."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from remus_agent.errors import AuthorityError, DomainNotFound, RemusError, WitnessError
from remus_agent.machines import backup as backup_machine
from remus_agent.machines.authority import Ownership
from remus_agent.ports import Domain
from remus_agent.services.admission import admit
from remus_agent.services.authority import Authority
from remus_agent.services.backup import BackupService, refuse_another
from remus_agent.services.copy import Copy
from remus_agent.services.fencing import Fencer, check_proof
from remus_agent.services.fencing_turn import FencingTurn
from remus_agent.services.fresh_word import LOOK_AGAIN, FreshWord
from remus_agent.services.giving_back import GivingBack
from remus_agent.services.hand_over import BeforeRun
from remus_agent.services.heartbeats import HeartbeatSender
from remus_agent.services.lasting import lasting
from remus_agent.services.override import Overrides, refused
from remus_agent.services.ownership import Witnessed, claim
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.settings import Settings
from remus_agent.services.takeover import Takeover
from remus_agent.services.takeover_notes import TakeoverNotes
from remus_agent.store_ports import GuestRecord
from remus_agent.witness_ports import Witness

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seams:
    """What the agent offers. guests: UUIDs of those that it protects. adopt: become the primary, alone, of a guest that runs
    here. paths: second addresses of peers, by name."""

    guests: Callable[[], list[str]]
    adopt: Callable[[Domain, GuestRecord], None]
    paths: Mapping[str, str] = field(default_factory=dict)


class Roles:
    """Of one host."""

    def __init__(
        self,
        witness: Witness,
        settings: Settings,
        ports: PrimaryPorts,
        backup: BackupService,
        seams: Seams,
    ) -> None:
        self._witness = witness
        self._authority = Authority(witness, settings.host, ports.clock, ports.events)
        self._settings = settings
        self._ports = ports
        self._backup = backup
        self._seams = seams
        turn = FencingTurn(witness, settings, ports.clock)
        self._fencer = Fencer(ports.fencing, turn, settings, ports.clock, ports.events)
        self._notes = TakeoverNotes(
            ports.store, interval_ms=settings.interval_ms, output_limit_bytes=settings.output_limit_bytes
        )
        self.takeover = Takeover(
            backup,
            self._authority,
            frozenset(seams.paths),
            settings,
            ports.clock,
            ports.events,
            self._taken,
            self._fencer,
            self._notes,
        )
        self._giving_back = GivingBack(self._authority, self._notes, backup, ports, self.takeover.turn, settings.retry)
        self._overrides = Overrides(self._authority, self._notes, backup, ports, seams.adopt, settings.retry)
        self._tasks: set[asyncio.Task[None]] = set()
        self._senders: dict[str, HeartbeatSender] = {}
        backup.admit = functools.partial(admit, self._authority)

    def start(self, records: Sequence[GuestRecord] = ()) -> None:
        """Begin to listen for primaries that die, and to tell peers that this host lives. records: what an earlier agent left."""
        self._notes.remember(records)
        self._fencer.start(self._seams.paths)
        self._go_on(self._giving_back.run, "giving back")
        self._go_on(self.takeover.run, "takeover")
        for name, address in self._seams.paths.items():
            sender = HeartbeatSender(
                self._ports.second or self._ports.connector,
                address,
                self._settings,
                self._ports.clock,
                self._seams.guests,
            )
            self._senders[name] = sender
            self._go_on(sender.run, f"heartbeats to {name}")

    async def close(self) -> None:
        """The agent stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.takeover.close()
        await self._fencer.close()
        await self._witness.close()

    async def claim(self, domain: Domain, peer: str) -> int:
        """Before a guest is protected: the generation of its sessions."""
        return await claim(self._authority, domain.uuid, domain.name, peer)

    def ownership(self, record: GuestRecord) -> Witnessed:
        """For a guest that this host protects."""
        return Witnessed(self._authority, record, self._settings, self._ports.clock)

    async def failover(
        self,
        name: str,
        word: FreshWord,
        *,
        generation: int | None,
        session: str | None,
        fenced: dict[str, str],
        accept_loss: bool,
    ) -> Copy:
        """Activate this host's copy on an operator's word: by the witness, or where that gives no word by a proof of fencing and
        with a loss that is accepted; that is recorded, and reported until the witness says so. Where only fencing is waited for,
        a proof ends that."""
        waiting = self._fencer.waiting(name)
        if waiting is not None:
            refuse_another(waiting.copy, generation, session)
            if fenced:
                await self._backup.beats.expect_silence(fenced["host"], self._settings.quiet, name)
            return await self._fencer.prove(waiting, fenced)
        if fenced and accept_loss:
            await self.takeover.stop_attempt(name)
        async with self.takeover.turn(name):
            return await self._failover(
                name, word, generation=generation, session=session, fenced=fenced, accept_loss=accept_loss
            )

    async def hand_over(self, copy: Copy) -> None:
        """hand_over.Permission by the witness's word; its notes are those of every takeover."""
        async with self.takeover.turn(copy.hello.domain):
            await self.takeover.hand_over(copy, f"{copy.hello.host} hands it over")

    async def doubt(self, domain: str, copy: Copy | None) -> str | None:  # noqa: ARG002 - the protocol's signature
        """As hand_over.Permission says. Where an earlier agent had the session, the record is what can be asked."""
        if copy is None:
            return "the agent was started anew: the witness's record says who may run it"
        if self.takeover.is_given_back(copy):
            return "it never ran here, and is given back as soon as the witness has said so"
        return None

    async def forget_hand_over(self, domain: str, still: Callable[[], None]) -> None:
        """As hand_over.Permission says. Every takeover leaves a note, and whoever needs it no more removes it."""

    async def _failover(
        self,
        name: str,
        word: FreshWord,
        *,
        generation: int | None,
        session: str | None,
        fenced: dict[str, str],
        accept_loss: bool,
    ) -> Copy:
        copy = self._backup.require_copy(name)
        if copy.state is backup_machine.State.ACTIVE:
            return copy
        refuse_another(copy, generation, session)
        if fenced:
            check_proof(name, copy.hello.host, fenced)
        await self._backup.expect_silence(name, self._settings.quiet, off=fenced.get("host"))
        why: RemusError
        if fenced:
            word.require(name, "failover", LOOK_AGAIN)  # it spares the fencing
        patience = self._settings.connect if fenced and accept_loss else None
        try:
            if copy.state is not backup_machine.State.STALE:
                return await self.takeover.take(name, "an operator asked for a failover", fenced, patience)
            why = AuthorityError("the guest ran on without this copy", operation="failover", domain=name)
        except (WitnessError, AuthorityError) as error:
            why = error
        if not fenced or not accept_loss:
            raise refused(why, name) from why

        def activate(before_run: BeforeRun) -> Awaitable[Copy]:
            return self._backup.failover(
                name,
                before_run,
                generation=generation,
                session=session,
                fenced=fenced,
                accept_loss=accept_loss,
            )

        record = await self._overrides.activate(copy, activate, word, fenced, why)
        self.resume_override(record)
        return copy

    def resume_override(self, record: GuestRecord) -> None:
        """A guest that was activated by override, by an earlier agent or just now, and that runs here."""
        self._overrides.say(record)
        self._go_on(lambda: self._overrides.reconcile(record), f"reconcile {record.name}")

    def second_path_problem(self, peer: str) -> str | None:
        """Why no heartbeat gets through to this peer over the second path; None: they do, or there is none."""
        sender = self._senders.get(peer)
        return None if sender is None else sender.problem

    def last_seen(self, guest: str) -> Ownership | None:
        """A guest's record as this host last read or changed it."""
        return self._authority.last_seen(guest)

    @property
    def overrides(self) -> Mapping[str, str]:
        """Guests that run here on an operator's word, and what the witness says to it."""
        return self._overrides.words

    async def _taken(self, copy: Copy) -> None:
        """The guest runs here, and the witness knows: this host is its primary now, without a backup yet."""
        domain, hello = copy.running, copy.hello
        if domain is None:
            raise DomainNotFound("the copy does not run", operation="take over", domain=hello.domain)
        self._seams.adopt(domain, self._notes.primary(copy))
        self._backup.hand_out(copy)

    def _go_on(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        lasts = lasting(work, name, self._ports.clock, self._ports.events, self._settings.retry)
        task = asyncio.create_task(lasts, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
