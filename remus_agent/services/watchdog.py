"""Carries out `machines.watchdog`: the last resort against a host that holds authority and whose agent does not come back.

What it is worth depends on three things. It is petted by the event loop itself, so a loop that hangs lets it run out. It outlives
the agent, so one that is killed and not started again lets it run out too. And it is disarmed whenever nobody is going to
pet it for a good reason: authority ends, protection ends, the agent stops in order.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, Final

from remus_agent.errors import HypervisorError, RemusError
from remus_agent.fence_ports import Watchdog
from remus_agent.machines.watchdog import Act, decide
from remus_agent.ports import Clock, EventSink

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between two looks: how late it is armed, disarmed or petted at most."""


class WatchdogKeeper:
    """Of one host. watchdog: None where there is none. seconds: after which it resets the host; 0: it is not to be armed. owned:
    the guests over which this host holds authority."""

    def __init__(
        self,
        watchdog: Watchdog | None,
        seconds: int,
        clock: Clock,
        events: EventSink,
        owned: Callable[[], list[str]],
    ) -> None:
        self.problem: RemusError | None = None
        """Why it could not be armed, petted or disarmed the last time."""
        self._watchdog = watchdog
        self._seconds = seconds
        self._clock = clock
        self._events = events
        self._owned = owned
        self._for: list[str] = []
        self._told: tuple[str, ...] = ()
        self._petted = -math.inf
        self._keeping: asyncio.Task[None] | None = None

    def take_over(self) -> None:
        """First of all at a start. What an earlier agent has left armed runs on until this one knows its guests (`start`): agents
        that die before that shall not keep it from running out. Where it is off now, it is disarmed. Where nothing is armed,
        try whether that could be done."""
        watchdog = self._watchdog
        if watchdog is None:
            return
        if not watchdog.armed:
            self._try(watchdog)
        elif self._seconds:
            log.warning(
                "the watchdog is armed, by an agent that did not stop in order: it resets this host if this one takes long"
            )
        else:
            log.warning("the watchdog is armed, by an agent that did not stop in order, and is not configured any more")
            self._act(watchdog, Act.DISARM)

    def start(self) -> None:
        """Every guest is known: look after it from now on."""
        if self._watchdog is not None and self._seconds:
            self._keeping = asyncio.create_task(self._keep(self._watchdog), name="watchdog of the host")
            self._keeping.add_done_callback(self._ended)

    async def close(self) -> None:
        """The agent stops in order. What it owned stays owned, and nothing resets the host meanwhile. One that did not get as far
        as to know its guests leaves alone what an earlier one has armed."""
        if self._keeping is not None and self._watchdog is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._act(self._watchdog, Act.DISARM)  # also where the task had not begun

    def require(self, domain: str) -> None:
        """Before this domain is protected: raises HypervisorError when it shall be armed and cannot be."""
        kept = self._keeping is None or not self._keeping.done()
        if self._watchdog is not None and not self._watchdog.armed and kept:
            self._try(self._watchdog)
        if self.problem is not None:
            raise HypervisorError(
                f"this host's watchdog cannot be armed: {self.problem.message}",
                operation="protect",
                domain=domain,
                left="nothing was changed",
                hint=f"{self.problem.hint or 'see `remusctl agent`'}; or set seconds = 0 in [watchdog]",
            )

    def describe(self) -> dict[str, Any] | None:
        """For people and tools; None where it is off. problem: why it is not as it should be."""
        if self._watchdog is None or not self._seconds:
            return None
        return {
            "seconds": self._seconds,
            "armed": self._watchdog.armed,
            "guests": list(self._for) if self._watchdog.armed else [],
            "problem": None if self.problem is None else str(self.problem),
        }

    async def _keep(self, watchdog: Watchdog) -> None:
        try:
            while True:
                self._look(watchdog)
                await self._clock.sleep(LOOK)
        finally:
            self._act(watchdog, Act.DISARM)  # a defect here, too, must not reset the host: nobody would pet it any more

    def _look(self, watchdog: Watchdog) -> None:
        owned = self._owned()
        age = self._clock.now() - self._petted + LOOK  # as it will be at the next look
        act = decide(authority=bool(owned), armed=watchdog.armed, age=age, seconds=self._seconds)
        if act is not Act.DISARM:
            self._for = owned
        self._act(watchdog, act)

    def _act(self, watchdog: Watchdog, act: Act) -> None:
        was = watchdog.armed
        try:
            match act:
                case Act.ARM:
                    watchdog.arm(self._seconds)
                case Act.PET:
                    watchdog.pet(self._seconds)
                case Act.DISARM:
                    watchdog.disarm()
                case Act.REST:
                    return
        except RemusError as error:
            self._failed(act, error)
            return
        self.problem, self._told = None, ()
        self._petted = self._clock.now()
        if watchdog.armed != was:
            self._say(watchdog.armed)

    def _try(self, watchdog: Watchdog) -> None:
        """Arm and disarm it, to know whether that can be done before it is needed."""
        if not self._seconds:
            return
        try:
            watchdog.arm(self._seconds)
            watchdog.disarm()
        except RemusError as error:
            self._failed(Act.ARM, error)
        else:
            self.problem, self._told = None, ()

    def _say(self, armed: bool) -> None:
        if armed:
            log.warning(
                "the watchdog is armed, for %s: this host resets %d s after its agent has died or hangs",
                ", ".join(self._for),
                self._seconds,
            )
        else:
            log.info("the watchdog is disarmed")
        for name in self._for:
            self._events.note(name, "watchdog-armed" if armed else "watchdog-disarmed", seconds=self._seconds)

    def _failed(self, act: Act, error: RemusError) -> None:
        """Loud, but once for each reason and whom it concerns: it is tried again at every look."""
        self.problem = error
        told, self._told = self._told, (str(error), *self._for)
        if told == self._told:
            return
        log.critical("cannot %s: %s", act.value.replace(" it", " the watchdog"), error)
        for name in self._for:
            self._events.note(name, "watchdog-failed", reason=str(error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the watchdog is not looked after any more, by a defect", exc_info=error)
            self._failed(
                Act.PET,
                HypervisorError(
                    f"nothing looks after it any more, by a defect: {error!r}",
                    operation="watchdog",
                    left="it is disarmed",
                    hint="restart remus-agent, and report it",
                ),
            )
