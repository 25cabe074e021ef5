"""Connections between the agents of `world.py`, and the two links that they go over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from remus_agent.adapters.sim.net import SimConnection
from remus_agent.errors import ConnectionLost, PeerTimeout
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.protocol.replication.message_frames import decode
from remus_agent.services.copies import IN_SESSION
from tests.model.hosts import Machine
from tests.model.scheduler import OUTSIDE, Node

if TYPE_CHECKING:
    from tests.model.world import World


AGAIN: Final = 2.0
"""Seconds after which a piece that comes twice is sent for the second time, at most."""


class Links:
    """What carries, or holds back, all that travels between two hosts: over the `channel` and over the `second` path."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cut: set[tuple[str, str]] = set()
        """Directions that carry nothing: path and sender."""
        self.delay: dict[tuple[str, str], float] = {}
        """Seconds that what goes in a direction takes at most, where it is slower than others."""
        self.arrived: dict[tuple[str, str], float] = {}
        """When something of a sender that runs the guest came over a path for the last time."""
        self.damage = 0
        """How many frames with memory are still to be damaged."""
        self.twice: dict[str, int] = {}
        """How many pieces of a sender are still to arrive once more, later, on the same connection."""
        self.ends: dict[SimConnection, tuple[Machine, Node, str]] = {}
        """Whose each end of a connection is, and its path."""
        self._held: list[tuple[SimConnection, bytes | None, str, str]] = []
        self._arrives: dict[SimConnection, float] = {}

    def mangle(self, frame: Frame, data: bytes) -> bytes:
        """Damage one bit of memory on its way, when that is planned. What opens a session is recorded."""
        if frame.type in (FrameType.HELLO, FrameType.WELCOME):
            self._world.recorder.said(decode(frame))
        if self.damage and frame.type is FrameType.STREAM and len(data) > 4200:
            self.damage -= 1
            return data[:-4000] + bytes([data[-4000] ^ 1]) + data[-3999:]
        return data

    def put(self, to: SimConnection, data: bytes | None) -> None:
        """Send bytes, or the end of a connection."""
        self._send(to, data)
        sender = self.ends[to][0].peer
        if data is not None and self.twice.get(sender):
            self.twice[sender] -= 1
            self._world.loop.call_later(self._world.rng.random() * AGAIN, self._send, to, data, context=OUTSIDE)

    def _send(self, to: SimConnection, data: bytes | None) -> None:
        world = self._world
        machine, _, path = self.ends[to]
        at = max(
            world.loop.time() + 0.001 + world.rng.random() * self.delay.get((path, machine.peer), 0.08),
            self._arrives.get(to, 0.0) + 1e-6,
        )
        self._arrives[to] = at
        world.loop.call_at(at, self._arrive, to, data, path, machine.peer, context=OUTSIDE)

    def _arrive(self, to: SimConnection, data: bytes | None, path: str, sender: str) -> None:
        if (path, sender) in self.cut:
            self._held.append((to, data, path, sender))
            return
        machine, node, _ = self.ends[to]
        if machine.agent is None or node is not machine.node:
            if machine.up and data is not None and to.other is not None:
                self.put(to.other, None)  # nobody has this connection: a reset
            return
        runs_it = any(
            inc.host == sender for inc in self._world.running()
        )  # one that came back without it is no primary
        if data is not None and runs_it and not _is_over(machine, to):
            self.arrived[path, sender] = self._world.loop.time()
        to.arrive(data)

    def heal(self, directions: set[tuple[str, str]]) -> None:
        """Carry again, first what was held."""
        self.cut -= directions
        held, self._held = self._held, []
        for each in held:
            self._arrive(*each)


def _is_over(machine: Machine, connection: SimConnection) -> bool:
    """Whether nobody there hears what still comes: it has ended, or its session has, and it is being closed."""
    if connection._closed or connection._ended:
        return True
    for copy in machine.agent.backup._copies.all() if machine.agent else ():
        feeds = [feed._connection for feed in copy._disks._feeds.values()]
        if copy.state not in IN_SESSION and connection in (copy._connection, *feeds):
            return True
    return False


class Wire:
    """What a SimConnection takes for its network."""

    def __init__(self, links: Links) -> None:
        self.mangle = links.mangle
        self._put = links.put

    def deliver(self, to: SimConnection, data: bytes) -> None:
        """Carry bytes."""
        self._put(to, data)

    def end(self, to: SimConnection) -> None:
        """Carry the end."""
        self._put(to, None)


class Connector:
    """ports.Connector of one agent."""

    def __init__(self, world: World, host: Machine, node: Node) -> None:
        self._world = world
        self._host = host
        self._node = node

    async def connect(self, address: str, timeout: float) -> SimConnection:
        world = self._world
        name, path = address.split("/")
        there = world.hosts[name]
        if {(path, name), (path, self._host.name)} & world.links.cut or not there.up:
            await asyncio.sleep(timeout)
            raise PeerTimeout(f"{address} does not answer", operation="connect")
        await asyncio.sleep(0.005)
        if there.agent is None:
            raise ConnectionLost(f"{address} refuses the connection", operation="connect")
        wire: Any = Wire(world.links)
        near, far = SimConnection(wire, name), SimConnection(wire, self._host.name)
        near.other, far.other = far, near
        world.links.ends[near] = (self._host, self._node, path)
        world.links.ends[far] = (there, there.node, path)
        self._host.connections.append(near)
        there.connections.append(far)
        there.node.spawn(there.agent.backup.on_connection(far))
        return near
