"""A simulated host, of parts that tell of what takes effect on it: frames that leave, commits, what becomes of a guest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from remus_agent.adapters.sim.disk import SimTaps, SimVolume
from remus_agent.adapters.sim.hypervisor import SimGuest, SimHypervisor
from remus_agent.adapters.sim.local import SimEvents, SimOutput, SimOutputs
from remus_agent.adapters.sim.net import SimConnection
from remus_agent.adapters.sim.replica import SimReplicas, SimStores
from remus_agent.adapters.sim.watchdog import SimWatchdog
from remus_agent.ports import Domain
from remus_agent.services.agent import AgentService
from tests.formal.trace import Action
from tests.model.scheduler import Node, Scheduler
from tests.model.storage import Disk, Pauses

Tells = Callable[[Action], None]
"""Called with what takes effect, right before it does."""


class HostClock:
    """ports.Clock of one host. rate: of its clock to true time. set_by: by how much its time of day was set."""

    def __init__(self, loop: Scheduler, rate: float) -> None:
        self._loop = loop
        self.rate = rate
        self.set_by = 0.0

    def now(self) -> float:
        return 1000 + self._loop.time() * self.rate

    def time_of_day(self) -> float:
        return self.now() + self.set_by

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.rate)


class Clients(list[str]):
    """What left a host through one plug: the clients have it."""

    def __init__(self, seen: Callable[[str], None]) -> None:
        super().__init__()
        self._seen = seen

    def append(self, frame: str) -> None:
        self._seen(frame)

    def __iadd__(self, frames: Any) -> Clients:  # type: ignore[misc,override]
        for frame in frames:
            self._seen(frame)
        return self


class Plug(SimOutput):
    """One that tells when an epoch ends, when one is let out, and when nothing is held any more."""

    def __init__(self, clients: Clients, tells: Tells) -> None:
        super().__init__(out=clients)
        self._tells = tells

    async def install(self, *, closed: bool) -> None:
        if not closed:
            self._opens()
        await super().install(closed=closed)

    def barrier(self) -> None:
        if not self.closed_epoch:
            self._tells(Action.BARRIER)
        super().barrier()

    async def release(self) -> None:
        if self.closed_epoch:
            self._tells(Action.RELEASE)
        await super().release()

    async def open(self) -> None:
        self._opens()
        await super().open()

    def _opens(self) -> None:
        if self.installed and self.holding:
            self._tells(Action.OPEN)


class Outputs(SimOutputs):
    """Plugs whose frames go to the clients."""

    def __init__(self, seen: Callable[[str], None], tells: Tells) -> None:
        super().__init__()
        self._seen = seen
        self._tells = tells

    def of(self, domain: Domain, limit: int) -> SimOutput:
        if domain.name not in self.by_name:
            self.by_name[domain.name] = Plug(Clients(self._seen), self._tells)
        return super().of(domain, limit)


class Events(SimEvents):
    """Tells of each suspicion."""

    def __init__(self, suspects: Callable[[], None]) -> None:
        super().__init__()
        self._suspects = suspects

    def note(self, domain: str, event: str, *, epoch: int | None = None, **detail: object) -> None:
        super().note(domain, event, epoch=epoch, **detail)
        if event == "suspect":
            self._suspects()


class Hypervisor(SimHypervisor):
    """One that tells of each guest that runs from a copy, and of guests that are paused and go on."""

    def __init__(self, name: str, activated: Callable[[SimGuest], None], tells: Tells) -> None:
        super().__init__(name)
        self._activated = activated
        self._tells = tells

    async def pause(self, domain: Domain) -> None:
        if self._same(domain).running:
            self._tells(Action.STAND_DOWN)
        await super().pause(domain)

    async def destroy(self, name: str) -> bool:
        guest = self.guests.get(name)
        if guest is not None and guest.running and guest.left_down:
            self._tells(Action.STAND_DOWN)  # it was handed over, and is down since then
        return await super().destroy(name)

    async def unpause(self, domain: Domain) -> None:
        guest = self._same(domain)
        if guest.paused_copy:
            self._activated(guest)
        elif not guest.running:
            self._tells(Action.RESUME)
        await super().unpause(domain)


@dataclass
class Machine:
    """A host: what outlives its agent, and the node that runs it. up: it has power."""

    name: str
    peer: str
    clock: HostClock
    xen: Hypervisor
    outputs: Outputs
    disk: Disk
    events: Events
    node: Node
    watchdog: SimWatchdog = field(default_factory=SimWatchdog)
    pauses: Pauses = field(init=False)
    up: bool = True
    agent: AgentService | None = None
    volumes: dict[str, list[SimVolume]] = field(default_factory=dict)
    """Disks of guests, as the guests that run here have them; of no guest by default."""
    stores: SimStores = field(init=False)
    """The same, as copies."""
    taps: SimTaps = field(init=False)
    replicas: SimReplicas = field(init=False)
    starting: asyncio.Task[None] | None = None
    connections: list[SimConnection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pauses = Pauses(self.disk)
        self.stores = SimStores(self.disk)
        self.taps, self.replicas = SimTaps(self.volumes), SimReplicas(self.stores)
