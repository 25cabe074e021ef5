"""Looks whether this host could do its part now: nothing is changed, no guest is touched, no host is switched.

Each check has a name, a result (`ok`, `warn`: it works, and should not stay so; `fail`), what was found, and what to do next. All
are made at once, and none that fails or hangs hides another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol

from remus_agent.errors import ConnectionLost, PeerTimeout, RemusError
from remus_agent.observe.event_kinds import PROBLEMS
from remus_agent.observe.status import Status
from remus_agent.ports import Connector
from remus_agent.protocol.replication.message_frames import decode, encode
from remus_agent.protocol.replication.messages import Beat, Refuse
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.session import refused_by_peer
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)

Result = Literal["ok", "warn", "fail"]
NOBODY: Final = "00000000-0000-0000-0000-000000000000"
"""A guest of which no witness has a record."""
_REFUSED_WITHIN: Final = 0.5
"""Seconds for a peer to refuse what it was told; who takes a heartbeat in says nothing."""
EXPIRES_SOON: Final = 30.0
"""Days."""
LONGEST: Final = 60.0
"""Seconds for one check, besides those to reach a peer: twice as long as xenstored may take. Fence agents have a limit of their
own, which is configured."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. next: what to do, where something is to be done."""

    name: str
    result: Result
    message: str
    next: str | None = None


Work = Callable[[], Awaitable[Sequence[Check]]]


class Agent(Protocol):
    """What is asked of the agent."""

    def watchdog(self) -> dict[str, Any] | None: ...

    async def overview(self) -> list[Status]: ...


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Of one host. disk: raises RemusError when nothing can be written where the journal is. tls: what is to be said of this
    host's certificate; None where connections are not encrypted."""

    settings: Settings
    peers: Mapping[str, str]
    paths: Mapping[str, str]
    ports: PrimaryPorts
    agent: Agent
    disk: Callable[[], Awaitable[None]]
    tls: Callable[[], Awaitable[Mapping[str, Any]]] | None

    async def run(self) -> dict[str, Any]:
        """All checks."""
        peers, longest = sorted(self.peers), LONGEST + self.settings.connect
        fenced = [name for name in peers if self.ports.fencing and self.ports.fencing.covers(name)]
        works: list[tuple[str, Work, float | None]] = [
            ("Xen", self._xen, longest),
            ("journal", self._journal, longest),
            ("certificate", self._certificate, longest),
            *((f"{name}, replication", partial(self._peer, name), longest) for name in peers),
            *((f"{name}, second path", partial(self._second, name), longest) for name in peers),
            ("witness", self._witness, longest),
            *((f"{name}, fence agent", partial(self._fencing, name), None) for name in fenced),
            ("watchdog", self._watchdog, longest),
            ("guests", self._guests, longest),
        ]
        found = await asyncio.gather(*(_found(*each) for each in works))
        return {"host": self.settings.host, "checks": [asdict(check) for checks in found for check in checks]}

    async def _xen(self) -> Sequence[Check]:
        facts = await self.ports.hypervisor.facts()
        return [Check("Xen", "ok", f"{facts.xen_version}, {facts.free_memory_kib // 1024} MiB free")]

    async def _journal(self) -> Sequence[Check]:
        return [await self._tried("journal", self.disk(), "can be written", None)]

    async def _tried(self, name: str, work: Awaitable[object], message: str, hint: str | None) -> Check:
        try:
            await work
        except RemusError as error:
            return Check(name, "fail", error.message, error.hint or hint)
        return Check(name, "ok", message)

    async def _certificate(self) -> Sequence[Check]:
        name = "certificate"
        if self.tls is None:
            hint = "set remus_pki_enabled, see docs/operations.md#certificates-of-the-agents"
            return [Check(name, "warn", "connections are plain TCP", hint)]
        found = await self.tls()
        if "error" in found:
            return [Check(name, "fail", str(found["error"]), "renew it: playbooks/site.yml --tags remus_pki")]
        left = float(found["days_left"])
        renew = "renew it: playbooks/site.yml --tags remus_pki" if left < EXPIRES_SOON else None
        result: Result = "fail" if left <= 0 else "warn" if left < EXPIRES_SOON else "ok"
        return [Check(name, result, f"valid until {found['expires']}, {left:.1f} days left", renew)]

    async def _peer(self, name: str) -> Sequence[Check]:
        address = self.peers[name]
        hint = f"check the link and the agent on {name}: ping the address, systemctl status remus-agent there"
        work = self._greet(self.ports.connector, name, address)
        return [await self._tried(f"{name}, replication", work, f"answers at {address}", hint)]

    async def _second(self, name: str) -> Sequence[Check]:
        address = self.paths.get(name)
        title = f"{name}, second path"
        if address is None:
            if self.ports.witness is None:
                return [Check(title, "ok", "none, and without a witness nobody takes over by itself")]
            hint = "set remus_second_address on both hosts, on another network than the replication"
            return [Check(title, "warn", "none: without two paths no host takes over by itself", hint)]
        connector = self.ports.second or self.ports.connector
        hint = f"check the second network and the agent on {name}"
        return [await self._tried(title, self._greet(connector, name, address), f"answers at {address}", hint)]

    async def _greet(self, connector: Connector, name: str, address: str) -> None:
        """A heartbeat for no guest, which changes nothing there. Raises RemusError when it is not taken in."""
        connection = await connector.connect(address, self.settings.connect)
        try:
            await connection.send(encode(Beat(host=self.settings.host, guests=())))
            try:
                async with asyncio.timeout(_REFUSED_WITHIN):
                    answer = decode(await connection.receive())
            except TimeoutError:
                return
            except ConnectionLost as error:
                raise ConnectionLost(
                    f"{name} at {address} has ended the connection: {error.message}",
                    operation="selftest",
                    hint=f"see why: journalctl -u remus-agent on {name}",
                ) from error
            if isinstance(answer, Refuse):
                raise refused_by_peer(answer, name)
            raise PeerTimeout(f"{name} at {address} gave an answer that was not asked for", operation="selftest")
        finally:
            await connection.close()

    async def _witness(self) -> Sequence[Check]:
        if self.ports.witness is None:
            return [Check("witness", "ok", "none is configured: roles change on an operator's word alone")]
        hint = "see docs/operations.md#the-witness; playbooks/preflight.yml names what is wrong with it"
        work = self.ports.witness.read(NOBODY)
        return [await self._tried("witness", work, "answers, with a majority of its nodes", hint)]

    async def _fencing(self, name: str) -> Sequence[Check]:
        title = f"{name}, fence agent"
        if self.ports.fencing is None:
            raise AssertionError("asked for only where it is configured")
        try:
            found = await self.ports.fencing.check(name)
        except RemusError as error:
            return [Check(title, "fail", error.message, error.hint or "see docs/operations.md#fencing")]
        if found.unknown_options:
            unknown = ", ".join(found.unknown_options)
            return [Check(title, "warn", f"{found.agent} ignores {unknown}", f"correct [fencing.{name}.options]")]
        return [Check(title, "ok", f"{found.agent} works, the host is {found.power.value}")]

    async def _watchdog(self) -> Sequence[Check]:
        found = self.agent.watchdog()
        if found is None:
            return []
        if found.get("problem"):
            return [Check("watchdog", "fail", str(found["problem"]), "see docs/operations.md, The watchdog")]
        return [Check("watchdog", "ok", "armed" if found.get("armed") else "can be armed, no guest needs it now")]

    async def _guests(self) -> Sequence[Check]:
        return [_guest(status) for status in await self.agent.overview()]


def _guest(status: Status) -> Check:
    problem = PROBLEMS.get(status.state)
    if problem is None:
        return Check(status.domain, "ok", f"{status.role}, {status.state}")
    return Check(status.domain, "warn", f"{status.state}: {status.reason or problem.means}", f"see {problem.runbook}")


async def _found(name: str, work: Work, seconds: float | None) -> Sequence[Check]:
    """What one check found, whatever becomes of it. seconds: that it may take; None: it has a limit of its own."""
    try:
        async with asyncio.timeout(seconds):
            return await work()
    except TimeoutError:
        hint = "see what hangs: journalctl -u remus-agent, dmesg"
        return [Check(name, "fail", f"no answer within {seconds or 0:g} s", hint)]
    except RemusError as error:
        return [Check(name, "fail", error.message, error.hint)]
    except Exception as defect:
        log.exception("selftest: %s", name)
        return [Check(name, "fail", f"this should not happen: {defect!r}", "report it, with journalctl -u remus-agent")]
