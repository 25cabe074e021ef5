#!/usr/bin/env python3
"""A Redis client on ONE long TCP connection that writes down every reply it gets.

    labctl exec -- python3 tests/proof/client.py --guest 10.77.0.100:6379 --history results/history.jsonl

It goes on until SIGTERM or SIGINT, or until --seconds have passed; then it waits for what is outstanding,
reads the final state and ends. It never reconnects while it runs: when the connection ends, `broken` is
recorded and a new connection reads the final state only. Exit code: 0 also for a broken connection (judging
is the checker's work); 1 when no connection could be made or the final state could not be read.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proof.history import Final, Recorder
from proof.resp import Decoder, RespError, ServerError, command
from proof.state import StateError, counter_key, fetch_final, journal_key, prepare, read_final

POLL = 0.25
"""Seconds between two looks at the stop signal and the deadline while waiting for bytes."""
KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 90}
"""Probes every 10 s; a guest that is silent for less than 15 minutes keeps its connection."""


@dataclass(frozen=True)
class Load:
    """What is asked of the guest. per_batch: rounds of (every counter, one append) in a batch; rate:
    batches a second at most."""

    counters: int = 4
    per_batch: int = 2
    rate: float = 40.0


@dataclass(frozen=True)
class Limits:
    """When to end, in seconds. connect: for the first connection. run: of load. stall: without any reply
    until the connection counts as broken. grace: for outstanding replies after the stop. final: for reading
    the final state over a new connection."""

    connect: float = 60.0
    run: float | None = None
    stall: float | None = None
    grace: float = 120.0
    final: float = 300.0


class Broken(Exception):
    """The one connection ended."""


class Stopped(Exception):
    """Told to stop, or the time is over, and the grace for outstanding replies as well."""


class Client:
    """One run. name: the run's, in its keys. stop_requested is looked at several times a second."""

    protocol_errors: tuple[type[Exception], ...] = (RespError,)
    """What an answer that makes no sense raises; the connection counts as broken then."""

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        recorder: Recorder,
        load: Load,
        limits: Limits,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._name = name
        self._recorder = recorder
        self._load = load
        self._limits = limits
        self._stop_requested = stop_requested
        self._decoder = Decoder()
        self._entry = 0
        self._began = time.monotonic()
        self._stopped_at: float | None = None

    def run(self) -> bool:
        """Load until the end; True when every reply came and the connection is still good for questions."""
        batch = 0
        breaks: tuple[type[Exception], ...] = (Broken, OSError, *self.protocol_errors)
        try:
            while not self._stopping():
                began = time.monotonic()
                batch += 1
                self._one_batch(batch)
                self._wait(began + 1 / self._load.rate)
        except Stopped:
            self._recorder.write("unfinished", outstanding=batch)
        except breaks as error:
            self._recorder.write("broken", error=f"{type(error).__name__}: {error}")
        else:
            return True
        finally:
            self._recorder.flush()
        return False

    def _stopping(self) -> bool:
        if self._stopped_at is None:
            over = self._limits.run is not None and time.monotonic() - self._began >= self._limits.run
            if self._stop_requested() or over:
                self._stop("deadline" if over else "signal")
        return self._stopped_at is not None

    def _stop(self, reason: str) -> None:
        self._stopped_at = time.monotonic()
        self._recorder.write("stopping", reason=reason)
        self._recorder.flush()

    def _wait(self, until: float) -> None:
        while not self._stopping() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL))

    def _one_batch(self, batch: int) -> None:
        ops: list[str] = []
        requests: list[bytes] = []
        for _ in range(self._load.per_batch):
            for number in range(self._load.counters):
                ops.append(f"c{number}")
                requests.append(command("INCR", counter_key(self._name, number)))
            self._entry += 1
            ops.append(f"j{self._entry}")
            requests.append(command("RPUSH", journal_key(self._name), self._entry))
        self._recorder.write("sent", batch=batch, ops=ops)
        self._recorder.flush()
        self._connection.settimeout(POLL)
        self._connection.sendall(b"".join(requests))
        self._replies(batch, ops)

    def _replies(self, batch: int, ops: list[str]) -> None:
        index = 0
        last_progress = time.monotonic()
        while index < len(ops):
            data = self._receive(last_progress)
            now = last_progress = time.monotonic()
            for reply in self._decoder.feed(data):
                if index >= len(ops):
                    raise RespError(f"more replies than requests: {reply!r}")
                facts = {"batch": batch, "index": index, "op": ops[index]}
                if isinstance(reply, int):
                    self._recorder.write("ack", at=now, **facts, value=reply)
                elif isinstance(reply, ServerError):
                    self._recorder.write("refused", at=now, **facts, error=str(reply))
                else:
                    raise RespError(f"reply to {ops[index]} is {reply!r}")
                index += 1
            self._recorder.flush()

    def _receive(self, last_progress: float) -> bytes:
        """The next bytes, however long they take within the limits."""
        while True:
            try:
                data = self._connection.recv(65536)
            except TimeoutError as error:
                if error.errno is not None:  # TCP gave up (ETIMEDOUT); a poll that ran out has no errno
                    raise
                now = time.monotonic()
                if self._limits.stall is not None and now - last_progress > self._limits.stall:
                    raise Broken(f"no reply for {self._limits.stall:.0f} s") from None
                if self._stopping() and now - (self._stopped_at or now) > self._limits.grace:
                    raise Stopped from None
            else:
                if not data:
                    raise Broken("the guest closed the connection")
                return data


def connect(address: tuple[str, int], timeout: float) -> socket.socket:
    """The one connection; tried until TIMEOUT seconds have passed."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection = socket.create_connection(address, timeout=max(1.0, deadline - time.monotonic()))
        except OSError:
            if time.monotonic() + 1 >= deadline:
                raise
            time.sleep(0.5)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in KEEPALIVE.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            return connection


def run(
    address: tuple[str, int],
    recorder: Recorder,
    load: Load,
    limits: Limits,
    stop_requested: Callable[[], bool],
) -> Final:
    """A whole run, start to final state. Raises OSError or StateError when either end of it cannot be had."""
    name = uuid.uuid4().hex
    with connect(address, limits.connect) as connection:
        prepare(connection, name, load.counters)
        local = connection.getsockname()
        recorder.write(
            "start",
            run=name,
            guest=f"{address[0]}:{address[1]}",
            client=f"{local[0]}:{local[1]}",
            counters=load.counters,
        )
        recorder.flush()
        kept = Client(connection, name, recorder, load, limits, stop_requested).run()
        if kept:
            try:
                final = read_final(connection, name, load.counters, "same")
            except (OSError, StateError) as error:
                recorder.write("broken", error=f"reading the final state: {error}")
                kept = False
    if not kept:
        final = fetch_final(address, name, load.counters, limits.final)
    recorder.final(final)
    return final


def endpoint(text: str) -> tuple[str, int]:
    """HOST:PORT as an address."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def add_options(made: argparse.ArgumentParser, guest: tuple[str, int]) -> None:
    """Options of every client of the proof. guest: whom it asks if nobody is named."""
    made.add_argument("--guest", type=endpoint, default=guest, metavar="HOST:PORT")
    made.add_argument("--history", type=Path, required=True, help="JSON lines file to write")
    made.add_argument("--pid-file", type=Path, help="where to write the process id, for the stop signal")
    made.add_argument("--seconds", type=float, help="end by itself after this time")
    made.add_argument(
        "--stall-limit", type=float, help="count the connection as broken after this time without a reply"
    )
    made.add_argument(
        "--grace", type=float, default=Limits.grace, help="wait this long for outstanding replies at the end"
    )
    made.add_argument("--final-timeout", type=float, default=Limits.final)
    made.add_argument("--connect-timeout", type=float, default=Limits.connect)


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits that OPTIONS name."""
    return Limits(options.connect_timeout, options.seconds, options.stall_limit, options.grace, options.final_timeout)


def record(options: argparse.Namespace, whole: Callable[[Recorder, Callable[[], bool]], Final]) -> int:
    """WHOLE, a run, recorded where OPTIONS say and ended by a signal; exit status."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: asked.append(received))
    if options.pid_file:
        options.pid_file.write_text(f"{os.getpid()}\n")
    options.history.parent.mkdir(parents=True, exist_ok=True)
    with options.history.open("w", encoding="utf-8") as file:
        try:
            whole(Recorder(file), lambda: bool(asked))
        except (OSError, StateError) as error:
            sys.stderr.write(f"proof client: {error}\n")
            return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description="Load a guest over one TCP connection and record each reply.")
    add_options(made, ("10.77.0.100", 6379))
    made.add_argument("--counters", type=int, default=Load.counters)
    made.add_argument("--per-batch", type=int, default=Load.per_batch)
    made.add_argument("--rate", type=float, default=Load.rate, help="batches a second at most")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = parser().parse_args(arguments)
    load = Load(options.counters, options.per_batch, options.rate)
    return record(options, lambda recorder, stop: run(options.guest, recorder, load, limits_of(options), stop))


if __name__ == "__main__":
    sys.exit(main())
