"""The region map against a set of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.errors import DiskError
from remus_agent.protocol.disk.regions import HEADER_BYTES, RegionMap, map_bytes, region_bytes

MAP_ID = "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60"
REGION = 64 * 1024
KIB, TIB = 1 << 10, 1 << 40


def new(size: int) -> tuple[bytearray, RegionMap]:
    buffer = bytearray(b"\xff" * map_bytes(size))
    return buffer, RegionMap.create(buffer, MAP_ID, size)


@pytest.mark.parametrize(
    ("size", "region"),
    [(512, 64), (1 << 30, 64), (64 << 30, 64), ((64 << 30) + 512, 128), (TIB, 1024), (16 * TIB, 16384)],
)
def test_the_size_of_a_region(size: int, region: int) -> None:
    assert region_bytes(size) == region * KIB
    assert map_bytes(size) <= HEADER_BYTES + (1 << 17)


@given(
    st.integers(1, 40 * REGION),
    st.lists(st.tuples(st.booleans(), st.integers(0, 2**62), st.integers(1, 12 * REGION)), max_size=30),
)
def test_against_a_set(size: int, steps: list[tuple[bool, int, int]]) -> None:
    buffer, regions = new(size)
    model: set[int] = set()
    for set_them, somewhere, most in steps:
        offset = somewhere % size
        length = min(most, size - offset)
        hit = set(range(offset // REGION, (offset + length - 1) // REGION + 1))
        if set_them:
            assert regions.mark(offset, length) == (min(hit), max(hit) + 1)
            model |= hit
        else:
            regions.clear(np.array([*hit, *sorted(hit, reverse=True)]))
            model -= hit
        assert regions.marked.tolist() == sorted(model)
        assert regions.count == len(model)
        again = RegionMap.open(buffer, size)
        assert again.marked.tolist() == sorted(model)
        assert np.flatnonzero(again.flags()).tolist() == sorted(model)
    regions.mark_all()
    assert regions.count == regions.regions == -(-size // REGION)
    assert RegionMap.open(buffer, size).count == regions.regions


def test_the_bytes() -> None:
    buffer, regions = new(20 * REGION)
    regions.mark(9 * REGION, 2 * REGION)
    assert bytes(buffer[:8]) == b"RMUSMAP1"
    assert bytes(buffer[16:32]).hex() == MAP_ID.replace("-", "")
    assert bytes(buffer[HEADER_BYTES:]) == bytes([0, 0b110, 0])


def test_what_an_earlier_process_left() -> None:
    size = 10 * REGION - 512
    buffer, regions = new(size)
    regions.mark(size - 512, 512)
    again = RegionMap.open(memoryview(buffer), size)
    assert (again.map_id, again.size, again.region, again.regions) == (MAP_ID, size, REGION, 10)
    assert again.marked.tolist() == [9]


def test_every_damaged_bit_of_the_header_is_found() -> None:
    buffer, _ = new(20 * REGION)
    for bit in range(HEADER_BYTES * 8):
        damaged = bytearray(buffer)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(DiskError, match="can't be used"):
            RegionMap.open(damaged, 20 * REGION)


@pytest.mark.parametrize(
    ("size", "message"),
    [(20 * REGION - 512, "of a disk of 1310720 bytes"), (40 * REGION, "it has 67 bytes"), (0, "no disk of 0 bytes")],
)
def test_a_map_of_another_disk(size: int, message: str) -> None:
    buffer, _ = new(20 * REGION)
    with pytest.raises(DiskError, match=message):
        RegionMap.open(buffer, size)


def test_a_map_that_was_not_finished_and_one_with_regions_too_many() -> None:
    size = 20 * REGION
    with pytest.raises(DiskError, match="starts with 00"):
        RegionMap.open(bytearray(map_bytes(size)), size)
    buffer, _ = new(size)
    buffer[-1] = 0b10000
    with pytest.raises(DiskError, match="behind the end"):
        RegionMap.open(buffer, size)


def test_clearing_nothing() -> None:
    _, regions = new(20 * REGION)
    regions.clear(np.empty(0, dtype=np.int64))
    assert regions.count == 0
