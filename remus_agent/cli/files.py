"""Reads and writes whole streams: files, devices, pipes, standard input and output. Constant memory."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, Protocol

from remus_agent.cli.interrupts import Interrupts
from remus_agent.cli.progress import ProgressLines
from remus_agent.errors import ConfigError, FileError
from remus_agent.protocol.control import Progress
from remus_agent.protocol.stream.constants import Buffer
from remus_agent.protocol.unsent import Unsent

STANDARD: Final = "-"
"""Name of standard input or output."""
_PIECE: Final = 8 << 20
"""Bytes read at once: more than Xen's savers put into a record, so that many records are used where they were read."""
_PATIENCE: Final = 0.5
"""Seconds before the first progress is shown."""
_EVERY: Final = 0.2
_MIB: Final = 1 << 20
_HELD_IN_MEMORY: Final = 8 << 20
"""Bytes of an incomplete epoch that are kept in memory on the way to a pipe; the rest waits in a file."""


class Output(Protocol):
    """Where a stream goes. written: bytes that stay, as far as marks were made."""

    written: int

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append. Raises FileError."""

    def mark(self) -> None:
        """What was written so far stays. Raises FileError."""

    def back(self) -> None:
        """Forget what was written since the last mark, if there was one. Raises FileError."""


class Input:
    """One stream to read. size: bytes, 0 where it is not known. done: bytes read so far."""

    def __init__(self, name: str, progress: ProgressLines, phase: str) -> None:
        self.name = "standard input" if name == STANDARD else name
        self.done = 0
        self._progress, self._phase = progress, phase
        # Nobody wants lines of progress in a log; on a terminal they take turns on one line.
        self._show = sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = self._started + _PATIENCE
        if name == STANDARD and os.isatty(0):
            raise ConfigError("standard input is a terminal", hint="name a file, or pipe a stream into the command")
        try:
            self._file = io.FileIO(0, closefd=False) if name == STANDARD else io.FileIO(name)
            found = os.fstat(self._file.fileno())
        except OSError as error:
            raise _cannot("read", self.name, error) from error
        self.identity = (found.st_dev, found.st_ino)
        self.size = found.st_size if stat.S_ISREG(found.st_mode) else 0

    def __enter__(self) -> Input:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._progress.end()

    def fileno(self) -> int:
        """The descriptor, for who reads it in another way than by `pieces`."""
        return self._file.fileno()

    def pieces(self) -> Iterator[memoryview]:
        """The bytes in order. Each piece is overwritten by the next one. Raises FileError."""
        view = memoryview(bytearray(_PIECE))
        with Interrupts() as interrupts:
            while True:
                interrupts.wait(self._file.fileno())
                try:
                    count = self._file.readinto(view)
                except OSError as error:
                    raise _cannot("read", self.name, error) from error
                if count is None:  # another process reads the same descriptor, and somebody made it non-blocking
                    continue
                if not count:
                    return
                self.done += count
                self._report()
                yield view[:count]

    def _report(self) -> None:
        now = time.monotonic()
        if self._show and now >= self._next:
            self._next = now + _EVERY
            total = self.size // _MIB
            elapsed = now - self._started
            self._progress(
                Progress(phase=self._phase, done=self.done // _MIB, total=total, unit="MiB", elapsed=elapsed)
            )


@contextlib.contextmanager
def output(name: str, source: Input) -> Iterator[Output]:
    """Where a stream goes: standard output for `-`, straight into what exists and is no regular file, else a new file
    that takes the name when the block ends without an error; with an error nothing is left of it.

    Raises FileError, and ConfigError for a terminal and for the file that is being read."""
    if name == STANDARD:
        sys.stdout.flush()
        with contextlib.closing(_Pipe(1, "standard output")) as pipe:
            yield pipe
        return
    path = Path(os.path.realpath(name))
    try:
        found = path.stat() if path.exists() else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            fd = os.open(path, os.O_WRONLY)
            with contextlib.closing(_Pipe(fd, name, close=True)) as pipe:
                yield pipe
            return
    except OSError as error:
        raise _cannot("write", name, error) from error
    if found is not None and (found.st_dev, found.st_ino) == source.identity:
        raise ConfigError(f"{name} is the file that is being read", hint="name another file")
    with _terminates(), _NewFile(path, name) as file:
        yield file


class _Pipe:
    """What cannot be taken back. Holds what comes after the first mark until the next one."""

    def __init__(self, fd: int, name: str, *, close: bool = False) -> None:
        self.written = 0
        self._fd, self._name, self._close = fd, name, close
        self._marked = False
        self._held: list[Buffer] = []
        self._size = 0
        self._spill: io.FileIO | None = None
        if os.isatty(fd):
            self.close()
            raise ConfigError(f"{name} is a terminal", hint="name a file, or pipe the stream into another command")

    def write(self, buffers: Sequence[Buffer]) -> None:
        if not self._marked:
            self._send(buffers)
            return
        self._size += sum(memoryview(buffer).nbytes for buffer in buffers)
        if self._size > _HELD_IN_MEMORY:
            self._spill_over(buffers)
        else:
            self._held += map(bytes, buffers)  # they are views of what is read, and wait longer than that stays

    def mark(self) -> None:
        if self._spill is not None:
            spilled, self._spill = self._spill, None
            with spilled:
                self._send_file(spilled)
        self._send(self._held)
        self._held, self._size, self._marked = [], 0, True

    def back(self) -> None:
        self._held, self._size = [], 0
        if self._spill is not None:
            self._spill.close()
            self._spill = None

    def close(self) -> None:
        self.back()
        if self._close:
            os.close(self._fd)

    def _spill_over(self, buffers: Sequence[Buffer]) -> None:
        try:
            if self._spill is None:  # not under /tmp, which is memory on many hosts
                folder = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - nobody else can open a file without a name
                self._spill = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with the pipe
            _write_all(self._spill.fileno(), [*self._held, *buffers])
        except OSError as error:
            raise _cannot("keep an incomplete epoch for", self._name, error) from error
        self._held = []

    def _send_file(self, spilled: io.FileIO) -> None:
        try:
            spilled.seek(0)
            while piece := spilled.read(_PIECE):
                self._send([piece])
        except OSError as error:
            raise _cannot("keep an incomplete epoch for", self._name, error) from error

    def _send(self, buffers: Sequence[Buffer]) -> None:
        try:
            self.written += _write_all(self._fd, buffers)
        except OSError as error:
            raise _cannot("write", self._name, error, left="what was written before is incomplete") from error


class _NewFile:
    """A file that gets its name when it is whole."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
        self.written = 0
        self._done = 0
        self._marked = False
        try:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _cannot("write", name, error, left="nothing was written") from error

    def __enter__(self) -> _NewFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._fd)
                self._part.replace(self._path)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(self._fd)
            self._part.unlink(missing_ok=True)

    def write(self, buffers: Sequence[Buffer]) -> None:
        try:
            self._done += _write_all(self._fd, buffers)
        except OSError as error:
            raise self._failed(error) from error

    def mark(self) -> None:
        self.written, self._marked = self._done, True

    def back(self) -> None:
        if not self._marked:
            return
        try:
            os.ftruncate(self._fd, self.written)
            os.lseek(self._fd, self.written, os.SEEK_SET)
        except OSError as error:
            raise self._failed(error) from error
        self._done = self.written

    def _failed(self, error: OSError) -> FileError:
        return _cannot("write", self._name, error, left="nothing was left behind")


def _write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Write everything; returns how many bytes that were."""
    unsent = Unsent(buffers)
    total = 0
    while unsent:
        try:
            sent = os.writev(fd, unsent.vector())
        except BlockingIOError:  # a descriptor that somebody made non-blocking
            time.sleep(_EVERY / 100)
            continue
        unsent.advance(sent)
        total += sent
    return total


@contextlib.contextmanager
def _terminates() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block like an error, so that it cleans up."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cannot(do: str, name: str, error: OSError, left: str | None = None) -> FileError:
    text = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EPIPE:
        text = "its reader has closed it"
    return FileError(f"cannot {do} {name}: {text}", left=left)
