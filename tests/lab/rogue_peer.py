"""Speaks to an agent's replication port what no agent would say. Runs on a host, with the agent's own Python:

    python3 rogue_peer.py ADDRESS PORT < case.json

The case is {"hello": {...} or null, "hex": bytes to send after it, "shut": end our side afterwards}. With a HELLO its missing
fields are filled in. Prints {"answer": what came back as text, "closed": whether the agent ended the connection}.
"""

from __future__ import annotations

import json
import socket
import sys
import uuid

from remus_agent.protocol.replication.frames import FrameDecoder, encode
from remus_agent.protocol.replication.messages import Hello
from remus_agent.protocol.replication.messages import encode as frame_of

PATIENCE = 60.0


def main(address: str, port: str) -> None:
    case = json.load(sys.stdin)
    with socket.create_connection((address, int(port)), timeout=PATIENCE) as connection:
        if case["hello"] is not None:
            facts = {"session": str(uuid.uuid4()), "uuid": str(uuid.uuid4()), "generation": 1, **case["hello"]}
            for part in encode(frame_of(Hello(**facts))):
                connection.sendall(part)
            first = read_frame(connection)
        else:
            first = b""
        closed = False
        try:
            connection.sendall(bytes.fromhex(case["hex"]))
            if case["shut"]:
                connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                first += data
            closed = True
        except ConnectionError:
            closed = True
        except TimeoutError:
            pass
    print(json.dumps({"answer": first.decode(errors="replace"), "closed": closed}))


def read_frame(connection: socket.socket) -> bytes:
    """The payload of the first frame that comes."""
    decoder = FrameDecoder()
    while True:
        data = connection.recv(65536)
        if not data:
            return b""
        for frame in decoder.feed(data):
            return bytes(frame.joined())


if __name__ == "__main__":
    main(*sys.argv[1:3])
