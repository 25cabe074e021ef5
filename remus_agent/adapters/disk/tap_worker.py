"""The write tap of one disk, in a process of its own: the thread that serves the kernel (`tap_server`), and a thread for each
conversation with the agent (`protocol.disk.tap_messages`).

Nothing here waits for the agent but to be asked: while the agent is busy, the guest's writes are logged and completed. When the
agent is gone, so is the first conversation, and `run` returns.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from xxhash import xxh3_128_digest

from remus_agent import __version__
from remus_agent.adapters.disk.direct import DirectReader
from remus_agent.adapters.disk.failures import tap_let_go
from remus_agent.adapters.disk.map_file import open_map
from remus_agent.adapters.disk.tap_server import TapServer
from remus_agent.errors import DiskError, ProtocolError
from remus_agent.protocol.disk import copy_plan
from remus_agent.protocol.disk import tap_messages as say
from remus_agent.protocol.disk.pieces import CopyProgress, DiskData
from remus_agent.protocol.disk.regions import RegionMap, region_bytes
from remus_agent.protocol.disk.tap_log import Packing, TapLog
from remus_agent.protocol.nbd.messages import Export
from remus_agent.protocol.replication.digest import DIGEST_BYTES
from remus_agent.protocol.replication.frames import Buffer
from remus_agent.protocol.unsent import Unsent

log = logging.getLogger(__name__)

_COPY_BYTES = 1024 * 1024
"""Read at once by the copier."""


class Conversation:
    """The tap's end of one."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def hear(self) -> say.Request | None:
        """The next request; None when the agent is gone. Raises ProtocolError."""
        head = self._exactly(say.HEAD.size)
        if head is None:
            return None
        message = self._exactly(say.lengths(head)[0])
        return None if message is None else say.request(message)

    def answer(self, answer: say.Answer, payload: tuple[Buffer, ...] = ()) -> None:
        """An agent that is gone hears nothing."""
        size = sum(memoryview(buffer).nbytes for buffer in payload)
        unsent = Unsent([say.encode(answer, size), *payload])
        try:
            while unsent:
                unsent.advance(self._end.sendmsg(unsent.vector()))
        except OSError:
            return  # `hear` says so

    def shut(self) -> None:
        """Nothing is heard any more."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def _exactly(self, count: int) -> bytearray | None:
        memory = bytearray(count)
        view = memoryview(memory)
        while view:
            try:
                got = self._end.recv_into(view)
            except OSError:
                return None
            if got == 0:
                return None
            view = view[got:]
        return memory


Act = Callable[[say.Request], tuple[say.Answer, tuple[Buffer, ...]]]
"""Answers a request: the message, and the data behind it."""


class TapWorker:
    """commands, barriers, pieces, copies: the four conversations."""

    def __init__(
        self, commands: socket.socket, barriers: socket.socket, pieces: socket.socket, copies: socket.socket
    ) -> None:
        self._commands = Conversation(commands)
        self._barriers = Conversation(barriers)
        self._pieces = Conversation(pieces)
        self._copies = Conversation(copies)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for a change
        self._server: TapServer | None = None
        self._leg_lost = False
        self._reader: DirectReader | None = None
        self._failure: DiskError | None = None

    def run(self) -> None:
        """Serve until the agent is gone. The thread that serves the kernel ends with the process, and without cleaning up: the
        next agent may listen already where this one did."""
        first = self._commands.hear()
        if not isinstance(first, say.Setup):
            return
        try:
            self._set_up(first)
        except DiskError as error:
            self._commands.answer(_failed(error))
            return
        self._commands.answer(say.Ready(self._map.map_id))
        others = ((self._barriers, self._barrier), (self._pieces, self._piece), (self._copies, self._copy))
        for conversation, act in others:
            threading.Thread(target=self._talk, args=(conversation, act), daemon=True).start()
        self._talk(self._commands, self._command)

    def _set_up(self, setup: say.Setup) -> None:
        if setup.release != __version__:
            raise DiskError(
                f"the tap is of release {__version__}, the agent of {setup.release}",
                operation="protect a disk",
                domain=setup.domain,
                hint="restart remus-agent: it was installed anew while it ran",
            )
        self._setup = setup
        self._map: RegionMap = open_map(Path(setup.map_path), setup.size, keep=setup.keep)
        self._log = TapLog(self._map, setup.block, limit=setup.log_bytes, early=setup.early_bytes)

    def _talk(self, conversation: Conversation, act: Act) -> None:
        """Until the agent is gone, or something unforeseen happens: then all of it ends, and the agent sees that."""
        try:
            while (request := conversation.hear()) is not None:
                try:
                    answer, payload = act(request)
                except DiskError as error:
                    answer, payload = _failed(error), ()
                if not isinstance(request, say.NOT_ANSWERED):
                    conversation.answer(answer, payload)
                elif isinstance(answer, say.Failed):
                    self._fail(answer)
        except Exception:
            log.critical("%s: its tap ended by a defect; the guest's disk goes on", self._setup.name, exc_info=True)
        finally:
            self._commands.shut()

    # Commands

    def _command(self, request: say.Request) -> tuple[say.Answer, tuple[Buffer, ...]]:
        match request:
            case say.Committed(epoch):
                with self._lock:
                    self._log.committed(epoch)
            case say.Begin(same_base):
                with self._lock:
                    self._failure = None
                    self._log.begin(same_base=same_base)
                    return say.Begun(self._log.number, _progress(self._log.progress)), ()
            case say.End():
                self._end()
            case say.Lose():
                self._lose()
            case say.Look():
                server = self._server
                serving = server is not None and not self._leg_lost and server.connected
                return say.Seen(serving), ()
            case say.Hush():
                self._hush()
            case say.Serve():
                self._serve()
            case _:
                raise ProtocolError(f"unexpected {type(request).__name__}", operation="command a tap")
        return say.Done(), ()

    def _serve(self) -> None:
        self._hush()
        self._leg_lost = False
        export = Export(self._setup.name, self._setup.size, self._setup.block)
        server = TapServer(
            Path(self._setup.socket), export, self._log, self._lock, self._on_logged, lambda: self._on_gone(server)
        )
        self._server = server
        try:
            server.start()
        except DiskError:
            self._server = None
            raise

    def _hush(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    # Barriers

    def _barrier(self, request: say.Request) -> tuple[say.Answer, tuple[Buffer, ...]]:
        if not isinstance(request, say.Barrier):
            raise ProtocolError(f"unexpected {type(request).__name__}", operation="end an epoch")
        server = self._server  # another thread may take it away
        with self._lock:
            if server is None or not server.connected:
                # Writes may have been completed without us since: an epoch must not be closed that lacks them.
                self._leg_lost = True
                self._log.end()
            else:
                self._log.barrier(request.epoch)
            self._changed.notify_all()
        if self._leg_lost:
            raise self._lost()
        return say.Done(), ()

    def _end(self) -> None:
        with self._lock:
            self._log.end()
            self._changed.notify_all()

    def _lose(self) -> None:
        with self._lock:
            self._leg_lost = True
            self._log.end()
            self._changed.notify_all()

    def _fail(self, failed: say.Failed) -> None:
        with self._lock:
            self._failure = DiskError(failed.message, operation=failed.operation, epoch=failed.epoch)
            self._log.end()
            self._changed.notify_all()

    # What the kernel's thread says

    def _on_logged(self, waiting: int | None) -> None:
        """For each batch of writes: wakes who waits only when there is something to send early, or the log has overflowed."""
        if self._waiting and (waiting is None or waiting > self._setup.early_bytes):
            with self._lock:
                self._changed.notify_all()

    def _on_gone(self, server: TapServer) -> None:
        """The kernel has let go of the leg."""
        if server is self._server:
            self._lose()
            log.warning("%s: the kernel has let go of the tap; the guest's disk goes on without it", self._setup.name)

    # Pieces

    def _piece(self, request: say.Request) -> tuple[say.Answer, tuple[Buffer, ...]]:
        if not isinstance(request, say.Next):
            raise ProtocolError(f"unexpected {type(request).__name__}", operation="ask for a piece")
        piece = self._take(request.session)()  # without the lock, which the guest's writes need
        if isinstance(piece, DiskData):
            return say.Data(piece.epoch), tuple(piece.payload)
        return say.Ended(piece.epoch, piece.data_bytes, piece.extents, piece.digest), ()

    def _take(self, session: int) -> Packing:
        with self._lock:
            while True:
                self._require(session)
                packing = self._log.take()
                if packing is not None:
                    self._changed.notify_all()  # the copier may wait for room
                    return packing
                self._wait()

    def _require(self, session: int) -> None:
        """Raises when the session does not go on. Under the lock."""
        if self._leg_lost:
            raise self._lost()
        if self._failure is not None:
            raise self._failure
        if session != self._log.number:
            raise DiskError(
                f"there is no session {session} any more", operation="log writes", domain=self._setup.domain
            )

    def _wait(self) -> None:
        self._waiting += 1
        try:
            self._changed.wait()
        finally:
            self._waiting -= 1

    # The copier

    def _copy(self, request: say.Request) -> tuple[say.Answer, tuple[Buffer, ...]]:
        match request:
            case say.NextRun(session):
                if self._reader is None:
                    self._reader = DirectReader(Path(self._setup.device), self._setup.domain)
                with self._lock:
                    run = self._next_run(session)
                return say.Run(run.offset, run.length) if run is not None else say.Run(0, 0), ()
            case say.Rest():
                reader, self._reader = self._reader, None
                if reader is not None:
                    reader.close()
                return say.Done(), ()
            case say.CopyRun(session, offset, length, theirs):
                return say.Copied(_progress(self._copy_run(copy_plan.CopyRun(session, offset, length), theirs))), ()
            case _:
                raise ProtocolError(f"unexpected {type(request).__name__}", operation="copy a disk")

    def _next_run(self, session: int) -> copy_plan.CopyRun | None:
        """Once there is room in the log, so that copying does not crowd out the guest's writes."""
        most = max(self._setup.log_bytes // 4, self._setup.early_bytes)
        while True:
            self._require(session)
            if self._log.waiting <= most or not self._log.copying:
                return self._log.next_copy(_COPY_BYTES)
            self._wait()

    def _copy_run(self, run: copy_plan.CopyRun, theirs: bytes | None) -> CopyProgress:
        if self._reader is None:
            raise ProtocolError("a run was not asked for", operation="copy a disk")
        data = self._reader.read(run.offset, run.length)
        region = region_bytes(self._setup.size)
        with self._lock:
            if theirs is None:
                self._log.copied(run, data)
            else:
                _take_what_differs(self._log, run, data, theirs, region)
            if self._log.waiting > self._setup.early_bytes or self._log.overflowed:
                self._changed.notify_all()
            return self._log.progress

    def _lost(self) -> DiskError:
        return tap_let_go(
            self._setup.vdev,
            self._setup.domain,
            "log writes",
            "the next session takes the tap back; look at the kernel's log (dmesg) if it happens again",
        )


def _take_what_differs(tap_log: TapLog, run: copy_plan.CopyRun, data: memoryview, theirs: bytes, region: int) -> None:
    for number, piece in enumerate(run.split(region)):
        part = data[piece.offset - run.offset : piece.end - run.offset]
        if xxh3_128_digest(part) == theirs[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
            tap_log.same(piece)
        else:
            tap_log.copied(piece, part)


def _progress(found: CopyProgress) -> say.Progress:
    return say.Progress(found.done, found.total, found.sent)


def _failed(error: DiskError) -> say.Failed:
    facts = error.as_dict()
    facts.pop("code")
    return say.Failed(**facts)
