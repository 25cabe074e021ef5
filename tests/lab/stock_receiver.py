"""Stands in for a backup's agent, with nothing of ours behind it: what a primary sends goes to stock `xl migrate-receive -r`.

    python3 stock_receiver.py ADDRESS PORT [CONFIG] > report.json

Runs on a host, with the agent's own Python, and over TLS with the host's own certificate where its agent's configuration has
[tls]. Serves one session: acknowledges each epoch once all of its bytes are with xl, and ends xl's input when the session ends,
upon which xl activates the last complete checkpoint. Prints one JSON object.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

from peer_socket import CONFIG, PeerSocket, accept

from remus_agent.protocol.replication.digest import EpochDigest
from remus_agent.protocol.replication.frames import Frame, FrameDecoder, FrameType
from remus_agent.protocol.replication.frames import encode as bytes_of
from remus_agent.protocol.replication.message_frames import encode, expect
from remus_agent.protocol.replication.messages import EpochEnd, Hello, MemoryAck, Message, Plain, Welcome

HEARTBEAT = 1.0
PATIENCE = 600.0


def frames(connection: PeerSocket) -> Iterator[Frame]:
    """Every frame of a connection until it ends, however it ends."""
    decoder = FrameDecoder()
    while True:
        try:
            data = connection.receive()
        except ConnectionError:
            return
        if not data:
            return
        yield from decoder.feed(data)


class Session:
    """One session and the xl that takes it in."""

    def __init__(self, connection: PeerSocket, xl: subprocess.Popen[bytes]) -> None:
        self._connection = connection
        self._over = threading.Event()
        self._xl = xl
        self._digest = EpochDigest()
        self.epochs = 0

    def run(self) -> None:
        """Until the primary is gone."""
        heart = threading.Thread(target=self._beat, daemon=True)
        incoming = frames(self._connection)
        hello = expect(next(incoming), Hello)
        self._say(Welcome(host="beta", session=hello.session, free_memory_kib=1 << 20))
        heart.start()
        for frame in incoming:
            if frame.type is FrameType.EPOCH_END:
                self._acknowledge(expect(frame, EpochEnd))
            elif frame.type in (FrameType.PREAMBLE, FrameType.STREAM):
                self._digest.update(frame.payload[0])
                self._pipe.write(frame.payload[0])
        self._over.set()
        heart.join()
        self._pipe.close()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._xl.stdin is not None
        return self._xl.stdin

    def _acknowledge(self, end: EpochEnd) -> None:
        assert (end.stream_bytes, end.digest) == (self._digest.stream_bytes, self._digest.digest())
        self._pipe.flush()
        self._digest = EpochDigest()
        self.epochs = end.epoch
        self._say(MemoryAck(epoch=end.epoch, digest=end.digest))

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            self._say(Plain(FrameType.HEARTBEAT, self.epochs))

    def _say(self, message: Message) -> None:
        try:
            self._connection.send(b"".join(bytes_of(encode(message))))
        except ConnectionError:
            self._over.set()


def main(address: str, port: str, config: str = CONFIG) -> None:
    with socket.create_server((address, int(port))) as server:
        server.settimeout(PATIENCE)
        connection = accept(server, config)
    xl = subprocess.Popen(
        ["xl", "migrate-receive", "-r"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said: list[bytes] = []
    assert xl.stdout is not None
    reader = threading.Thread(target=said.extend, args=(xl.stdout,), daemon=True)
    reader.start()
    with connection:
        session = Session(connection, xl)
        session.run()
    status = xl.wait(PATIENCE)
    reader.join(5)  # the monitor that xl leaves behind may keep the pipe open
    print(json.dumps({"epochs": session.epochs, "status": status, "said": b"".join(said).decode(errors="replace")}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
