"""Heartbeats over a second path: another address of the peer, so that the loss of the replication link alone looks like what it
is. A primary's host sends them; they say for which guests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from remus_agent.errors import AuthorityError, PeerError, ReplicationError
from remus_agent.ports import Clock, Connection, Connector
from remus_agent.protocol.replication.message_frames import decode, encode
from remus_agent.protocol.replication.messages import MAX_GUESTS, Beat
from remus_agent.services.awake import LATE, Awake, Waiting
from remus_agent.services.settings import Settings

log = logging.getLogger(__name__)


class HeartbeatSender:
    """Tells one peer, over its second address, which guests this host is primary for. `run` never ends by itself."""

    def __init__(
        self, connector: Connector, address: str, settings: Settings, clock: Clock, guests: Callable[[], list[str]]
    ) -> None:
        self._connector = connector
        self._address = address
        self._settings = settings
        self._clock = clock
        self._guests = guests
        self._failed = ""
        """What was logged last; the same again is not worth a line every second."""

    @property
    def problem(self) -> str | None:
        """Why no heartbeat gets through; None where the last one did, or none was tried yet."""
        return self._failed or None

    async def run(self) -> None:
        """Send a beat every `heartbeat` seconds; connect again whenever the connection is lost."""
        while True:
            try:
                connection = await self._connector.connect(self._address, self._settings.connect)
            except PeerError as error:
                self._failing(error)
                await self._clock.sleep(self._settings.heartbeat)
                continue
            try:
                await self._send(connection)
            finally:
                await connection.close()

    async def _send(self, connection: Connection) -> None:
        try:
            while True:
                guests = tuple(sorted(self._guests())[:MAX_GUESTS])
                async with asyncio.timeout(self._settings.connect):
                    await connection.send(encode(Beat(host=self._settings.host, guests=guests)))
                self._working()
                await self._clock.sleep(self._settings.heartbeat)
        except (PeerError, TimeoutError) as error:
            self._failing(error)

    def _failing(self, error: PeerError | TimeoutError) -> None:
        why = str(error) or "it takes no heartbeat"
        if why != self._failed:
            log.warning("second path to %s: no heartbeat gets through: %s", self._address, why)
        self._failed = why

    def _working(self) -> None:
        if self._failed:
            log.info("second path to %s: heartbeats get through again", self._address)
        self._failed = ""


class HeardBeats:
    """What a backup has heard over the second path."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._settings = settings
        self._awake = Awake(clock, LATE * settings.heartbeat)
        self._heard: dict[tuple[str, str], float] = {}
        self._hosts: dict[str, float] = {}

    def look(self) -> None:
        """This host is awake."""
        self._awake.since()

    def heard(self, host: str, guest: str) -> float | None:
        """When this host last said that it looks after this guest (UUID); None: never."""
        return self._heard.get((host, guest))

    def heard_host(self, host: str) -> float | None:
        """When anything came from this host; None: never, or not for twice as long as a detector waits."""
        heard = self._hosts.get(host)
        return None if heard is None or self._clock.now() - heard >= 2 * self._settings.detect else heard

    async def expect_silence(self, host: str, quiet: float, domain: str) -> None:
        """Return when nothing came from this host for so many seconds in which this one listened. Raises AuthorityError when it
        goes on. domain: for which it is asked."""
        waiting = Waiting(self._clock, host, domain, quiet)
        while True:
            awake, now, heard = self._awake.since(), self._clock.now(), self._hosts.get(host)
            if heard is None or now - max(heard, awake) >= quiet:
                return
            if waiting.is_heard(heard):
                raise AuthorityError(
                    f"{host} is on: its agent was heard over the second path {now - heard:.1f} s ago",
                    operation="failover",
                    domain=domain,
                    left="nothing was changed",
                    hint=f"make sure that {host} is really off, and give the proof again",
                )
            await self._clock.sleep(self._settings.heartbeat / 4)

    def _take(self, beat: Beat, now: float) -> None:
        # What is older than a detector's patience tells nobody anything: a peer can't make this grow by naming ever new guests.
        self._heard = {key: heard for key, heard in self._heard.items() if now - heard < 2 * self._settings.detect}
        self._hosts = {host: heard for host, heard in self._hosts.items() if now - heard < 2 * self._settings.detect}
        self._hosts[beat.host] = now
        self._heard.update({(beat.host, guest): now for guest in beat.guests})

    async def serve(self, connection: Connection, first: Beat) -> None:
        """Take in the beats of one connection until it ends. Raises ReplicationError on anything else."""
        beat = first
        while True:
            now = self._clock.now()
            self._take(beat, now)
            try:
                async with asyncio.timeout(self._settings.silence):
                    message = decode(await connection.receive())
            except (PeerError, TimeoutError):
                return
            if not isinstance(message, Beat):
                raise ReplicationError(f"expected BEAT, received {type(message).__name__}", operation="second path")
            if message.host != first.host:  # who it is was compared with the connection's certificate for the first one
                raise ReplicationError(
                    f"{connection.peer} has said that it is {first.host}, and speaks for {message.host}",
                    operation="second path",
                )
            beat = message
