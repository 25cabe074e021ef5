"""Coverage-guided fuzzing of the NBD codec.

    python tests/fuzz/nbd_requests.py -atheris_runs=1000000         options of libFuzzer follow; inputs that failed stay
                                                                    in ./crash-…
    python tests/fuzz/nbd_requests.py crash-…                       run one input again

What an input says: its first byte picks what a client has sent before (nothing, its flags, a whole handshake), its second how
the rest is cut into chunks, the rest is what it sends. The seeds are written into a temporary folder at each start.

`check` is the property: whatever the bytes, a server turns them into events or raises one NbdError that says what was
expected and what was found; chunks make no difference; every request keeps to the export; nothing beyond the limit is
allocated.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["remus_agent.protocol.nbd"]):
    from remus_agent.protocol.nbd.messages import Disconnect, Event, Export, Flush, Send
    from remus_agent.protocol.nbd.server import NbdServer

import nbd_client as client  # noqa: E402

SMALL = Export("xvda", 1 << 20, 512)
"""Small, so that the fuzzer soon finds its end, and no input makes it spend its time on zeroing memory."""
STARTS = (b"", client.flags(), client.go(), client.flags(0))


def run(data: bytes, size: int) -> tuple[list[Event], NbdServer]:
    """What a server makes of bytes that come in chunks of this size."""
    server = NbdServer(SMALL)
    events = client.receive(server, data, [size])
    if server.failed is None:
        assert 0 < len(server.get_buffer()) <= max(SMALL.size, 16 << 10), "memory for what is refused"
    return events, server


def joined(events: list[Event]) -> tuple[bytes, list[Event]]:
    """What is sent in one, and the requests."""
    return client.sent(events), [event for event in events if not isinstance(event, Send)]


def check(data: bytes) -> None:
    """The property. Raises AssertionError, or whatever escapes the codec."""
    if len(data) < 2:
        return
    raw = STARTS[data[0] % len(STARTS)] + data[2:]
    events, server = run(raw, 1 << 30)
    again, other = run(raw, data[1] or 256)
    assert joined(again) == joined(events), "chunks make a difference"
    assert str(other.failed) == str(server.failed), "chunks make a difference"
    assert server.failed is not None or other.pending == server.pending, "chunks make a difference"
    if server.failed is not None:
        assert server.failed.expected, server.failed
        assert server.failed.found, server.failed
    for event in events:
        if isinstance(event, Disconnect):
            assert event is events[-1]
        elif not isinstance(event, Send | Flush):
            assert 0 < event.length <= SMALL.size - event.offset
            assert event.offset % SMALL.block == event.length % SMALL.block == 0


def seeds() -> Iterator[bytes]:
    """Whole inputs for every start."""
    haggling = [
        client.option(client.LIST),
        client.option(client.STARTTLS),
        client.option(client.STRUCTURED_REPLY),
        client.option(client.INFO, client.about()),
        client.option(client.INFO, client.about("xvdb", (0, 1, 3))),
        client.option(client.SET_META, bytes(12)),
    ]
    requests = [
        client.request(client.READ, 1, 512, 4096),
        client.write(2, 1024, b"w" * 512, client.FUA),
        client.request(client.FLUSH, 3),
        client.request(client.TRIM, 4, 0, SMALL.size),
        client.request(client.WRITE_ZEROES, 5, 0, 512, client.NO_HOLE),
        client.write(6, SMALL.size, b"w" * 512),
        client.request(client.READ, 7, 1, 1),
        client.request(client.CACHE, 8, 0, 512),
    ]
    end = client.request(client.DISC, 0)
    whole = b"".join(requests) + end
    yield b"\0\x05" + client.flags() + b"".join(haggling) + client.option(client.GO, client.about()) + whole
    yield b"\0\x01" + client.flags() + client.option(client.EXPORT_NAME, b"xvda") + whole
    yield b"\0\x03" + client.flags() + client.option(client.ABORT, b"x")
    yield b"\3\x03" + client.option(client.EXPORT_NAME, b"xvda") + end
    for option in haggling:
        yield b"\1\x07" + option
    for request in requests:
        yield b"\2\x0b" + request


def main() -> None:
    """Fuzz with the seeds, or run the inputs that are named."""
    named = any(not argument.startswith("-") for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="nbd-seeds-") as folder:
        arguments = list(sys.argv)
        if not named:
            for number, seed in enumerate(seeds()):
                Path(folder, f"{number:03}").write_bytes(seed)
            arguments += [folder, "-max_len=4096", "-timeout=20"]
        atheris.Setup(arguments, check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
