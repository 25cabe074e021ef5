"""A relay on alpha, whose input the test writes, and a backup on beta that takes it for a primary."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from streams import builder
from streams.builder import Epoch

from remus_agent.adapters.sim.hypervisor import SimGuest, SimHypervisor
from remus_agent.adapters.sim.local import LoopClock
from remus_agent.errors import (
    RemusError,
)
from remus_agent.machines.backup import State
from remus_agent.protocol.replication.frames import Frame, FrameType, encode
from remus_agent.relay_ports import Reserved
from remus_agent.services.copy import Copy
from remus_agent.services.relay import Relay, RelayPorts
from remus_agent.services.settings import Settings
from tests.model.pair import DEAD, UUID, Pair, on, until

CONFIG: dict[str, Any] = {
    "c_info": {"type": "pvh", "name": "web1", "uuid": UUID},
    "b_info": {"max_memkb": 64, "target_memkb": 64, "pages": 16},
}
FRONT = builder.preamble(CONFIG)
EPOCHS = [Epoch(dict.fromkeys(range(16), 1)), Epoch({3: 2}), Epoch(), Epoch({3: 4, 5: 4})]
STREAM = builder.checkpointed(EPOCHS, FRONT)


def ends() -> list[int]:
    """Offsets at which the epochs are complete."""
    return [len(builder.checkpointed(EPOCHS[:count], FRONT)) for count in range(1, len(EPOCHS) + 1)]


class Pipe:
    """A pipe whose writer the test is. reads: how often its reader asked."""

    name = "standard input"

    def __init__(self, *pieces: bytes, closed: bool = False) -> None:
        self._pieces = list(pieces)
        self._closed = closed
        self._changed = asyncio.Event()
        self.reads = 0

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def read(self) -> memoryview:
        self.reads += 1
        while not self._pieces and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        return memoryview(self._pieces.pop(0) if self._pieces else b"")


class Word:
    """relay_ports.Reservations of alpha's agent. answers: whether that agent is there."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.answers = True

    async def reserve(self, domain: str, seconds: float) -> Reserved:
        return await on(self._pair.alpha).reserve(domain, seconds)

    async def renew(self, domain: str, seconds: float) -> None:
        if self.answers:
            await self.reserve(domain, seconds)


class Scene:
    """alpha, where the relay runs, and beta, the backup."""

    def __init__(self, *pieces: bytes, closed: bool = True, domain: str | None = None) -> None:
        self.pair = Pair()
        self.pair.beta.xen = SimHypervisor("beta", xen="4.17")
        self.pair.boot(self.pair.beta)
        self.pipe = Pipe(*pieces, closed=closed)
        self.word = Word(self.pair)
        self.ready = 0
        self.relay = Relay(
            RelayPorts(self.pipe, self.pair.network, self.word, LoopClock()),
            Settings(host="alpha"),
            "beta:1",
            domain=domain,
            ready=self.say_ready,
        )

    def say_ready(self) -> None:
        self.ready += 1

    @property
    def copy(self) -> Copy:
        found = on(self.pair.beta).backup.copy_of("web1")
        assert found is not None
        return found

    @property
    def sent(self) -> list[Frame]:
        """What the relay sent, in order, without heartbeats."""
        return [frame for frame in self.pair.network.connections[0].sent if frame.type is not FrameType.HEARTBEAT]

    async def failed(self) -> RemusError:
        """Run to the end, which is an error."""
        with pytest.raises(RemusError) as caught:
            await self.relay.run()
        return caught.value

    async def activate(self) -> SimGuest:
        """The guest on beta, from the last commit."""
        await until(lambda: self.copy.state is State.ORPHANED, "the backup notices the end")
        await on(self.pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        return self.pair.beta.xen.guests["web1"]

    def damage(self, kind: FrameType, epoch: int) -> None:
        """Change a byte of one kind of frame on its way, so that only its meaning is wrong."""

        def mangle(frame: Frame, data: bytes) -> bytes:
            if (frame.type, frame.epoch) != (kind, epoch):
                return data
            if kind is FrameType.STREAM:
                return data[:-1] + bytes([data[-1] ^ 1])
            other = Frame(frame.type, frame.epoch, frame.flags, (bytes(16),))
            return b"".join(map(bytes, encode(other)))

        self.pair.network.mangler = mangle
