"""The process of one write tap, as the agent sees it: started, spoken to in four conversations, ended.

A process of its own serves the guest's writes while the agent's interpreter is busy with an epoch; a thread of the agent served
one write in twenty of what it could (ADR 0009).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from remus_agent.adapters.process import reap
from remus_agent.errors import DiskError
from remus_agent.protocol.disk import tap_messages as say

log = logging.getLogger(__name__)

_START: Final = 180.0
"""Seconds for the process to answer first. It has to load its modules, at a time when a host may be starting everything."""
_EXIT: Final = 10.0
"""Seconds for it to end once nobody talks to it any more; then it is killed."""
_READ: Final = 4096
"""Bytes that hold any answer to a barrier."""
A = TypeVar("A", bound=say.Answer)


class Process(Protocol):
    """What is needed of asyncio's."""

    pid: int

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


Spawn = Callable[[str, tuple[socket.socket, ...]], Awaitable[Process]]
"""Starts the process of a tap, given the name of its device and its ends of the conversations."""


async def spawn(name: str, ends: tuple[socket.socket, ...]) -> Process:
    """A Python process of this installation. Raises DiskError."""
    numbers = [end.fileno() for end in ends]
    words = (sys.executable, "-P", "-m", "remus_agent.tap", name, *map(str, numbers))
    try:
        return await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, pass_fds=numbers)
    except OSError as error:
        raise DiskError(
            f"{sys.executable} cannot be run: {error.strerror}", operation="start the tap", left="nothing was changed"
        ) from error


class _Conversation:
    """The agent's end of one. gone: makes the error for when the process is gone. keeps: an answer for which nobody waited to its
    end belongs to who asks the same again; otherwise it is passed over."""

    def __init__(self, end: socket.socket, gone: Callable[[str], DiskError], *, keeps: bool = False) -> None:
        self._end = end
        self._keeps = keeps
        self._asked: say.Request | None = None
        self._gone = gone
        self._turn = asyncio.Lock()
        self._reading: asyncio.Task[tuple[say.Answer, memoryview]] | None = None
        end.setblocking(False)

    def post(self, request: say.Request) -> None:
        """Say what has no answer. A process that is gone, or takes nothing in, does not hear it, and the next answer says so."""
        message = say.encode(request)
        with contextlib.suppress(OSError):
            if self._end.send(message) == len(message):
                return
        self._hang_up()

    def _hang_up(self) -> None:
        """What was said is not taken in whole, so nothing may follow it: the process comes to its end, and ends."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    async def ask(self, request: say.Request, *kinds: type[A]) -> tuple[A, memoryview]:
        """The answer to a request, which is of one of these kinds, and the data behind it. Raises DiskError: what the process
        answers, or that it is gone."""
        async with self._turn:
            if self._reading is not None and not (self._keeps and request == self._asked):
                await asyncio.wait([self._reading])
                self._reading = None
            if self._reading is None:
                await self._say(request)
                self._reading = asyncio.create_task(self._read(), name="answer of a tap")
            answer, payload = await asyncio.shield(self._reading)
            self._reading = None
        if isinstance(answer, say.Failed):
            raise _error(answer)
        if not isinstance(answer, kinds):
            raise self._gone(f"{type(answer).__name__} is no answer to {type(request).__name__}")
        return answer, payload

    async def _say(self, request: say.Request) -> None:
        self._asked = request
        try:
            await asyncio.get_running_loop().sock_sendall(self._end, say.encode(request))
        except asyncio.CancelledError:
            self._hang_up()
            raise
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error

    async def close(self) -> None:
        """The process sees its end."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        self._end.close()

    async def _read(self) -> tuple[say.Answer, memoryview]:
        message, data = say.lengths(await self._exactly(say.HEAD.size))
        return say.answer(await self._exactly(message)), memoryview(await self._exactly(data))

    async def _exactly(self, count: int) -> bytearray:
        memory, loop, done = bytearray(count), asyncio.get_running_loop(), 0
        view = memoryview(memory)
        while done < count:
            try:
                got = await loop.sock_recv_into(self._end, view[done:])
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error
            if got == 0:
                raise self._gone("it has ended")
            done += got
        return memory


class TapProcess:
    """Made by `start`. map_id: identity of the region map. sound: whether it has answered every barrier in time."""

    def __init__(self, process: Process, ends: tuple[socket.socket, ...], setup: say.Setup) -> None:
        self._process = process
        self._setup = setup
        commands, self._barriers, pieces, copies = ends
        self._commands = _Conversation(commands, self._gone)
        self._pieces = _Conversation(pieces, self._gone, keeps=True)
        self._copies = _Conversation(copies, self._gone)
        self.map_id = ""
        self.sound = True
        self._at_barrier = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def command(self, request: say.Request, kind: type[A]) -> A:
        """See `tap_messages`. Raises DiskError."""
        return (await self._commands.ask(request, kind))[0]

    def tell(self, request: say.Request) -> None:
        """A command without an answer."""
        self._commands.post(request)

    def barrier(self, epoch: int, seconds: float) -> None:
        """End an epoch; waits for that, in a thread that is not the loop's. Raises DiskError, also when it takes longer."""
        try:
            with self._at_barrier:
                # Timeouts of the kernel's: two system calls in all, after each of which a busy interpreter has to be waited for.
                for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                    self._barriers.setsockopt(socket.SOL_SOCKET, option, _timeval(seconds))
                self._barriers.sendall(say.encode(say.Barrier(epoch)))
                answer = say.answer(self._barrier_answer())
        except OSError as error:
            self.sound = False  # a late answer must not be taken for another one's
            if isinstance(error, BlockingIOError):
                raise self._lost(
                    f"the tap of {self._setup.vdev} has not ended an epoch within {seconds:g} s"
                ) from error
            raise self._gone(str(error)) from error
        if isinstance(answer, say.Failed):
            raise _error(answer)

    async def next(self, session: int) -> tuple[say.Data | say.Ended, memoryview]:
        """The next piece, and its payload. Raises DiskError."""
        return await self._pieces.ask(say.Next(session), say.Data, say.Ended)

    async def next_run(self, session: int) -> say.Run:
        """What the copier reads next. Raises DiskError."""
        return (await self._copies.ask(say.NextRun(session), say.Run))[0]

    async def copy(self, run: say.CopyRun) -> say.Progress:
        """Copy it. Raises DiskError."""
        return (await self._copies.ask(run, say.Copied))[0].progress

    def rest(self) -> None:
        """The copier lets go of the local device."""
        self._copies.post(say.Rest())

    async def close(self) -> None:
        """End it."""
        self.sound = False
        for conversation in (self._commands, self._pieces, self._copies):
            await conversation.close()
        with contextlib.suppress(OSError):
            self._barriers.shutdown(socket.SHUT_RDWR)
        with self._at_barrier:  # whoever is in there has an error now
            self._barriers.close()
        try:
            async with asyncio.timeout(_EXIT):
                await self._process.wait()
        except TimeoutError:
            log.error("%s: its tap (process %d) does not end, and is killed", self._setup.name, self._process.pid)
            self._process.kill()
            await reap(self._process, f"the tap of {self._setup.name}")

    def _barrier_answer(self) -> bytes:
        data, wanted = b"", say.HEAD.size
        while len(data) < wanted:
            part = self._barriers.recv(_READ)
            if not part:
                raise OSError("it has ended")
            data += part
            if len(data) >= say.HEAD.size:
                wanted = say.HEAD.size + say.lengths(data[: say.HEAD.size])[0]
        return data[say.HEAD.size :]

    def _gone(self, why: str) -> DiskError:
        return self._lost(f"the process of the tap of {self._setup.vdev} is gone: {why}")

    def _lost(self, what: str) -> DiskError:
        return DiskError(
            what,
            operation="log writes",
            domain=self._setup.domain,
            left="the guest's disk goes on, md remembers what changes",
            hint="the next session starts another one; the agent's log says more if it happens again",
        )


async def start(setup: say.Setup, how: Spawn) -> TapProcess:
    """The process of a tap that does not serve yet. Raises DiskError."""
    pairs = [socket.socketpair() for _ in range(4)]
    ours, theirs = (tuple(pair[side] for pair in pairs) for side in (0, 1))
    try:
        try:
            process = await how(setup.name, theirs)
        finally:
            for end in theirs:
                end.close()
    except BaseException:
        for end in ours:
            end.close()
        raise
    tap = TapProcess(process, ours, setup)
    try:
        async with asyncio.timeout(_START):
            tap.map_id = (await tap.command(setup, say.Ready)).map_id
    except TimeoutError:
        await tap.close()
        raise DiskError(
            f"the process of the tap of {setup.vdev} has not answered within {_START:g} s",
            operation="start the tap",
            domain=setup.domain,
            hint="the host may be overloaded; a guest that was protected is tried again by itself, for another one ask again",
        ) from None
    except BaseException:
        await tap.close()
        raise
    return tap


def _timeval(seconds: float) -> bytes:
    """A struct timeval."""
    whole = int(seconds)
    return struct.pack("@ll", whole, int((seconds - whole) * 1e6))


def _error(failed: say.Failed) -> DiskError:
    return DiskError(
        failed.message,
        operation=failed.operation,
        domain=failed.domain,
        epoch=failed.epoch,
        left=failed.left,
        hint=failed.hint,
    )
