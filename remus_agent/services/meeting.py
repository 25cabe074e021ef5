"""Where the members of a consistency group meet in each epoch: all are down, then one barrier, then all go on.

Each comes from the thread that has its guest down, and is held up there until the last one is down as well, which takes the
barrier for all. Whoever cannot come (`leave`), a barrier that fails, and time that runs out break it off: each of the others is
told by an error, and its source resumes its guest. Nobody waits longer than the guests may take to suspend.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from remus_agent.errors import HypervisorError
from remus_agent.faults import FaultName, active
from remus_agent.source_ports import AtBarrier


class BrokenOffError(HypervisorError):
    """The checkpoint of a member is given up because of another one's."""

    code = "group-broken-off"


class EpochMeeting:
    """Of one epoch. at_barrier: called once, when all are down. timeout: seconds."""

    def __init__(self, members: Sequence[str], at_barrier: AtBarrier, timeout: float) -> None:
        self._missing = list(members)
        self._at_barrier = at_barrier
        self._timeout = timeout
        self._until = time.monotonic() + timeout
        self._changed = threading.Condition()
        self._pulse = asyncio.Event()
        self._ended = False
        self._broken: str | None = None

    def of(self, member: str) -> MembersMeeting:
        """What this member's source is given as its barrier."""
        return MembersMeeting(self, member)

    def leave(self, member: str) -> None:
        """This member cannot come, or has failed. Nothing once the epoch has ended for all."""
        with self._changed:
            self._break_off(f"{member} cannot be checkpointed")

    def come(self, member: str) -> None:
        """It is down. Takes the barrier if it is the last. Raises what that raises, or BrokenOffError."""
        with self._changed:
            self._refuse_broken()
            self._missing.remove(member)
            if active(FaultName.MEMBERS_APART):
                self._meet_apart()
            elif not self._missing:
                self._end()

    def wait(self) -> None:
        """Block until the epoch has ended for all. Raises BrokenOffError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._over, max(0.0, self._until - time.monotonic())):
                self._run_out()
            self._refuse_broken()

    async def waited(self) -> None:
        """The same for a source without a thread."""
        try:
            async with asyncio.timeout(self._timeout):
                while not self._over:
                    await self._pulse.wait()
        except TimeoutError:
            with self._changed:
                self._run_out()
        with self._changed:
            self._refuse_broken()

    @property
    def _over(self) -> bool:
        return self._ended or self._broken is not None

    def _end(self) -> None:
        try:
            self._at_barrier()
        except BaseException:
            self._break_off("the barrier failed")
            raise
        self._ended = True
        self._tell()

    def _meet_apart(self) -> None:
        if not self._ended:
            self._end()

    def _run_out(self) -> None:
        self._break_off(f"{', '.join(self._missing)} did not go down within {self._timeout:g} s")

    def _break_off(self, why: str) -> None:
        if not self._over:
            self._broken = why
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        self._pulse.set()  # heard only where no thread is in play

    def _refuse_broken(self) -> None:
        if self._broken is not None:
            raise BrokenOffError(
                f"the group's checkpoint is broken off: {self._broken}",
                operation="take a checkpoint",
                left="the guests run",
            )


class MembersMeeting:
    """source_ports.Meeting of one member."""

    def __init__(self, meeting: EpochMeeting, member: str) -> None:
        self._meeting = meeting
        self._member = member

    def __call__(self) -> None:
        self._meeting.come(self._member)
        self._meeting.wait()

    async def arrive(self) -> None:
        """As the port says."""
        self._meeting.come(self._member)
        await self._meeting.waited()
