"""Two whole agents that protect two guests as one group: an application (app1) and its database (db1).

They talk to each other in two ways. Over their bridge the application sends requests, which the database answers: each is a
number, and held by the plugs like every frame. And directly, by what nobody holds (Xen can join guests so): each tells the other
how far it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Unpack

from remus_agent.adapters.sim.disk import SimTaps, SimVolume
from remus_agent.adapters.sim.hypervisor import SimGuest, SimHypervisor
from remus_agent.adapters.sim.local import LoopClock
from remus_agent.adapters.sim.net import SimNetwork
from remus_agent.adapters.sim.replica import SimReplicas
from remus_agent.disk_ports import DiskFacts
from remus_agent.observe.status import Status
from remus_agent.protocol.groups import Groups
from remus_agent.services.agent import AgentService
from remus_agent.services.backup import BackupService
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.group_disks import GroupReplicas, GroupTaps
from remus_agent.services.group_hypervisor import GroupHypervisor
from remus_agent.services.group_outputs import GroupOutputs
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.settings import Settings
from remus_agent.witness_ports import Witness
from tests.model.pair import DISK_BYTES, Host, TwoHosts, on, until
from tests.model.timeouts import Timeouts

APP, DB = "app1", "db1"
GROUP = "shop"
MEMBERS = (APP, DB)
UUIDS = {APP: "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00a1", DB: "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00d1"}
OWN, OTHERS, REQUESTS, ANSWERS = range(4)
"""Pages of a guest: how far it is; how far the other one has said it is; requests sent (app1) or carried out (db1); answers heard
(app1)."""


def number(guest: SimGuest, page: int) -> int:
    """What stands there."""
    return int.from_bytes(guest.read(page, 8), "little")


def _put(guest: SimGuest, page: int, value: int) -> None:
    guest.write(page, value.to_bytes(8, "little"))


def _runs(guest: SimGuest) -> bool:
    return guest.running and not guest.suspended and not guest.ended


@dataclass
class GroupHost(Host):
    """witness: None where an operator decides alone."""

    groups: Groups = field(default_factory=lambda: Groups({GROUP: MEMBERS}))
    witness: Witness | None = None


class GroupPair(TwoHosts[GroupHost]):
    """alpha and beta, each with an agent; alpha runs both guests. disks: names of the disks of each."""

    def __init__(
        self,
        disks: Mapping[str, Sequence[str]] | None = None,
        *,
        groups: Mapping[str, Groups] | None = None,
        witnesses: Mapping[str, Witness] | None = None,
        **timeouts: Unpack[Timeouts],
    ) -> None:
        self.network = SimNetwork()
        self.timeouts = timeouts
        self.alpha = GroupHost("alpha", SimHypervisor("alpha"))
        self.beta = GroupHost("beta", SimHypervisor("beta"))
        self.guests: dict[str, SimGuest] = {}
        for name in MEMBERS:
            own = tuple((disks or {}).get(name, ()))
            self.guests[name] = self.alpha.xen.create(name, UUIDS[name], disks=own)
            self.alpha.volumes[name] = [SimVolume(DiskFacts(vdev, DISK_BYTES, 512)) for vdev in own]
        for host in (self.alpha, self.beta):
            host.groups = (groups or {}).get(host.name, host.groups)
            host.witness = (witnesses or {}).get(host.name)
            host.stores.committed_as = dict.fromkeys(MEMBERS, GROUP) if GROUP in host.groups else {}
            self.boot(host)

    def boot(self, host: GroupHost) -> AgentService:
        """Start a host's agent."""
        settings = Settings(host=host.name, groups=host.groups, **self.timeouts)
        clock = LoopClock()
        host.taps, host.replicas = SimTaps(host.volumes), SimReplicas(host.stores)
        xen = GroupHypervisor(host.xen, host.groups)
        replicas = GroupReplicas(host.replicas, host.groups)
        backup = BackupService(
            BackupPorts(xen, host.disk, host.announcer, host.events, clock, replicas),
            settings,
        )
        host.agent = AgentService(
            settings,
            {"beta": "beta:1"} if host is self.alpha else {"alpha": "alpha:1"},
            PrimaryPorts(
                xen,
                self.network,
                host.disk,
                host.events,
                clock,
                GroupTaps(host.taps, host.groups),
                host.announcer,
                host.witness,
                pauses=host.pauses,
                costs=host.costs,
            ),
            GroupOutputs(host.outputs),
            backup,
            {"beta": "beta:2"} if host is self.alpha else {"alpha": "alpha:2"},
        )
        self.network.listen(f"{host.name}:1", backup.on_connection)
        self.network.listen(f"{host.name}:2", backup.on_beats)
        return host.agent

    async def protect(self, name: str = GROUP, host: GroupHost | None = None) -> Status:
        """Protect the group from alpha to beta, or from the host where it runs to the other one."""
        return await self._protect(name, host or self.alpha)

    async def status(self, host: GroupHost | None = None) -> Status:
        """Of the group."""
        return await on(host or self.alpha).status(GROUP)

    # What the guests do

    def tick(self) -> None:
        """One moment of both guests on alpha: those that run count on and talk to each other."""
        app, db = self.guests[APP], self.guests[DB]
        for guest in filter(_runs, (app, db)):
            _put(guest, OWN, number(guest, OWN) + 1)
        for guest, other in ((app, db), (db, app)):
            if _runs(guest):
                _put(guest, OTHERS, number(other, OWN))
        self._deliver()
        if _runs(app):
            sent = number(app, REQUESTS) + 1
            _put(app, REQUESTS, sent)
            self.emit(APP, f"request {sent}")

    def _deliver(self) -> None:
        """Frames that left one of them and have arrived at the other."""
        for sender, receiver, page in ((APP, DB, REQUESTS), (DB, APP, ANSWERS)):
            output, guest = self.alpha.outputs.by_name.get(sender), self.guests[receiver]
            heard = [int(frame.split()[1]) for frame in output.out] if output is not None else []
            if not _runs(guest) or not heard or heard[-1] <= number(guest, page):
                continue
            _put(guest, page, heard[-1])
            if receiver == DB:
                self.emit(DB, f"answer {heard[-1]}")

    def emit(self, name: str, frame: str) -> None:
        """A member on alpha sends."""
        if name in self.alpha.outputs.by_name:
            self.alpha.outputs.by_name[name].emit(frame)

    def left(self, name: str) -> list[str]:
        """What has left alpha through a member's plug."""
        return list(self.alpha.outputs.by_name[name].out)

    async def run(self, seconds: float, step: float = 0.003) -> None:
        """Let the guests run for a time."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            self.tick()
            await asyncio.sleep(step)

    # What happens to hosts

    async def kill_host(self) -> None:
        """alpha loses power."""
        await self.kill_agent(self.alpha)
        for guest in self.guests.values():
            guest.running = False
        await self.network.drop_all()

    async def orphan(self) -> None:
        """alpha loses power, and beta has noticed."""
        await self.kill_host()
        await until(lambda: on(self.beta).backup.copy_of(GROUP).state.value == "orphaned", "orphaned")  # type: ignore[union-attr]

    def moved(self) -> dict[str, SimGuest]:
        """The members that run on beta."""
        return {name: guest for name, guest in self.beta.xen.guests.items() if guest.running}

    def volume(self, member: str, vdev: str) -> SimVolume:
        """A disk of a member on alpha."""
        return next(volume for volume in self.alpha.volumes[member] if volume.facts.vdev == vdev)
