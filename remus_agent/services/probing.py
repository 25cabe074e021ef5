"""Asks beforehand whether a domain could be protected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from remus_agent.errors import RemusError
from remus_agent.protocol.replication.messages import Refuse
from remus_agent.services.disks import hello_disks
from remus_agent.services.primaries import Primaries
from remus_agent.services.primary_ports import PrimaryPorts, hello_for
from remus_agent.services.protecting import address_of
from remus_agent.services.session import ask
from remus_agent.services.settings import Settings
from remus_agent.services.taken_domains import TakenDomains
from remus_agent.services.watchdog import WatchdogKeeper


@dataclass(frozen=True, slots=True)
class Probing:
    """From one host. peers: their addresses."""

    settings: Settings
    peers: Mapping[str, str]
    ports: PrimaryPorts
    primaries: Primaries
    taken: TakenDomains
    watchdog: WatchdogKeeper

    async def probe(self, name: str, peer: str) -> dict[str, Any]:
        """Whether this domain could be protected to that peer, with every reason against it. Changes nothing."""
        reasons: list[dict[str, Any]] = []
        facts: dict[str, Any] = {}
        address = address_of(self.peers, peer)
        try:
            domain = await self.ports.hypervisor.domain(name)
            alone = self.primaries.alone(name, peer)
            if alone is None:
                self.taken.refuse_member(name, "probe")
                self.taken.refuse_what_is_taken(name, "probe")
            if self.watchdog.problem is not None:
                raise self.watchdog.problem
            generation = 1 if alone is None else alone.record.generation
            source = await self.ports.hypervisor.open_source(domain)
            await source.close()
            disks = hello_disks(await self.ports.taps.of(domain))
            host = await self.ports.hypervisor.facts()
            facts = {"memory_kib": domain.memory_kib, "guest_type": domain.guest_type.value, **asdict(host)}
            hello = hello_for(domain, host, self.settings.host, generation=generation, purpose="probe", disks=disks)
            connection, answer = await ask(self.ports.connector, address, hello, self.settings)
            await connection.close()
            if isinstance(answer, Refuse):
                reasons += [
                    {"code": reason.code, "message": reason.message, "hint": reason.hint} for reason in answer.reasons
                ]
        except RemusError as error:
            reasons.append({"code": error.code, "message": error.message, "hint": error.hint or ""})
        return {"ok": not reasons, "reasons": reasons, "facts": facts}
