"""Every guest of a pair as one host sees it: where it runs, where its backup is, what the record says, which paths work.

Only this host is asked, and the witness. What the other host does is told as far as it can be known from here: from the session
with it, and from when it was last heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from remus_agent.errors import RemusError, WitnessError
from remus_agent.machines.authority import Ownership
from remus_agent.observe.status import Status
from remus_agent.ports import Clock, Hypervisor
from remus_agent.services.backup import BackupService
from remus_agent.services.primary import PrimaryService
from remus_agent.services.roles import Roles
from remus_agent.witness_ports import Witness

_RUNS: Final = frozenset({"connecting", "seeding", "protected", "silent", "solo", "stopping", "failed", "active"})
"""States of a primary in which its guest runs."""
_THERE: Final[Mapping[str, str]] = {
    "connecting": "not known",
    "seeding": "backup, receiving",
    "protected": "backup, ready",
    "silent": "not known; it may hold a committed copy",
    "solo": "no copy that may be activated",
    "switching": "backup, ready",
    "handed-over": "was told to run it",
    "in-doubt": "not known; it may run it",
    "standing-down": "owns it",
    "stood-down": "owns it",
    "receiving": "primary, seeding",
    "ready": "primary, protected",
    "orphaned": "primary, not heard",
    "stale": "primary, ran on without this copy",
    "activating": "not heard",
}
"""What the other host is to a guest, by the state that it has here."""


class Looks(Protocol):
    """What is asked of the agent."""

    async def overview(self) -> list[Status]: ...


@dataclass(frozen=True, slots=True)
class Topology:
    """Of one host. peers, paths: their first and second addresses. protectors: of guests that run here, by name."""

    host: str
    peers: Mapping[str, str]
    paths: Mapping[str, str]
    clock: Clock
    hypervisor: Hypervisor
    witness: Witness | None
    backup: BackupService
    roles: Roles | None
    protectors: Mapping[str, PrimaryService]

    async def view(self, agent: Looks) -> dict[str, Any]:
        """All of it. A witness that can't be asked costs one of its timeouts, whatever the number of guests."""
        found = [(status, await self._uuid(status.domain)) for status in await agent.overview()]
        records, problem = await self._records([uuid for _, uuid in found if uuid is not None])
        return {
            "host": self.host,
            "peers": {name: self._peer(name) for name in sorted(self.peers)},
            "witness": None
            if self.witness is None
            else {"answers": problem is None if records else None, "problem": problem},
            "guests": [self._guest(status, uuid, records, current=problem is None) for status, uuid in found],
        }

    def _peer(self, name: str) -> dict[str, Any]:
        now = self.clock.now()
        heard = [service.heard for service in self.protectors.values() if service.record.peer == name]
        for domain in self.backup.names():
            copies = self.backup.copies_of(domain)
            heard += [copy.last_heard for copy in copies if copy.hello.host == name and copy.state.value != "discarded"]
        known = [at for at in heard if at is not None]
        second = self.backup.beats.heard_host(name)
        return {
            "address": self.peers[name],
            "heard": round(now - max(known), 3) if known else None,
            "second": self.paths.get(name),
            "second_heard": None if second is None else round(now - second, 3),
            "second_problem": None if self.roles is None else self.roles.second_path_problem(name),
        }

    def _guest(
        self, status: Status, uuid: str | None, records: Mapping[str, Ownership | None], *, current: bool
    ) -> dict[str, Any]:
        record = None if uuid is None else records.get(uuid)
        runs_on, backup = self._places(status)
        return {
            "domain": status.domain,
            "uuid": uuid,
            "runs_on": runs_on,
            "backup": backup,
            "generation": status.generation,
            "here": {
                "host": self.host,
                "role": status.role,
                "state": status.state,
                "for": status.since,
                "last_ack_age": status.last_ack_age,
                "reason": status.reason,
            },
            "there": {
                "host": status.peer,
                "is": None if status.role == "none" else _THERE.get(status.state, "not known"),
            },
            "record": None if record is None else {**asdict(record), "current": current},
        }

    def _places(self, status: Status) -> tuple[str | None, str | None]:
        """Where it runs and who backs it up; None where that is not known here, or nobody does."""
        if status.role == "primary" and status.state in _RUNS:
            return self.host, status.peer if status.state in ("protected", "silent") else None
        if status.role == "backup" and status.state in ("receiving", "ready"):
            return status.peer, self.host if status.state == "ready" else None
        if status.role == "none" and status.state in ("unprotected", "paused"):
            return self.host, None
        return None, None

    async def _uuid(self, name: str) -> str | None:
        service = self.protectors.get(name)
        if service is not None:
            return service.domain.uuid
        copy = self.backup.copy_of(name)
        if copy is not None:
            return copy.hello.uuid
        try:
            return (await self.hypervisor.domain(name)).uuid
        except RemusError:  # it is gone, or cannot be looked at
            return None

    async def _records(self, guests: Sequence[str]) -> tuple[dict[str, Ownership | None], str | None]:
        """What the witness says, and why it says nothing; then what it said last."""
        found: dict[str, Ownership | None] = {}
        problem: str | None = None
        if self.witness is None or self.roles is None:
            return found, None
        for guest in guests:
            found[guest] = self.roles.last_seen(guest)
            if problem is not None:
                continue
            try:
                read = await self.witness.read(guest)
            except WitnessError as error:
                problem = str(error)
            else:
                found[guest] = None if read is None else read.ownership
        return found, problem
