"""Asks the witness now and then, for monitoring alone: normal running never does, so its loss would show when it is needed."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from remus_agent.errors import WitnessError
from remus_agent.observe.view import WitnessView
from remus_agent.ports import Clock
from remus_agent.witness_ports import Witness

log = logging.getLogger(__name__)

PERIOD: Final = 15.0
"""Seconds between two requests."""
NOBODY: Final = "00000000-0000-0000-0000-000000000000"
"""UUID of no guest (it is dom0's); a majority has to answer to say that there is no record."""


class WitnessProbe:
    """witness: an access of its own, closed with this, so that a request which takes its whole time delays none that changes
    roles."""

    def __init__(self, witness: Witness, clock: Clock) -> None:
        self._witness = witness
        self._clock = clock
        self._view = WitnessView()
        self._asking: asyncio.Task[None] | None = None

    @property
    def view(self) -> WitnessView:
        """What the last request told."""
        return self._view

    def start(self) -> None:
        """Ask from now on."""
        self._asking = asyncio.create_task(self._ask(), name="look at the witness")

    async def close(self) -> None:
        """Ask no more. Safe to call twice."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await self._witness.close()

    async def _ask(self) -> None:
        while True:
            try:
                await self._witness.read(NOBODY)
            except WitnessError as error:
                if self._view.reachable is not False:
                    log.warning("the witness cannot be reached: %s", error)
                self._view = WitnessView(reachable=False, answered=self._view.answered)
            except Exception:
                # Or monitoring would show what was so before it, for ever.
                log.critical("whether the witness can be reached is not known, by a defect", exc_info=True)
                self._view = WitnessView(reachable=False, answered=self._view.answered)
            else:
                if self._view.reachable is False:
                    log.info("the witness can be reached again")
                self._view = WitnessView(reachable=True, answered=self._clock.time_of_day())
            await self._clock.sleep(PERIOD)
