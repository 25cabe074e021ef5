"""A client of the guest: one TCP connection, a question every so often whether the one before was answered or not, everything
written down as JSON lines. Or an operator's own command, run again and again.

    connected  connection, peer         a connection is made; the first one is number 1
    sent       number                   before the bytes go out
    answered   number, seconds, value   value: the guest's counter, where it keeps one
    lost       connection, outstanding, error   the connection ended; another one is tried
    damaged    number, error            what came can't be the answer
    probe      number, seconds, code, words     the command ended
    kept, checked  digest               the blob in the guest's memory: as it was written, and as it was read at the end
    final      value                    the counter at the end
    end        reason

Each line has `mono`: the controller's CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from drill import asking

MOST_OUTSTANDING = 2000
POLL = 0.05
CONNECT = 3.0
AGAIN = 0.5
"""Seconds between two attempts to connect."""
KEEP = 30.0
"""Seconds in which the guest has to take what it is to keep. Its answers wait for an epoch, which takes long right after another
fault."""


class Log:
    """Writes lines, each handed to the kernel at once."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, event: str, at: float | None = None, **facts: Any) -> None:
        """One line."""
        stamp = round(time.monotonic() if at is None else at, 6)
        self._file.write(json.dumps({"event": event, "mono": stamp, **facts}, separators=(",", ":")) + "\n")
        self._file.flush()


@dataclass
class Options:
    """address: of the guest's service. kind: see `asking`. interval: seconds between two questions. key: of what is kept in
    the guest, unique for this drill. grace: seconds for answers that are outstanding at the end. command: a probe, run instead
    of all this, each at most for so many seconds (timeout)."""

    address: tuple[str, int] | None
    kind: str
    interval: float
    key: str
    path: str = "/"
    grace: float = 10.0
    command: str | None = None
    timeout: float = 60.0


class Connection:
    """One connection: what is outstanding on it, and what was received."""

    def __init__(self, link: socket.socket, number: int) -> None:
        self.link = link
        self.number = number
        self.outstanding: deque[tuple[int, float]] = deque()
        self.received = b""
        self.unsent = b""


class Client:
    """Runs until stop() is true."""

    def __init__(self, options: Options, log: Log, stop: Callable[[], bool]) -> None:
        self._options = options
        self._log = log
        self._stop = stop
        self._ask = asking.asking(
            options.kind, options.address[0] if options.address else "", options.key, options.path
        )
        self._number = 0
        self._connections = 0

    def run(self) -> None:
        """The whole of it."""
        connection = self._connect()
        kept = not self._ask.counts
        while connection is not None:
            try:
                if not kept:
                    self._keep(connection)
                    kept = True
                self._one(connection)
            except OSError as error:
                self._lose(connection, error)
                connection = self._connect()
            else:
                if self._ask.counts:
                    self._check(connection)
                connection.link.close()
                break
        self._log.write("end", reason="stopped")

    def _connect(self) -> Connection | None:
        """Another connection, however long it takes; None when told to stop."""
        address = self._options.address
        while address is not None and not self._stop():
            try:
                link = socket.create_connection(address, timeout=CONNECT)
            except OSError:
                wait(AGAIN, self._stop)
            else:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                link.setblocking(False)
                self._connections += 1
                self._log.write("connected", connection=self._connections, peer=f"{address[0]}:{address[1]}")
                return Connection(link, self._connections)
        return None

    def _lose(self, connection: Connection, error: OSError) -> None:
        connection.link.close()
        words = f"{type(error).__name__}: {error}"
        self._log.write("lost", connection=connection.number, outstanding=len(connection.outstanding), error=words)

    def _one(self, connection: Connection) -> None:
        """Ask and hear on this connection until told to stop. Raises OSError when it ends."""
        due = time.monotonic()
        stopped: float | None = None
        while True:
            now = time.monotonic()
            if stopped is None and self._stop():
                stopped = now
            if stopped is not None and (not connection.outstanding or now - stopped > self._options.grace):
                return
            room = len(connection.outstanding) < (MOST_OUTSTANDING if self._ask.pipelined else 1)
            if stopped is None and now >= due and room:
                self._send(connection)
                due = max(due + self._options.interval, now - self._options.interval)
            left = POLL if stopped is not None or not room else min(POLL, max(0.0, due - time.monotonic()))
            writing = [connection.link] if connection.unsent else []
            ready, writable, _ = select.select([connection.link], writing, [], left)
            if writable:
                connection.unsent = connection.unsent[connection.link.send(connection.unsent) :]
            if ready:
                self._hear(connection)

    def _send(self, connection: Connection) -> None:
        self._number += 1
        self._log.write("sent", number=self._number)
        connection.outstanding.append((self._number, time.monotonic()))
        connection.unsent += self._ask.question(self._number)
        with contextlib.suppress(BlockingIOError):
            connection.unsent = connection.unsent[connection.link.send(connection.unsent) :]

    def _hear(self, connection: Connection) -> None:
        data = connection.link.recv(65536)
        now = time.monotonic()
        if not data:
            raise ConnectionResetError("the guest closed the connection")
        connection.received += data
        while connection.outstanding:
            number, sent = connection.outstanding[0]
            try:
                answer = self._ask.answer(number, connection.received)
            except (asking.Damaged, asking.Unanswerable) as error:
                self._log.write(
                    "damaged" if isinstance(error, asking.Damaged) else "refused", number=number, error=str(error)
                )
                raise ConnectionAbortedError(str(error)) from error
            if answer is None:
                return
            connection.received = answer.rest
            connection.outstanding.popleft()
            self._log.write("answered", now, number=number, seconds=round(now - sent, 6), value=answer.value)

    def _keep(self, connection: Connection) -> None:
        """Put the blob into the guest's memory, for a day at most. Raises OSError: an answer may still come then."""
        data, key = asking.blob(self._options.key), self._options.key
        for words in (("SET", f"{key}:blob", data, "EX", "86400"), ("SET", key, "0", "EX", "86400")):
            if self._whole(connection, asking.command(*words), b"+OK\r\n", KEEP) != b"+OK\r\n":
                return
        self._log.write("kept", digest=asking.digest(data))

    def _check(self, connection: Connection) -> None:
        """Read what the guest keeps, and remove it."""
        if connection.outstanding:
            return
        data = asking.blob(self._options.key)
        with contextlib.suppress(OSError):
            head = f"${len(data)}\r\n".encode()
            reply = self._whole(connection, asking.command("GET", f"{self._options.key}:blob"), head + data + b"\r\n")
            found = reply[len(head) : -2] if reply.startswith(head) else reply
            self._log.write("checked", digest=asking.digest(found))
            reply = self._whole(connection, asking.command("GET", self._options.key), None)
            value = reply.split(b"\r\n")[1] if reply.count(b"\r\n") == 2 else b""
            self._log.write("final", value=int(value) if value.isdigit() else None)
            self._whole(connection, asking.command("DEL", self._options.key, f"{self._options.key}:blob"), b":2\r\n")

    def _whole(
        self, connection: Connection, request: bytes, expected: bytes | None, patience: float | None = None
    ) -> bytes:
        """A reply outside of the stream of questions: as long as the expected one, or until two lines have come."""
        connection.link.settimeout(self._options.grace if patience is None else patience)
        try:
            connection.link.sendall(request)
            reply = b""
            while (
                len(reply) < len(expected) if expected is not None else reply.count(b"\r\n") < 2 and reply != b"$-1\r\n"
            ):
                data = connection.link.recv(65536)
                if not data:
                    raise ConnectionResetError("the guest closed the connection")
                reply += data
                if (
                    reply[:1] in (b"-", b"$")
                    and expected is not None
                    and reply[:4] != expected[:4]
                    and reply.endswith(b"\r\n")
                ):
                    break
            return reply
        finally:
            connection.link.setblocking(False)


def wait(seconds: float, stop: Callable[[], bool]) -> None:
    """So long, or until told to stop."""
    until = time.monotonic() + seconds
    while not stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, POLL))


def probe(options: Options, log: Log, stop: Callable[[], bool]) -> None:
    """Run an operator's command again and again; exit code 0 is an answer."""
    number = 0
    while not stop():
        number += 1
        began = time.monotonic()
        log.write("sent", began, number=number)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", options.command or "false"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=options.timeout,
                check=False,
            )
            code, words = done.returncode, (done.stderr or done.stdout).strip()[-200:]
        except subprocess.TimeoutExpired:
            code, words = -1, f"no end within {options.timeout:g} s"
        now = time.monotonic()
        log.write("probe", now, number=number, seconds=round(now - began, 6), code=code, words=words if code else "")
        wait(began + options.interval - now, stop)
    log.write("end", reason="stopped")


def main(file: Path, facts: dict[str, Any], over: Callable[[], bool]) -> int:
    """Run as a process of its own until SIGTERM, SIGINT or over(). facts: see Options."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopped.append(got))
    address = facts.pop("address", None)
    options = Options(address=(address[0], int(address[1])) if address else None, **facts)
    with file.open("w") as lines:
        log = Log(lines)

        def stop() -> bool:
            return bool(stopped) or over()

        if options.command:
            probe(options, log, stop)
        else:
            Client(options, log, stop).run()
    return 0
