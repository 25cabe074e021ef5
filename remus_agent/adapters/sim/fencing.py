"""Fence agents in memory, which fail, hang and lie as real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from remus_agent.errors import FenceTimeout, FenceUnconfirmed, FencingError
from remus_agent.fence_ports import FenceCheck, Fenced, Power


@dataclass
class SimFencing:
    """fence_ports.Fencing. switch: called with the host that goes off. hosts: those with an agent. must: those whose fencing is
    required. broken: it fails. hangs: it does not end before its timeout. ignored: `off` succeeds, and the host stays on. asked:
    one entry for each `off`, with its time."""

    hosts: set[str] = field(default_factory=set)
    must: set[str] = field(default_factory=set)
    broken: bool = False
    hangs: bool = False
    ignored: bool = False
    timeout: float = 5.0
    switch: Callable[[str], None] = lambda _: None
    seconds: float = 0.2
    asked: list[tuple[str, float]] = field(default_factory=list)
    off: set[str] = field(default_factory=set)

    def covers(self, host: str) -> bool:
        return host in self.hosts | self.must

    def required(self, host: str) -> bool:
        return host in self.must

    def longest(self, host: str) -> float:
        return self.timeout if self.covers(host) else 0.0

    async def fence(self, host: str) -> Fenced:
        loop = asyncio.get_running_loop()
        self.asked.append((host, loop.time()))
        await self._work(host)
        if self.ignored:
            await asyncio.sleep(self.timeout)
            raise FenceUnconfirmed(f"{host} was told to go off, and its status says on", operation="fence")
        self.off.add(host)
        self.switch(host)
        return Fenced(host, "fence_sim", loop.time(), confirmed=True)

    async def status(self, host: str) -> Power:
        await self._work(host)
        return Power.OFF if host in self.off else Power.ON

    async def check(self, host: str) -> FenceCheck:
        return FenceCheck(host, "fence_sim", self.required(host), await self.status(host))

    async def _work(self, host: str) -> None:
        if self.hangs:
            await asyncio.sleep(self.timeout)
            raise FenceTimeout(f"fence_sim did not end within {self.timeout:g} s and was killed", operation="fence")
        await asyncio.sleep(self.seconds)
        if self.broken:
            raise FencingError(f"the fence agent of {host} does not answer", operation="fence")
