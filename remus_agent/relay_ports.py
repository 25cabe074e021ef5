"""What a relay of somebody else's checkpoints needs of the world, as interfaces: the stream, and this host's agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from remus_agent.ports import HostFacts


class ByteSource(Protocol):
    """Bytes that somebody else writes: a pipe, a file."""

    @property
    def name(self) -> str:
        """What it is, for messages."""
        ...

    async def read(self) -> memoryview:
        """The next bytes, at least one; none at the end. The next call overwrites them. Nothing is read between two calls, so
        that a writer of a pipe waits as long as its reader does. Raises FileError."""
        ...


@dataclass(frozen=True, slots=True)
class Reserved:
    """A host whose agent leaves a domain alone. generation: with which to replicate it. facts: for its HELLO."""

    host: str
    generation: int
    facts: HostFacts


class Reservations(Protocol):
    """This host's agent, asked not to protect a domain, because two who take checkpoints of one domain take the dirty pages
    away from each other."""

    async def reserve(self, domain: str, seconds: float) -> Reserved:
        """The agent leaves the domain alone for so many seconds. Raises RefusedError (AlreadyProtected, ...) when it does not,
        another RemusError when it does not answer."""
        ...

    async def renew(self, domain: str, seconds: float) -> None:
        """So many seconds from now on; 0: it is over. An agent that does not answer protects nothing, and is no error.
        Raises RefusedError as above."""
        ...
