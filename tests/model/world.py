"""Two hosts with their agents, two links, a witness and clients, under faults. What must hold is checked as it happens.

A guest counts; each number that it reaches is a frame to its clients. An *incarnation* is one domain that runs: the first, and
each that a backup activated, which goes on at the number that its memory holds.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

from remus_agent.adapters.sim.disk import SimTaps
from remus_agent.adapters.sim.fencing import SimFencing
from remus_agent.adapters.sim.hypervisor import SimGuest
from remus_agent.adapters.sim.local import SimAnnouncer
from remus_agent.adapters.sim.replica import SimReplicas
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.machines.authority import Ownership
from remus_agent.machines.backup import State
from remus_agent.services.agent import AgentService
from remus_agent.services.backup import BackupService
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.settings import Settings
from remus_agent.store_ports import CommitRecord
from tests.formal.trace import Action
from tests.model.hosts import Events, HostClock, Hypervisor, Machine, Outputs
from tests.model.links import Connector, Links
from tests.model.platters import Platters
from tests.model.recorder import Recorder
from tests.model.scheduler import OUTSIDE, Node, Scheduler
from tests.model.storage import Disk
from tests.model.timeouts import Timeouts
from tests.model.violated import Violated

UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
GUEST = "web1"
PAGES = 12
TIMES: Timeouts = {
    "connect": 1.0,
    "suspend": 1.0,
    "ack": 4.0,
    "silence": 3.0,
    "heartbeat": 1.0,
    "activate": 5.0,
    "retry": 1.0,
    "detect": 3.0,
    "solo": 8.0,
}
BOOT = 10.0
"""Seconds that a host which was reset takes until its agent runs."""
STEP = 0.2
"""Seconds that each step of an activation takes, at most: a host can be killed between two."""
PLATTER = 0.05
"""Seconds that each operation on a copy of a disk takes, at most."""
GRACE = 5.0
"""Seconds for which an owner that has just lost its guest may let out what the new one knows: to the witness and back."""


@dataclass
class Incarnation:
    """number: which. parent: the one it continues, and until which of its numbers."""

    number: int
    host: str
    guest: SimGuest
    parent: Incarnation | None = None
    forked_at: int | None = None
    """The highest number of this one that its child knows of."""
    committed: int = 0
    seen: int = 0


class World:
    """All of it. Times of faults are true time. rng: for delays. disks: names of those that the guest has."""

    def __init__(
        self,
        loop: Scheduler,
        rng: random.Random,
        rates: tuple[float, float],
        solo: float = TIMES["solo"],
        recorder: Recorder | None = None,
        disks: tuple[str, ...] = (),
    ) -> None:
        self.loop = loop
        self.recorder = recorder or Recorder()
        self.rng = rng
        self.solo = solo
        self.witness = SimWitness(delay=lambda _: self.rng.random() * self.witness_delay, changed=self._changed)
        self.witness_delay = 0.1
        self.fencing = SimFencing()
        self.owner: Ownership | None = None
        self.owner_since = 0.0
        self.incarnations: list[Incarnation] = []
        self.snapshots: dict[tuple[str, int], tuple[Incarnation, bytes, bytes, int]] = {}
        """Of each epoch of each session: whose it is, memory, all disks, and the number in them."""
        self.sources: dict[tuple[str, int], tuple[str, int, bool]] = {}
        """Of each domain, by host and id, that runs from a copy or was about to: the session, the epoch that it holds, and
        whether an operator's override lets it run."""
        self.links = Links(self)
        self.lost_with_power = False
        self.lost_data = False
        """The witness has."""
        self.overriding: str | None = None
        """The host on which an operator activates a copy by override just now."""
        self.paused: set[str] = set()
        """Hosts on which an operator has paused a protection."""
        self.automatic_reprotect = True
        self.watchdog_seconds = 0
        """Of agents that are started from now on."""
        self.by_word: set[int] = set()
        """Incarnations that such a word has begun."""
        self.hosts = {
            name: self._machine(name, peer, rate)
            for (name, peer), rate in zip((("alpha", "beta"), ("beta", "alpha")), rates, strict=True)
        }
        self.platters = Platters(self.hosts.values(), disks, lambda: self.rng.random() * PLATTER)

    def _machine(self, name: str, peer: str, rate: float) -> Machine:
        machine = Machine(
            name,
            peer,
            HostClock(self.loop, rate),
            Hypervisor(
                name,
                lambda guest: self._activated(name, guest),
                lambda action: self.recorder.saw(name, action),
            ),
            Outputs(lambda frame: self._seen(name, frame), lambda action: self._plugged(name, action)),
            Disk(
                lambda record: self._committed(name, record),
                lambda copy: self._starts(name, copy),
                lambda: self.recorder.saw(name, Action.ALONE),
            ),
            Events(lambda: self._suspected(peer)),
            self.loop.add(Node(name)),
        )
        machine.xen.in_window = lambda: self._snapshot(machine)
        machine.xen.step = lambda: self.rng.random() * STEP
        machine.watchdog.expired = lambda: self._reset(machine)
        return machine

    # What the hosts do

    async def begin(self) -> None:
        """alpha runs a guest and protects it."""
        guest = self.hosts["alpha"].xen.create(GUEST, UUID, PAGES, disks=self.platters.names)
        self.incarnations.append(Incarnation(0, "alpha", guest))
        for host in self.hosts.values():
            self.boot(host)
        await asyncio.sleep(0.2)
        agent = self.hosts["alpha"].agent
        assert agent is not None
        protecting = agent.protect(
            GUEST,
            "beta",
            interval_ms=700,
            output_limit_bytes=1 << 20,
            wait=False,
            timeout=5,
            progress=lambda *_, **__: None,
        )
        await self.hosts["alpha"].node.spawn(protecting)

    def boot(self, host: Machine) -> None:
        """Start a host's agent."""
        host.node = self.loop.add(Node(host.name))
        for journal in host.disk.journals.values():
            journal.is_open = False
        times: Timeouts = {**TIMES, "solo": self.solo}
        settings = Settings(
            host=host.name,
            automatic_reprotect=self.automatic_reprotect,
            watchdog_seconds=self.watchdog_seconds,
            **times,
        )
        host.taps, host.replicas = SimTaps(host.volumes), SimReplicas(host.stores)
        ports = BackupPorts(host.xen, host.disk, SimAnnouncer(), host.events, host.clock, host.replicas)
        backup = BackupService(ports, settings)
        connector = Connector(self, host, host.node)
        host.agent = AgentService(
            settings,
            {host.peer: f"{host.peer}/channel"},
            PrimaryPorts(
                host.xen,
                connector,
                host.disk,
                host.events,
                host.clock,
                host.taps,
                SimAnnouncer(),
                self.witness.of(host.name),
                fencing=self.fencing,
                watchdog=host.watchdog,
                pauses=host.pauses,
            ),
            host.outputs,
            backup,
            {host.peer: f"{host.peer}/second"},
        )
        host.starting = host.node.spawn(host.agent.resume())

    def kill_agent(self, host: Machine) -> None:
        """SIGKILL. Its copies go with it; guests and plugs stay as they are."""
        if host.agent is None:
            return
        host.disk.crash()
        self.recorder.saw(host.name, Action.AGENT_CRASH)
        self._lose_agent(host)

    def _lose_agent(self, host: Machine) -> None:
        if host.agent is None:
            return
        host.node.stopped = True
        host.agent = None
        host.taps.kill()
        host.replicas.kill()
        host.xen.revive()
        host.xen.lose_agent()
        for connection in host.connections:
            if connection.other is not None:
                self.links.put(connection.other, None)
        host.connections = []

    def power_off(self, host: Machine) -> None:
        """Nothing of its memory is left, and nobody is told."""
        host.disk.crash()
        if host.up:
            self.recorder.saw(host.name, Action.HOST_CRASH)
        host.connections = []
        self._lose_agent(host)
        if any(
            not guest.paused_copy or (host.name, guest.domain.domid) in self.sources
            for guest in host.xen.guests.values()
        ):
            self.lost_with_power = True  # also with one that is paused, which may be the only one
        for guest in host.xen.guests.values():
            guest.running = False
        host.xen.guests.clear()
        host.outputs.by_name.clear()
        host.outputs._domids.clear()
        host.watchdog.lose()
        self.platters.lose_kernel(host)
        host.up = False

    def power_on(self, host: Machine) -> None:
        """It comes back without its guests."""
        if not host.up:
            host.up = True
            self.boot(host)

    def _reset(self, host: Machine) -> None:
        """Its watchdog ran out: it is off for as long as it boots."""
        self.power_off(host)
        self.loop.call_later(BOOT, self.power_on, host, context=OUTSIDE)

    def start_agent(self, host: Machine) -> None:
        """The service manager starts it again."""
        if host.up and host.agent is None:
            self.boot(host)

    def running(self) -> list[Incarnation]:
        """Those that run now."""
        return [
            inc
            for inc in self.incarnations
            if inc.guest.running and self.hosts[inc.host].xen.guests.get(GUEST) is inc.guest
        ]

    # What the guest does

    def tick(self) -> None:
        """Every guest that runs counts on, and tells its clients."""
        open_now = []
        for inc in self.running():
            if inc.guest.suspended:
                continue
            count = int.from_bytes(inc.guest.read(0, 8), "little") + 1
            inc.guest.write(0, count.to_bytes(8, "little"))
            inc.guest.write(1 + count % (PAGES - 1), count.to_bytes(8, "little"))
            self.platters.write(self.hosts[inc.host], count)
            plug = self.hosts[inc.host].outputs.by_name.get(GUEST)
            frame = f"{inc.number}:{count}"
            if plug is None:
                self._seen(inc.host, frame)
            else:
                plug.emit(frame)
            if self._is_open(inc.host):
                open_now.append(inc.host)
        if len(open_now) > 1:
            raise Violated("G3: two hosts run the guest with their output open")

    def _is_open(self, host: str) -> bool:
        """Whether what a guest sends there gets out at once."""
        plug = self.hosts[host].outputs.by_name.get(GUEST)
        return plug is None or not plug.installed or not plug.holding

    # What must hold

    def _seen(self, host: str, frame: str) -> None:
        number, count = map(int, frame.split(":"))
        inc = self.incarnations[number]
        inc.seen = max(inc.seen, count)
        if inc.forked_at is not None and count > inc.forked_at:
            raise Violated(f"G3: a client hears {frame} of {host}, but its successor knows only {inc.forked_at}")
        mine = self.owner is not None and self.owner.owner == host
        by_word = number in self.by_word and not mine
        if not mine and not by_word and self.owner is not None and self.loop.time() - self.owner_since > GRACE:
            raise Violated(f"G3: {host} lets out {frame}, but {self.owner.owner} owns the guest by now")
        alone = self.owner is None or by_word or (mine and self.owner.state == "solo")
        if not alone and not self._ended_in_order(host) and count > inc.committed:
            raise Violated(f"G1: a client hears {frame}, but only {inc.committed} is committed")

    def _ended_in_order(self, host: str) -> bool:
        """An operator has ended the protection there, and no copy is left that could go on from less."""
        copies = self.hosts[self.hosts[host].peer].xen.guests.values()
        return host in self.paused and not any(guest.paused_copy for guest in copies)

    def _snapshot(self, host: Machine) -> None:
        assert host.agent is not None
        service = host.agent._primaries[GUEST]
        if service.session_id is None or service.commit.waiting is None:
            raise AssertionError("a checkpoint outside of a session")
        guest = host.xen.guests[GUEST]
        inc = next(inc for inc in self.incarnations if inc.guest is guest)
        memory = bytes(guest.memory)
        key = (service.session_id, service.commit.waiting)
        self.snapshots[key] = (inc, memory, self.platters.content(host), int.from_bytes(memory[:8], "little"))

    def _plugged(self, host: str, action: Action) -> None:
        if action is not Action.BARRIER:
            self.recorder.saw(host, action)
            return
        agent = self.hosts[host].agent
        session = agent._primaries[GUEST].session_id if agent is not None else None
        self.recorder.barrier(host, session)

    def _committed(self, host: str, record: CommitRecord) -> None:
        self.recorder.committed(host, record)
        inc, _, _, count = self.snapshots[record.session, record.epoch]
        inc.committed = max(inc.committed, count)

    def _starts(self, host: str, working_name: str) -> None:
        """It is noted that this copy is about to run: from here on it counts as one that does, whoever lets it."""
        guest = self.hosts[host].xen.guests.get(working_name)
        if guest is not None:
            self._continues(host, guest)

    def _continues(self, host: str, guest: SimGuest) -> tuple[str, int, bool]:
        key = (host, guest.domain.domid)
        if key not in self.sources:
            agent = self.hosts[host].agent
            assert agent is not None
            copy = next(copy for copy in agent.backup.copies_of(GUEST) if copy.state is State.ACTIVATING)
            self.recorder.saw(host, Action.ACTIVATE)
            self.sources[key] = (copy.hello.session, copy.committed_epoch, self.overriding == host)
        return self.sources[key]

    def _activated(self, host: str, guest: SimGuest) -> None:
        session, epoch, by_word = self._continues(host, guest)
        if self._is_open(host):
            self.recorder.saw(host, Action.OPEN)
        inc, memory, disks, count = self.snapshots[session, epoch]
        if bytes(guest.memory) != memory:
            raise Violated(f"G2: what {host} activates is not epoch {epoch} of its session")
        if self.platters.content(self.hosts[host]) != disks:
            raise Violated(
                f"G2: the disks with which {host} activates epoch {epoch} of its session are not of that epoch"
            )
        if inc.forked_at is not None:
            raise Violated("G3: a guest was continued twice")
        inc.forked_at = count
        if by_word:
            self.by_word.add(len(self.incarnations))
        if inc.seen > count and not by_word:  # an operator has accepted that loss
            raise Violated(f"G3: {host} goes on at {count}, but clients know {inc.seen} already")
        self.incarnations.append(Incarnation(len(self.incarnations), host, guest, inc, seen=count))
        if self.lost_data and not by_word and self.owner is not None and self.owner.owner != host:
            self.owner = replace(self.owner, owner=host, state="solo", backup=None)  # it was asked before that

    def lose_data(self) -> None:
        """The witness is built anew. Who had become the owner and never ran the guest is none any more."""
        self.lost_data = True
        self.witness.lose_data()
        last = self.incarnations[-1]
        host = last.host
        if self.owner is not None and self.owner.owner != host and last.number not in self.by_word:
            self.owner = replace(self.owner, owner=host, state="protected", backup=self.hosts[host].peer)

    def _changed(self, guest: str, now: Ownership | None) -> None:
        if guest != UUID:
            return
        self.recorder.changed(now)
        before, self.owner = self.owner, now
        if before is None or now is None or now.owner == before.owner:
            return
        self.owner_since = self.loop.time()

    def _suspected(self, primary: str) -> None:
        if primary in self.paused:
            return  # its agent says no more of the guest, whatever it says of others
        for path in ("channel", "second"):
            quiet = self.loop.time() - self.links.arrived.get((path, primary), 0.0)
            if quiet < 0.75 * TIMES["detect"]:
                raise Violated(f"{primary} is suspected, but was heard on the {path} {quiet:.2f} s ago")
