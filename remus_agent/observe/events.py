"""What happened, for people and programs: the newest events in memory, all of them as JSON lines in a bounded
file.

An event's id is higher than that of every event before it, also over restarts: each run of the agent begins
at a new multiple of 10 000, so that events which a full disk kept out of the file do not lend their ids to
later ones.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from remus_agent.protocol.readable import readable

log = logging.getLogger(__name__)

RING: Final = 5000
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
ID_STEP: Final = 10_000
_BACKLOG: Final = 10_000
"""Lines that may wait for the disk; later ones are kept in memory only."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. time: UTC, RFC 3339 with milliseconds. event: its kind, dashed words. detail: facts of that
    kind."""

    id: int
    time: str
    domain: str | None = None
    event: str
    epoch: int | None = None
    detail: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        """As the control socket sends it."""
        plain: dict[str, Any] = {"id": self.id, "time": self.time, "domain": self.domain, "event": self.event}
        if self.epoch is not None:
            plain["epoch"] = self.epoch
        plain["detail"] = self.detail
        return plain


_DECODER: Final = msgspec.json.Decoder(Event)


def _plain(detail: dict[str, Any]) -> dict[str, Any]:
    """The facts as JSON values; a fact that cannot be written as JSON is noted as its text."""
    try:
        plain: dict[str, Any] = readable(msgspec.to_builtins(detail, str_keys=True, enc_hook=str))
        msgspec.json.encode(plain)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {readable(str(key)): readable(str(value)) for key, value in detail.items()}
    return plain


def _utc() -> datetime:
    return datetime.now(UTC)


class EventLog:
    """Events of this host. `emit` never blocks on the disk and never raises; a thread writes the file.

    path: of the file; `path.1` is the one before it. max_bytes: size at which a new file is begun.
    """

    def __init__(
        self,
        path: Path,
        *,
        ring: int = RING,
        max_bytes: int = MAX_FILE_BYTES,
        now: Callable[[], datetime] = _utc,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._now = now
        self._lock = threading.Lock()
        self._ring: deque[Event] = deque(self._load(), maxlen=ring)
        last = self._ring[-1].id if self._ring else 0
        self._next = (last // ID_STEP + 1) * ID_STEP + 1 if last else 1
        self._lines: queue.Queue[bytes | threading.Event | None] = queue.Queue()
        self._fd = -1
        self._size = 0
        self._torn = False
        self._failing = False
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="events", daemon=True)
        self._thread.start()

    def emit(
        self,
        event: str,
        domain: str | None = None,
        *,
        epoch: int | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Event:
        """Note an event. detail: JSON values; what is none is noted as its text, and what is no text as
        `readable`."""
        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts = _plain(detail or {})
        with self._lock:
            entry = Event(id=self._next, time=time, domain=readable(domain), event=event, epoch=epoch, detail=facts)
            self._next += 1
            self._ring.append(entry)
            if not self._closed and self._lines.qsize() < _BACKLOG:
                self._lines.put(msgspec.json.encode(entry) + b"\n")
        return entry

    def note(self, domain: str, event: str, *, epoch: int | None = None, **detail: object) -> None:
        """`ports.EventSink`: note an event of a domain, its facts as keywords."""
        self.emit(event, domain, epoch=epoch, detail=detail)

    def read(self, since: int = 0, domain: str | None = None, limit: int = 200) -> list[Event]:
        """Events with an id above since, oldest first. Of more than limit: the newest when since is 0 (what
        happened lately), the oldest otherwise (a reader that goes on misses none)."""
        with self._lock:
            found = [e for e in self._ring if e.id > since and (domain is None or e.domain == domain)]
        limit = max(limit, 0)
        if since > 0 or not limit:
            return found[:limit]
        return found[-limit:]

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything noted so far was given to the disk (or could not be); False when that takes
        longer."""
        done = threading.Event()
        self._lines.put(done)
        return done.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits and close the file. Later events are kept in memory only."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._lines.put(None)
        self._thread.join(timeout)

    # The file

    @property
    def _old_path(self) -> Path:
        return self._path.with_name(self._path.name + ".1")

    def _load(self) -> Iterable[Event]:
        events: list[Event] = []
        for path in (self._old_path, self._path):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("cannot read %s: %s", path, error.strerror)
                continue
            for line in lines:
                try:
                    event = _DECODER.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue  # torn by a crash or a full disk
                if not events or event.id > events[-1].id:
                    events.append(event)
        return events

    def _write_all(self) -> None:
        while (item := self._lines.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                self._write(item)
            except OSError as error:
                if not self._failing:
                    self._failing = True
                    log.warning("events are kept in memory only: cannot write %s: %s", self._path, error.strerror)
            else:
                if self._failing:
                    self._failing = False
                    log.warning("events are written to %s again", self._path)
        self._shut()

    def _write(self, line: bytes) -> None:
        if self._fd < 0:
            self._open()
        elif self._size + len(line) > self._max_bytes:
            self._shut()
            self._path.replace(self._old_path)
            self._open()
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        self._size += written
        self._torn = True
        while written < len(line):
            written += os.write(self._fd, line[written:])
        self._torn = False

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"

    def _shut(self) -> None:
        fd, self._fd = self._fd, -1  # its number is somebody else's afterwards, also when that fails
        try:
            if fd >= 0:
                os.close(fd)
        except OSError as error:
            log.warning("the newest events may be missing in %s: %s", self._path, error.strerror)
