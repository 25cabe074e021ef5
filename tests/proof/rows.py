# ruff: noqa: S608  (the words in the statements are the proof's own)
"""Tables of the proof in the guest's PostgreSQL, and what they hold at the end.

A row is what the checker calls a list entry. There is no unique index, which would turn a row that is there twice into an
error and hide it; the index that there is gives pg_amcheck something to compare with. The final state is read from the
table itself and not from an index, and a row whose content is not what was sent is not that row.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable

from proof.history import Final
from proof.pgwire import Decoder, PgError, Refused, Result, query, startup
from proof.state import StateError

USER = "postgres"
DATABASE = "proof"
SCHEMA = """
CREATE TABLE IF NOT EXISTS proof_runs (number bigint GENERATED ALWAYS AS IDENTITY, name text NOT NULL);
CREATE TABLE IF NOT EXISTS proof_rows (run text NOT NULL, n bigint NOT NULL, content text NOT NULL);
CREATE INDEX IF NOT EXISTS proof_rows_by_number ON proof_rows (run, n)
"""
PATIENCE = 240.0
"""Seconds for an answer at the beginning: a new backend reads its catalogue from the disk, on a machine that may be slow."""
TABLE_ONLY = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off"
REPEATED = 8
"""Digests in a row's content: 256 bytes."""


def content(number: int) -> str:
    """What row NUMBER holds."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() * REPEATED


def insert(run: str, number: int) -> str:
    """One row of RUN, in a transaction of its own; answers with its number."""
    return f"INSERT INTO proof_rows (run, n, content) VALUES ('{run}', {number}, '{content(number)}') RETURNING n"


def newest_run() -> str:
    """The name of the newest run."""
    return "SELECT name FROM proof_runs ORDER BY number DESC LIMIT 1"


def held(run: str) -> str:
    """Numbers of the rows of RUN."""
    return f"SELECT n FROM proof_rows WHERE run = '{run}' AND content = repeat(md5(n::text), {REPEATED}) ORDER BY n"


def one_result(decoder: Decoder, receive: Callable[[], bytes]) -> Result:
    """The next result, from as many pieces as it takes."""
    while True:
        results = decoder.feed(receive())
        if len(results) > 1:
            raise PgError(f"{len(results)} results to one query")
        if results:
            return results[0]


def ask(connection: socket.socket, decoder: Decoder, message: bytes, timeout: float = PATIENCE) -> Result:
    """The result of MESSAGE. Raises OSError, StateError."""
    deadline = time.monotonic() + timeout

    def receive() -> bytes:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        data = connection.recv(65536)
        if not data:
            raise StateError("PostgreSQL closed the connection")
        return data

    connection.settimeout(timeout)
    connection.sendall(message)
    try:
        result = one_result(decoder, receive)
    except (PgError, Refused) as error:
        raise StateError(f"PostgreSQL: {error}") from error
    if result.error is not None:
        raise StateError(f"PostgreSQL answered: {result.error}")
    return result


def log_in(connection: socket.socket, timeout: float = PATIENCE) -> Decoder:
    """Begin the conversation; what reads the answers from here on."""
    decoder = Decoder()
    ask(connection, decoder, startup(USER, DATABASE), timeout)
    return decoder


def prepare(connection: socket.socket, decoder: Decoder, run: str) -> None:
    """Make the tables where they are missing, and RUN the newest one."""
    ask(connection, decoder, query(SCHEMA))
    ask(connection, decoder, query(f"INSERT INTO proof_runs (name) VALUES ('{run}')"))


def read_final(connection: socket.socket, decoder: Decoder, run: str, via: str, timeout: float = 120) -> Final:
    """What the guest holds of RUN now."""
    ask(connection, decoder, query(TABLE_ONLY), timeout)
    newest = ask(connection, decoder, query(newest_run()), timeout).rows
    rows = ask(connection, decoder, query(held(run)), timeout).rows
    try:
        journal = tuple(int(number or "") for (number,) in rows)
    except ValueError as error:
        raise StateError(f"PostgreSQL answered something else than numbers: {error}") from error
    return Final(run=newest[0][0] if newest else None, counters={}, journal=journal, via=via)


def fetch_final(address: tuple[str, int], run: str, timeout: float) -> Final:
    """What the guest holds of RUN, over fresh connections, tried until TIMEOUT seconds have passed."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection(address, timeout=max(1.0, min(20.0, left))) as connection:
                return read_final(connection, log_in(connection), run, "new")
        except (OSError, StateError) as error:
            if time.monotonic() + 1 >= deadline:
                where = f"{address[0]}:{address[1]}"
                raise StateError(f"{where} did not give its state in {timeout:.0f} s: {error}") from error
            time.sleep(0.5)
