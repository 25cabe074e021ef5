"""Speaks to an agent's replication port what no agent would say. Runs on a host, with the agent's own Python, and over TLS with
the host's own certificate where its agent's configuration has [tls]:

    python3 rogue_peer.py ADDRESS PORT [CONFIG] < case.json

The case is {"hello": {...} or null, "hex": bytes to send after it, "shut": end our side afterwards}. With a HELLO its missing
fields are filled in. Prints {"answer": what came back as text, "closed": whether the agent ended the connection}.
"""

from __future__ import annotations

import json
import sys
import uuid

from peer_socket import CONFIG, PeerSocket, dial

from remus_agent.protocol.replication.frames import FrameDecoder, encode
from remus_agent.protocol.replication.message_frames import encode as frame_of
from remus_agent.protocol.replication.messages import Hello

PATIENCE = 60.0


def main(address: str, port: str, config: str = CONFIG) -> None:
    case = json.load(sys.stdin)
    with dial(address, int(port), PATIENCE, config) as connection:
        if case["hello"] is not None:
            facts = {"session": str(uuid.uuid4()), "uuid": str(uuid.uuid4()), "generation": 1, **case["hello"]}
            connection.send(b"".join(encode(frame_of(Hello(**facts)))))
            first = read_frame(connection)
        else:
            first = b""
        closed = False
        try:
            connection.send(bytes.fromhex(case["hex"]))
            if case["shut"]:
                connection.end()
            while data := connection.receive():
                first += data
            closed = True
        except ConnectionError:
            closed = True
        except TimeoutError:
            pass
    print(json.dumps({"answer": first.decode(errors="replace"), "closed": closed}))


def read_frame(connection: PeerSocket) -> bytes:
    """The payload of the first frame that comes."""
    decoder = FrameDecoder()
    while True:
        data = connection.receive()
        if not data:
            return b""
        for frame in decoder.feed(data):
            return bytes(frame.joined())


if __name__ == "__main__":
    main(*sys.argv[1:4])
