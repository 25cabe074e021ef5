"""Two whole agents, the real services and machines, over simulated hosts and a simulated link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, Unpack

from remus_agent.adapters.sim.costs import SimCosts
from remus_agent.adapters.sim.disk import SimTaps, SimVolume
from remus_agent.adapters.sim.hypervisor import SimHypervisor
from remus_agent.adapters.sim.local import LoopClock, SimAnnouncer, SimDisk, SimEvents, SimOutput, SimOutputs, SimPauses
from remus_agent.adapters.sim.net import SimConnection, SimNetwork
from remus_agent.adapters.sim.replica import SimReplicas, SimStores
from remus_agent.disk_ports import DiskFacts
from remus_agent.observe.status import Status
from remus_agent.services.agent import AgentService
from remus_agent.services.backup import BackupService
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.settings import Settings
from tests.model.timeouts import Timeouts

UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
DISK_BYTES = 64 * 1024
DEAD = {"host": "alpha", "method": "lab", "evidence": "its QEMU process is gone"}


@dataclass
class Host:
    """What outlives an agent: the hypervisor with its guests, the plugs, the disk."""

    name: str
    xen: SimHypervisor
    outputs: SimOutputs = field(default_factory=SimOutputs)
    disk: SimDisk = field(default_factory=SimDisk)
    events: SimEvents = field(default_factory=SimEvents)
    announcer: SimAnnouncer = field(default_factory=SimAnnouncer)
    agent: AgentService | None = None
    volumes: dict[str, list[SimVolume]] = field(default_factory=dict)
    taps: SimTaps | None = None
    replicas: SimReplicas | None = None
    costs: SimCosts = field(default_factory=SimCosts)
    stores: SimStores = field(init=False)
    pauses: SimPauses = field(init=False)

    def __post_init__(self) -> None:
        self.stores = SimStores(self.disk)
        self.pauses = SimPauses(self.disk)


AnyHost = TypeVar("AnyHost", bound=Host)


class TwoHosts(Generic[AnyHost]):
    """alpha and beta, each with an agent, and a link between them."""

    network: SimNetwork
    alpha: AnyHost
    beta: AnyHost

    async def _protect(self, name: str, host: AnyHost) -> Status:
        return await on(host).protect(
            name,
            "beta" if host is self.alpha else "alpha",
            interval_ms=40,
            output_limit_bytes=1 << 20,
            wait=True,
            timeout=100,
            progress=quiet,
        )

    async def kill_agent(self, host: AnyHost) -> None:
        """SIGKILL: no clean-up of the agent's own runs. Its connections end; guests and plugs stay as they are."""
        agent = on(host)
        if host.taps is not None:
            host.taps.kill()
        tasks = [*agent._primaries.tasks.values(), *((agent._pausing,) if agent._pausing is not None else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if agent._roles is not None:
            await agent._roles.close()
        host.xen.revive()
        host.agent = None

    async def crash_backup(self) -> None:
        """beta's agent dies, and with it the copies that it holds in memory; its disks stay as they are."""
        assert self.beta.replicas is not None
        self.beta.replicas.kill()
        self.beta.agent = None
        self.network.listen("beta:1", _refuse)
        await self.network.drop_all()
        await asyncio.sleep(0.1)
        self.beta.xen.lose_agent()
        for journal in self.beta.disk.journals.values():
            journal.is_open = False


class Pair(TwoHosts[Host]):
    """alpha and beta, each with an agent; alpha runs web1. disks: names of the disks that it has."""

    def __init__(self, disks: tuple[str, ...] = (), **timeouts: Unpack[Timeouts]) -> None:
        self.network = SimNetwork()
        self.timeouts = timeouts
        self.alpha = Host("alpha", SimHypervisor("alpha"))
        self.beta = Host("beta", SimHypervisor("beta"))
        self.guest = self.alpha.xen.create("web1", UUID, disks=disks)
        self.alpha.volumes["web1"] = [SimVolume(DiskFacts(vdev, DISK_BYTES, 512)) for vdev in disks]
        for host in (self.alpha, self.beta):
            self.boot(host)

    @property
    def output(self) -> SimOutput:
        """The plug of web1 on alpha."""
        return self.alpha.outputs.by_name["web1"]

    def boot(self, host: Host) -> AgentService:
        """Start a host's agent."""
        settings = Settings(host=host.name, **self.timeouts)
        clock = LoopClock()
        host.taps, host.replicas = SimTaps(host.volumes), SimReplicas(host.stores)
        ports = BackupPorts(host.xen, host.disk, host.announcer, host.events, clock, host.replicas)
        backup = BackupService(ports, settings)
        host.agent = AgentService(
            settings,
            {"beta": "beta:1"} if host is self.alpha else {"alpha": "alpha:1"},
            PrimaryPorts(
                host.xen,
                self.network,
                host.disk,
                host.events,
                clock,
                host.taps,
                host.announcer,
                pauses=host.pauses,
                costs=host.costs,
            ),
            host.outputs,
            backup,
        )
        self.network.listen(f"{host.name}:1", backup.on_connection)
        return host.agent

    async def protect(self, host: Host | None = None) -> Status:
        """Protect web1 from alpha to beta, or from the host where it runs to the other one."""
        return await self._protect("web1", host or self.alpha)

    def volume(self, vdev: str) -> SimVolume:
        """A disk of web1 on alpha."""
        return next(volume for volume in self.alpha.volumes["web1"] if volume.facts.vdev == vdev)

    def copied(self, vdev: str) -> bytes:
        """The same disk on beta."""
        return self.beta.stores.content("web1", vdev)

    async def kill_host(self) -> None:
        """alpha loses power."""
        await self.kill_agent(self.alpha)
        self.guest.running = False
        await self.network.drop_all()

    async def orphan(self) -> None:
        """alpha loses power, and beta has noticed."""
        await self.kill_host()
        await until(lambda: on(self.beta).backup.copy_of("web1").state.value == "orphaned", "orphaned")  # type: ignore[union-attr]


async def _refuse(connection: SimConnection) -> None:
    await connection.close()


def on(host: Host) -> AgentService:
    """The agent that runs on a host."""
    assert host.agent is not None
    return host.agent


def committed(pair: Pair) -> int:
    """The newest epoch of web1 that beta holds."""
    copy = on(pair.beta).backup.copy_of("web1")
    assert copy is not None
    return copy.committed_epoch


def quiet(phase: str, done: int = 0, total: int = 0, unit: str = "", message: str = "") -> None:
    """Progress that nobody watches."""


async def until(condition: Callable[[], bool], what: str, deadline: float = 300.0) -> None:
    """Poll on virtual time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while not condition():
        assert loop.time() < end, f"never happened: {what}"
        await asyncio.sleep(0.01)
