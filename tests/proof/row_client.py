#!/usr/bin/env python3
"""A PostgreSQL client on ONE long TCP connection that writes down every commit it is told of.

    labctl exec -- python3 tests/proof/row_client.py --guest 10.77.0.100:5432 --history results/rows.jsonl

It inserts numbered rows, each in a transaction of its own, the next one when the one before is acknowledged. Otherwise it is
as the Redis client (client.py): it ends and breaks the same way, and what it writes down is judged by the same checker, for
which a row is a list entry:

    labctl exec -- python3 tests/proof/checker.py results/rows.jsonl --database 10.77.0.100:5432

A row that PostgreSQL refuses ends the load, because the row's number cannot be used again.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proof import pgwire, rows
from proof.client import POLL, Client, Limits, Load, add_options, connect, limits_of, record
from proof.history import Final, Recorder
from proof.state import StateError

RATE = 40.0
"""Rows a second at most."""


class RowClient(Client):
    """One run over a connection that is logged in."""

    protocol_errors = (pgwire.PgError, pgwire.Refused)

    def __init__(
        self,
        connection: socket.socket,
        decoder: pgwire.Decoder,
        name: str,
        recorder: Recorder,
        load: Load,
        limits: Limits,
        stop_requested: Callable[[], bool],
    ) -> None:
        super().__init__(connection, name, recorder, load, limits, stop_requested)
        self._rows = decoder

    def _one_batch(self, batch: int) -> None:
        op = f"j{batch}"
        self._recorder.write("sent", batch=batch, ops=[op])
        self._recorder.flush()
        self._connection.settimeout(POLL)
        self._connection.sendall(pgwire.query(rows.insert(self._name, batch)))
        began = time.monotonic()
        result = rows.one_result(self._rows, lambda: self._receive(began))
        now = time.monotonic()
        if result.error is not None:
            self._recorder.write("refused", at=now, batch=batch, index=0, op=op, error=str(result.error))
            self._stop("refused")
        elif (result.tags, result.status, len(result.rows)) == (["INSERT 0 1"], "I", 1):
            self._recorder.write("ack", at=now, batch=batch, index=0, op=op, value=int(result.rows[0][0] or 0))
        else:
            raise pgwire.PgError(f"the answer to row {batch} is {result}")
        self._recorder.flush()


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
        decoder = rows.log_in(connection, limits.connect)
        rows.prepare(connection, decoder, name)
        local = connection.getsockname()
        recorder.write(
            "start",
            run=name,
            guest=f"{address[0]}:{address[1]}",
            client=f"{local[0]}:{local[1]}",
            counters=0,
        )
        recorder.flush()
        kept = RowClient(connection, decoder, name, recorder, load, limits, stop_requested).run()
        if kept:
            try:
                final = rows.read_final(connection, decoder, name, "same")
            except (OSError, StateError) as error:
                recorder.write("broken", error=f"reading the final state: {error}")
                kept = False
    if not kept:
        final = rows.fetch_final(address, name, limits.final)
    recorder.final(final)
    return final


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description="Commit rows over one TCP connection and record each commit.")
    add_options(made, ("10.77.0.100", 5432))
    made.add_argument("--rate", type=float, default=RATE, help="rows a second at most")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = parser().parse_args(arguments)
    load = Load(rate=options.rate)
    return record(options, lambda recorder, stop: run(options.guest, recorder, load, limits_of(options), stop))


if __name__ == "__main__":
    sys.exit(main())
