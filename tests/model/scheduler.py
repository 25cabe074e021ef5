"""An event loop on virtual time whose hosts can be frozen and killed, and whose interleaving is drawn from a seed.

What runs for a host carries its `Node` in its context. Of one node everything runs in order; which node runs next is drawn, so
that a seed is a schedule. A node that is frozen or dead runs nothing: its callbacks wait.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Node:
    """One process on one host. A new one begins with each start."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False
        self.queue: deque[Any] = deque()
        self.context = copy_context()
        self.context.run(NODE.set, self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something there."""
        return asyncio.get_running_loop().create_task(work, context=self.context.copy())


NODE: ContextVar[Node | None] = ContextVar("NODE", default=None)
OUTSIDE = Context()
"""Of what belongs to no host: what travels, what a test does."""


class Scheduler(asyncio.BaseEventLoop):
    """The loop. Time stands still while anything can run, then jumps to the next timer."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = 0.0
        self._outside: deque[Any] = deque()
        self._nodes: list[Node] = []

    def time(self) -> float:
        return self._now

    def thaw_all(self) -> None:
        """Whatever was stopped may run to its end now."""
        for node in self._nodes:
            node.stopped = False

    def add(self, node: Node) -> Node:
        """A node that takes part."""
        self._nodes.append(node)
        return node

    def _sort(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        while ready:
            handle = ready.popleft()
            node = handle._context.get(NODE)
            (self._outside if node is None else node.queue).append(handle)

    def _run_once(self) -> None:
        self._sort()
        candidates = [node.queue for node in self._nodes if node.queue and not node.stopped]
        if self._outside:
            candidates.append(self._outside)
        if not candidates:
            self._jump()
            return
        queue = candidates[0] if len(candidates) == 1 else self._rng.choice(candidates)
        for _ in range(min(len(queue), 4)):
            handle = queue.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            if self._stopping:  # type: ignore[attr-defined]
                return
            raise RuntimeError("deadlock: nothing can run and no timer is set")
        self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        """No other thread."""

    def _process_events(self, event_list: list[Any]) -> None:
        """No file is watched."""


def run_scheduled(rng: random.Random, make: Any) -> Any:
    """Run make(loop) to its end, then let everything that is left unwind."""
    loop = Scheduler(rng)
    try:
        return loop.run_until_complete(make(loop))
    finally:
        loop.thaw_all()
        left = asyncio.all_tasks(loop)
        for _ in range(4):
            for task in left:
                task.cancel()
            if not left:
                break
            loop.run_until_complete(asyncio.wait(left, timeout=30))
            left = asyncio.all_tasks(loop)
        loop.close()
