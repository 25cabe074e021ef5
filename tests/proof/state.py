"""Keys of the proof in the guest's Redis, and what they hold at the end."""

from __future__ import annotations

import socket
import time

from proof.history import Final
from proof.resp import Decoder, Reply, ServerError, command

RUN_KEY = "proof:run"
"""Names the newest run; every run has keys of its own, so that a client left over from before cannot disturb it."""


class StateError(Exception):
    """The guest did not give its state, or a state that the client cannot have made."""


def counter_key(run: str, number: int) -> str:
    """Key of counter NUMBER of RUN."""
    return f"proof:{run}:c{number}"


def journal_key(run: str) -> str:
    """Key of the list of RUN."""
    return f"proof:{run}:journal"


def ask(connection: socket.socket, *requests: bytes, timeout: float = 60) -> list[Reply]:
    """The replies to REQUESTS, over a connection with nothing outstanding. Raises OSError, StateError."""
    decoder = Decoder()
    replies: list[Reply] = []
    deadline = time.monotonic() + timeout
    connection.settimeout(timeout)
    connection.sendall(b"".join(requests))
    while len(replies) < len(requests):
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        data = connection.recv(65536)
        if not data:
            raise StateError("Redis closed the connection")
        replies += decoder.feed(data)
    for reply in replies:
        if isinstance(reply, ServerError):
            raise StateError(f"Redis answered: {reply}")
    return replies


def prepare(connection: socket.socket, run: str, counters: int) -> None:
    """Make RUN the newest one; the list of the one before is removed, it is the only thing that grows."""
    (before,) = ask(connection, command("GET", RUN_KEY))
    if isinstance(before, bytes):
        ask(connection, command("DEL", journal_key(before.decode(errors="replace"))))
    ask(connection, command("SET", RUN_KEY, run))


def _integer(value: Reply) -> int:
    if value is None:
        return 0
    if not isinstance(value, bytes):
        raise StateError(f"expected a number, got {value!r}")
    return int(value)


def read_final(connection: socket.socket, run: str, counters: int, via: str) -> Final:
    """What the guest holds of RUN now."""
    names = [counter_key(run, number) for number in range(counters)]
    newest, values, entries = ask(
        connection,
        command("GET", RUN_KEY),
        command("MGET", *names),
        command("LRANGE", journal_key(run), 0, -1),
    )
    if not isinstance(values, list) or not isinstance(entries, list):
        raise StateError("Redis answered something else than lists")
    return Final(
        run=newest.decode(errors="replace") if isinstance(newest, bytes) else None,
        counters={f"c{number}": _integer(value) for number, value in enumerate(values)},
        journal=tuple(_integer(entry) for entry in entries),
        via=via,
    )


def fetch_final(address: tuple[str, int], run: str, counters: int, timeout: float) -> Final:
    """What the guest holds of RUN, over fresh connections, tried until TIMEOUT seconds have passed."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection(address, timeout=max(1.0, min(20.0, left))) as connection:
                return read_final(connection, run, counters, "new")
        except (OSError, StateError) as error:
            if time.monotonic() + 1 >= deadline:
                where = f"{address[0]}:{address[1]}"
                raise StateError(f"{where} did not give its state in {timeout:.0f} s: {error}") from error
            time.sleep(0.5)
