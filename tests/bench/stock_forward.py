"""What `xl remus` runs instead of ssh: its stream over a plain connection to `stock_backup.py`, and the answers back.

    python3 stock_forward.py ADDRESS PORT

Runs on the primary, standard library only."""

from __future__ import annotations

import os
import socket
import sys
import threading


def answers(connection: socket.socket) -> None:
    """What the other side says, to whoever runs this."""
    while data := connection.recv(1 << 16):
        os.write(1, data)


def main(address: str, port: str) -> None:
    """Until there is no more input."""
    with socket.create_connection((address, int(port))) as connection:
        threading.Thread(target=answers, args=(connection,), daemon=True).start()
        while data := os.read(0, 1 << 18):
            connection.sendall(data)


if __name__ == "__main__":
    main(*sys.argv[1:3])
