"""Extents onto a device, neighbours in one write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Final

from remus_agent.adapters.disk.block_file import BlockFile
from remus_agent.disk_ports import DiskFacts
from remus_agent.protocol.disk.operations import Extent, Op

WRITERS: Final = 4
"""How many runs are written at the same time."""

_FEW: Final = 16
_LONGEST: Final = (1 << 32) - 1
"""What the length of an extent can say, in bytes."""


def misfit(extents: Sequence[Extent], disk: DiskFacts) -> str | None:
    """What is wrong with the first one that cannot be a change of this disk, or None."""
    for extent in extents:
        if not (0 <= extent.offset < extent.end <= disk.size) or (extent.offset | extent.length) % disk.block:
            return f"{extent.op.name} of {extent.length} bytes at {extent.offset}"
        if extent.length > _LONGEST:
            return f"{extent.op.name} of {extent.length} bytes at once"
        data = memoryview(extent.data).nbytes
        if data != (extent.length if extent.op is Op.WRITE else 0):
            return f"{extent.op.name} of {extent.length} bytes with {data} bytes of data"
    return None


def write_extents(file: BlockFile, extents: Sequence[Extent]) -> float:
    """Apply them in order, as if one after the other. Not durable yet. Returns the seconds of processor time that threads other
    than the caller's took for it. Raises OSError."""
    ordered = _ordered(extents)
    runs = list(_runs(ordered if ordered is not None else extents))
    if ordered is None or len(runs) < _FEW:
        _write(file, runs)
        return 0.0
    # A device takes several at once: one after the other would cost each its whole latency.
    share = -(-len(runs) // WRITERS)
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="disk writer") as writers:
        done = [writers.submit(_written, file, runs[at : at + share]) for at in range(0, len(runs), share)]
    return sum(writer.result() for writer in done)


def _written(file: BlockFile, runs: Sequence[list[Extent]]) -> float:
    """Seconds of processor time."""
    before = time.thread_time()
    _write(file, runs)
    return time.thread_time() - before


def _write(file: BlockFile, runs: Sequence[list[Extent]]) -> None:
    for run in runs:
        first = run[0]
        match first.op:
            case Op.WRITE:
                file.pwrite(first.offset, [extent.data for extent in run])
            case Op.ZERO:
                file.write_zeroes(first.offset, run[-1].end - first.offset)
            case Op.DISCARD:
                file.discard(first.offset, run[-1].end - first.offset)


def _ordered(extents: Sequence[Extent]) -> Sequence[Extent] | None:
    """By offset; None when some overlap, because then a later one wins."""
    ordered = sorted(extents, key=attrgetter("offset"))
    behind = 0
    for extent in ordered:
        if extent.offset < behind:
            return None
        behind = extent.end
    return ordered


def _runs(extents: Sequence[Extent]) -> Iterator[list[Extent]]:
    run: list[Extent] = []
    for extent in extents:
        if run and (extent.op is not run[-1].op or extent.offset != run[-1].end):
            yield run
            run = []
        run.append(extent)
    if run:
        yield run
