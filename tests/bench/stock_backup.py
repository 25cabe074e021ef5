"""Stock's side of a failover on the backup: `xl migrate-receive -r` behind a socket, with the moments of what it does.

    python3 stock_backup.py ADDRESS PORT > report.json

Runs on a host, standard library only. Takes one connection, gives xl what comes over it, and passes on what xl answers. SIGTERM
breaks the stream, as the death of the primary would if stock noticed it by itself; upon that xl activates the last complete
checkpoint. Prints one JSON object: `broken`, when xl's input was closed; `ended`, when xl had unpaused the guest and was gone;
`lines`, what xl said and when; all in seconds since the epoch. `by`: what broke the stream, `signal` or its `end`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO

PATIENCE = 600.0
"""Seconds to wait for the primary."""
RECEIVE = ("xl", "migrate-receive", "-r")


def pump(connection: socket.socket, to: int) -> None:
    """Pass on what comes until it ends, or whoever takes it does."""
    with contextlib.suppress(OSError):
        while data := connection.recv(1 << 18):
            while data:
                data = data[os.write(to, data) :]


def listen(stream: IO[str], lines: list[tuple[float, str]]) -> None:
    """Note each line with the time at which it came."""
    for line in stream:
        lines.append((time.time(), line.rstrip("\n")))


def serve(connection: socket.socket, command: tuple[str, ...] = RECEIVE) -> dict[str, object]:
    """One stream, to the end of what takes it; the report."""
    told: list[int] = []

    def end(number: int, _frame: object) -> None:
        told.append(number)
        connection.shutdown(socket.SHUT_RD)  # what has come is still passed on

    signal.signal(signal.SIGTERM, end)
    xl = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=connection.fileno(), stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert xl.stdin is not None
    assert xl.stderr is not None
    lines: list[tuple[float, str]] = []
    reader = threading.Thread(target=listen, args=(xl.stderr, lines), daemon=True)
    reader.start()
    pump(connection, xl.stdin.fileno())
    broken = time.time()
    by = "signal" if told else "end"
    xl.stdin.close()
    status = xl.wait()
    ended = time.time()
    reader.join(5)  # the monitor that xl leaves behind may keep the pipe open
    return {"broken": broken, "ended": ended, "status": status, "by": by, "lines": list(lines)}


def main(address: str, port: str) -> None:
    """Run from the command line."""
    with socket.create_server((address, int(port))) as server:
        server.settimeout(PATIENCE)
        connection, _ = server.accept()
    connection.settimeout(None)
    print(json.dumps(serve(connection)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
