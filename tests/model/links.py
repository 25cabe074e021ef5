"""Connections between the agents of `world.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from remus_agent.adapters.sim.net import SimConnection
from remus_agent.errors import ConnectionLost, PeerTimeout
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.protocol.replication.message_frames import decode
from tests.model.hosts import Machine
from tests.model.scheduler import Node

if TYPE_CHECKING:
    from tests.model.world import World


class Wire:
    """What a SimConnection takes for its network."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mangle(self, frame: Frame, data: bytes) -> bytes:
        """Damage one bit of memory on its way, when that is planned. What opens a session is recorded."""
        if frame.type in (FrameType.HELLO, FrameType.WELCOME):
            self._world.recorder.said(decode(frame))
        if self._world.damage and frame.type is FrameType.STREAM and len(data) > 4200:
            self._world.damage -= 1
            return data[:-4000] + bytes([data[-4000] ^ 1]) + data[-3999:]
        return data

    def deliver(self, to: SimConnection, data: bytes) -> None:
        """Carry bytes."""
        self._world.put(to, data)

    def end(self, to: SimConnection) -> None:
        """Carry the end."""
        self._world.put(to, None)


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
        if {(path, name), (path, self._host.name)} & world.cut or not there.up:
            await asyncio.sleep(timeout)
            raise PeerTimeout(f"{address} does not answer", operation="connect")
        await asyncio.sleep(0.005)
        if there.agent is None:
            raise ConnectionLost(f"{address} refuses the connection", operation="connect")
        wire: Any = Wire(world)
        near, far = SimConnection(wire, name), SimConnection(wire, self._host.name)
        near.other, far.other = far, near
        world.ends[near] = (self._host, self._node, path)
        world.ends[far] = (there, there.node, path)
        self._host.connections.append(near)
        there.connections.append(far)
        there.node.spawn(there.agent.backup.on_connection(far))
        return near
