"""What the client wrote down: one JSON object a line, in the order in which it happened.

    start      run, guest, client address, counters            the connection is made, all keys are fresh
    sent       batch, ops                                      before the bytes go out
    ack        batch, index, op, value                         one reply, when it was read
    refused    batch, index, op, error                         the guest answered with an error
    broken     error                                           the connection ended or was silent too long
    stopping   reason ("signal", "deadline" or "refused")      no new batches from here on
    unfinished outstanding                                     stopped; replies missed the grace time
    final      via ("same" or "new" connection), run, counters, journal
    end        clean end of the client

Every line has `mono` (CLOCK_MONOTONIC seconds of the client's machine: gaps and latencies) and `wall`
(seconds since the epoch: for people and logs). An `op` is `c<number>` for an increment of that counter,
`j<entry>` for an append to the list; with PostgreSQL, a row is such an entry and its number the value of the reply.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any

JOURNAL = "journal"


class HistoryError(Exception):
    """The file is not a history; line: counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class Recorder:
    """Writes events, each flushed before the next thing happens."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, event: str, *, at: float | None = None, **facts: Any) -> None:
        """One line. at: the monotonic time of what happened, now if not given."""
        stamp = {"mono": round(time.monotonic() if at is None else at, 6), "wall": round(time.time(), 6)}
        self._file.write(json.dumps({"event": event, **stamp, **facts}, separators=(",", ":")) + "\n")

    def final(self, final: Final) -> None:
        """The end: what the guest holds, and that nothing follows."""
        self.write("final", via=final.via, run=final.run, counters=final.counters, journal=list(final.journal))
        self.write("end")
        self.flush()

    def flush(self) -> None:
        """Hand what was written to the kernel."""
        self._file.flush()


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it was sent."""

    number: int
    ops: tuple[str, ...]
    mono: float
    wall: float


@dataclass(frozen=True, slots=True)
class Ack:
    """One acknowledged reply."""

    batch: int
    index: int
    op: str
    value: int
    mono: float
    wall: float

    @property
    def series(self) -> str:
        """What the reply counts: `c<number>` or `journal` (its length)."""
        return JOURNAL if self.op.startswith("j") else self.op


@dataclass(frozen=True, slots=True)
class Final:
    """What the guest held at the end. run: whose data it is (None: nobody's)."""

    run: str | None
    counters: dict[str, int]
    journal: tuple[int, ...]
    via: str


@dataclass(slots=True)
class History:
    """All of it. complete: the client ended by itself and the last line is whole."""

    run: str
    guest: str
    client: str
    counters: int
    started_mono: float
    started_wall: float
    batches: dict[int, Batch] = field(default_factory=dict)
    acks: list[Ack] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    stopped: str | None = None
    unfinished: bool = False
    final: Final | None = None
    complete: bool = False


def _objects(lines: Iterable[str]) -> Iterable[tuple[int, dict[str, Any]]]:
    """The lines as objects; a last line without its end (a killed client) is left out."""
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            return
        try:
            value = json.loads(line)
        except ValueError as error:
            raise HistoryError(number, f"not JSON: {line[:80]!r}") from error
        if not isinstance(value, dict):
            raise HistoryError(number, "not an object")
        yield number, value


def read(lines: Iterable[str]) -> History:
    """A history from the lines of its file. Raises HistoryError on anything that the client cannot have
    written."""
    history: History | None = None
    for number, entry in _objects(lines):
        event = entry.get("event")
        try:
            if event == "start":
                if history is not None:
                    raise HistoryError(number, "a second start: one file is one run")
                history = History(
                    run=entry["run"],
                    guest=entry["guest"],
                    client=entry["client"],
                    counters=entry["counters"],
                    started_mono=entry["mono"],
                    started_wall=entry["wall"],
                )
            elif history is None:
                raise HistoryError(number, f"{event} before start")
            else:
                _add(history, number, entry)
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(number, f"{event}: {error!r}") from error
    if history is None:
        raise HistoryError(1, "empty: the client never connected")
    return history


def _add(history: History, number: int, entry: dict[str, Any]) -> None:
    event = entry["event"]
    if event == "sent":
        batch = Batch(entry["batch"], tuple(entry["ops"]), entry["mono"], entry["wall"])
        if batch.number in history.batches:
            raise HistoryError(number, f"batch {batch.number} sent twice")
        history.batches[batch.number] = batch
    elif event == "ack":
        ack = Ack(entry["batch"], entry["index"], entry["op"], entry["value"], entry["mono"], entry["wall"])
        sent = history.batches.get(ack.batch)
        if sent is None or sent.ops[ack.index] != ack.op:
            raise HistoryError(number, f"a reply to {ack.op} of batch {ack.batch}, which was not sent")
        history.acks.append(ack)
    elif event == "refused":
        history.refused.append(f"batch {entry['batch']}, {entry['op']}: {entry['error']}")
    elif event == "broken":
        history.broken.append(entry["error"])
    elif event == "stopping":
        history.stopped = entry["reason"]
    elif event == "unfinished":
        history.unfinished = True
    elif event == "final":
        history.final = Final(entry["run"], dict(entry["counters"]), tuple(entry["journal"]), entry["via"])
    elif event == "end":
        history.complete = True
    else:
        raise HistoryError(number, f"unknown event {event!r}")
