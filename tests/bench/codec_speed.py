"""Measures how fast a stream is read, against copying the same bytes once (numpy).

    python tests/bench/codec_speed.py [--gib 1] [--chunk-mib 8]

The stream is synthetic: a PVH guest, PAGE_DATA of 1024 pages each, one checkpoint, in memory. Every rule is applied and
one xxh3_128 runs over all bytes. Ways of reading: `mapped`, views over the whole buffer, as of a mapped file; `chunks`,
views over pieces of --chunk-mib, as read into one large buffer; `feed`, the same pieces with records that own their
bytes; `small`, pieces of 64 KiB as a socket gives them. The best of three runs each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import xxhash
from numpy.typing import NDArray

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import writer
from remus_agent.protocol.stream.reader import StreamReader

RUNS = 3


def synthetic(gib: float) -> NDArray[np.uint8]:
    """A checkpointed stream with `gib` GiB of pages."""
    head = writer.preamble('{"c_info":{"name":"g"}}', (4, 17), bytes(24), bytes(16))
    tail = writer.tsc_info(0, 1, 2, 3) + writer.hvm_context(b"context") + writer.hvm_params([(1, 2)])
    tail += writer.checkpoint() + writer.checkpoint_end()
    records = int(gib * 1024) // 4
    pages = memoryview(np.random.default_rng(1).bytes(4 << 20))
    parts: list[bytes | memoryview] = [head]
    for number in range(records):
        pfns = np.arange(number * 1024, (number + 1) * 1024, dtype=np.uint64)
        parts += [memoryview(part) for group in writer.page_data(pfns, pages) for part in group]
    parts.append(tail)
    out = np.empty(sum(len(part) for part in parts), dtype=np.uint8)
    at = 0
    for part in parts:
        out[at : at + len(part)] = np.frombuffer(part, dtype=np.uint8)
        at += len(part)
    return out


def verified(data: memoryview, chunk: int, *, own: bool) -> str:
    """Read a stream in chunks; returns the digest over all of it."""
    reader = StreamReader()
    digest = xxhash.xxh3_128()
    for at in range(0, len(data), chunk):
        piece = data[at : at + chunk]
        digest.update(piece)
        for _ in reader.feed(piece) if own else reader.views(piece):
            pass
    if reader.checkpoints != 1:
        raise StreamError("the synthetic stream was not read to its checkpoint", offset=reader.offset)
    return digest.hexdigest()


def ways(data: memoryview, chunk: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and runs."""
    yield "mapped", lambda: verified(data, len(data), own=False)
    yield "chunks", lambda: verified(data, chunk, own=False)
    yield "feed", lambda: verified(data, chunk, own=True)
    yield "small", lambda: verified(data, 64 << 10, own=True)


def best(run: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--chunk-mib", type=int, default=8)
    arguments = parser.parse_args()
    stream = synthetic(arguments.gib)
    copy = np.zeros_like(stream)
    size = stream.nbytes / 1e9
    reference = best(lambda: np.copyto(copy, stream))
    print(f"{'memcpy':8} {size / reference:6.2f} GB/s")
    for name, run in ways(stream.data, arguments.chunk_mib << 20):
        took = best(run)
        print(f"{name:8} {size / took:6.2f} GB/s  {reference / took:5.2f} of memcpy")


if __name__ == "__main__":
    main()
