"""What tests do with a tap, step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_kernel import FakeKernel

from remus_agent.adapters.disk.tap import NbdTap
from remus_agent.disk_ports import DiskData
from remus_agent.protocol.disk import wire
from remus_agent.protocol.disk.operations import Extent, Op

ROOT = Path(__file__).resolve().parents[3]
SIZE = 16 * 64 * 1024
BLOCK = 512
Make = Callable[..., NbdTap]


def block(fill: int, count: int = 1) -> bytes:
    return bytes([fill]) * BLOCK * count


async def begun(kernel: FakeKernel, tap: NbdTap) -> NbdTap:
    """Open, in a session that has nothing to copy."""
    await tap.open()
    kernel.worker._map.clear(kernel.worker._map.marked)
    await tap.begin(same_base=True)
    return tap


def parsed(piece: DiskData) -> list[Extent]:
    return wire.parse(b"".join(piece.payload), size=SIZE, block=BLOCK)


async def epoch(tap: NbdTap, number: int) -> list[Extent]:
    """End an epoch; what it holds."""
    tap.barrier(number)
    extents: list[Extent] = []
    while isinstance(piece := await tap.next(), DiskData):
        assert piece.epoch == number
        extents += parsed(piece)
    assert (piece.epoch, piece.extents) == (number, len(extents))
    return extents


def written(extents: list[Extent]) -> list[tuple[Op, int, int]]:
    return [(extent.op, extent.offset, extent.length) for extent in extents]


def marked(kernel: FakeKernel) -> list[int]:
    return [int(region) for region in kernel.worker._map.marked]
