"""When a backup has last heard its primary, for how long it has listened in vain, and for how long it did not get to listen."""

from __future__ import annotations

from remus_agent.ports import Clock, Connection
from remus_agent.protocol.replication.frames import Frame
from remus_agent.services.awake import LATE, Awake
from remus_agent.services.deadlines import receive_within


class Hearing:
    """Of one session. silence: seconds without any frame after which its connection counts as ended. heartbeat: seconds between
    two frames of a primary that lives, and between two calls of `look`."""

    def __init__(self, domain: str, clock: Clock, silence: float, heartbeat: float) -> None:
        self.last_heard = clock.now()
        self._awake = Awake(clock, LATE * heartbeat)
        self._domain = domain
        self._clock = clock
        self._silence = silence
        self._listening_since: float | None = None
        self._busy_since = clock.now()

    async def receive(self, connection: Connection, epoch: int | None) -> Frame:
        """The next frame. epoch: committed last, for the error. Raises PeerError, ReplicationError."""
        self._listening_since = self._clock.now()
        try:
            frame = await receive_within(
                self._silence,
                connection,
                "primary",
                domain=self._domain,
                epoch=epoch,
                left="nothing was committed" if epoch is None else f"the copy stands at epoch {epoch}",
                hint="check the replication link and the primary's host; `remusctl status` here says what becomes of the copy",
            )
        finally:
            self._listening_since, self._busy_since = None, self._clock.now()
        self.last_heard = self._clock.now()
        return frame

    def heard(self) -> None:
        """Something came over another connection of the session, which a disk has: that primary lives, too."""
        self.last_heard = self._clock.now()

    def look(self) -> None:
        """This host is awake."""
        self._awake.since()

    @property
    def silent_for(self) -> float:
        """Seconds for which we have listened and heard nothing. While an epoch is being staged or applied nobody listens, nor
        while this host is frozen, and a primary that lives can't be told from one that doesn't."""
        awake = self._awake.since()
        if self._listening_since is None:
            return 0.0
        return self._clock.now() - max(self.last_heard, self._listening_since, awake)

    @property
    def busy_for(self) -> float:
        """Seconds for which something that was heard is taken in by now, while this host was awake; 0: we listen."""
        awake = self._awake.since()
        return 0.0 if self._listening_since is not None else self._clock.now() - max(self._busy_since, awake)
