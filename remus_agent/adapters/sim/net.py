"""A network of two agents in one process: frames through the real codec, links that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from remus_agent.errors import ConnectionLost, PeerTimeout, ReplicationError
from remus_agent.protocol.replication.frames import Frame, FrameDecoder, encode

_END = None


class SimConnection:
    """One end. Every frame is encoded, carried as bytes, and decoded with the real decoder."""

    def __init__(self, network: SimNetwork, peer: str) -> None:
        self._network = network
        self._peer = peer
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []
        self._closed = False
        self._ended = False
        self.other: SimConnection | None = None
        self.sent: list[Frame] = []
        self.identity: str | None = None

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: Frame) -> None:
        if self._closed or self._ended or self.other is None:
            raise ConnectionLost("the connection is closed", operation="send")
        data = b"".join(bytes(part) for part in encode(frame))
        data = self._network.mangle(frame, data)
        self.sent.append(Frame(frame.type, frame.epoch, frame.flags))
        self._network.deliver(self.other, data)
        await asyncio.sleep(0)

    async def receive(self) -> Frame:
        while not self._frames:
            data = await self._inbox.get()
            if data is _END:
                self._inbox.put_nowait(_END)
                raise ConnectionLost("the peer closed the connection", operation="receive")
            self._frames = list(self._decoder.feed(data))
        return self._frames.pop(0)

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """As `close`, which need not wait here."""
        if self._closed:
            return
        self._closed = True
        self._inbox.put_nowait(_END)
        if self.other is not None:
            self._network.end(self.other)

    def arrive(self, data: bytes | None) -> None:
        """Bytes, or the end, from the other side. After the end nothing comes any more, and nothing can be sent, as with TCP."""
        if not self._ended:
            self._ended = data is _END
            self._inbox.put_nowait(data)


class SimNetwork:
    """Links between addresses. `cut` holds everything back until `heal`, as TCP does over a link that is down. delay: seconds
    that a frame travels; the order within a connection stays."""

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[SimConnection], Awaitable[None]]] = {}
        self._held: list[tuple[SimConnection, bytes | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_cut = False
        self.connections: list[SimConnection] = []
        self.mangler: Callable[[Frame, bytes], bytes] | None = None
        self.delay: Callable[[], float] | None = None
        self.identity: str | None = None  # of whoever connects
        self._arrives: dict[SimConnection, float] = {}

    def listen(self, address: str, serve: Callable[[SimConnection], Awaitable[None]]) -> None:
        """Call serve for each connection to this address."""
        self._listeners[address] = serve

    async def connect(self, address: str, timeout: float) -> SimConnection:
        """ports.Connector"""
        if self.is_cut:
            await asyncio.sleep(timeout)
            raise PeerTimeout(f"{address} does not answer", operation="connect")
        serve = self._listeners.get(address)
        if serve is None:
            raise ConnectionLost(f"{address} refuses the connection", operation="connect")
        near, far = SimConnection(self, address), SimConnection(self, "primary")
        near.other, far.other = far, near
        far.identity = self.identity
        self.connections += [near, far]
        task = asyncio.create_task(self._run(serve, far))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return near

    def deliver(self, to: SimConnection, data: bytes) -> None:
        """Carry bytes, or hold them while the link is cut."""
        self._put(to, data)

    def end(self, to: SimConnection) -> None:
        """Carry the end of a connection."""
        self._put(to, None)

    def cut(self) -> None:
        """Let nothing through any more."""
        self.is_cut = True

    def heal(self) -> None:
        """Let through what was held, and all that follows."""
        self.is_cut = False
        held, self._held = self._held, []
        for to, data in held:
            to.arrive(data)

    def mangle(self, frame: Frame, data: bytes) -> bytes:
        """The bytes as they travel: whole, unless a test damages them."""
        return self.mangler(frame, data) if self.mangler is not None else data

    async def drop_all(self) -> None:
        """Every connection ends at once, as when a host loses power and its peer notices."""
        for connection in self.connections:
            connection.arrive(None)

    def _put(self, to: SimConnection, data: bytes | None) -> None:
        if self.delay is None:
            self._arrive(to, data)
            return
        loop = asyncio.get_running_loop()
        # Timers of the same moment need not keep their order, so each frame has one of its own.
        at = max(loop.time() + self.delay(), self._arrives.get(to, 0.0) + 1e-6)
        self._arrives[to] = at
        loop.call_at(at, self._arrive, to, data)

    def _arrive(self, to: SimConnection, data: bytes | None) -> None:
        if self.is_cut:
            self._held.append((to, data))
        else:
            to.arrive(data)

    async def _run(self, serve: Callable[[SimConnection], Awaitable[None]], connection: SimConnection) -> None:
        try:
            await serve(connection)
        except ReplicationError:
            await connection.close()
