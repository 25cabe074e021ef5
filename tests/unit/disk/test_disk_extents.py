"""The map of extents against a plain array of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.protocol.disk.extents import ExtentMap
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.wire import HEADER_BYTES, MAX_LENGTH

BLOCK = 8
BLOCKS = 48

changes = st.lists(st.tuples(st.sampled_from(Op), st.integers(0, BLOCKS - 1), st.integers(1, 20)), max_size=40)


class Model:
    """For each byte the operation that changed it last, and what it wrote."""

    def __init__(self) -> None:
        self.op = np.zeros(BLOCKS * BLOCK, dtype=np.uint8)
        self.data = np.zeros(BLOCKS * BLOCK, dtype=np.uint8)

    def apply(self, extent: Extent) -> None:
        place = slice(extent.offset, extent.end)
        self.op[place] = extent.op
        self.data[place] = np.frombuffer(extent.data, dtype=np.uint8) if extent.op is Op.WRITE else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and np.array_equal(self.op, other.op) and np.array_equal(self.data, other.data)

    __hash__ = None  # type: ignore[assignment]


def extents_of(found: list[tuple[Op, int, int]]) -> list[Extent]:
    rng = np.random.default_rng(7)
    extents = []
    for op, first, count in found:
        length = min(count, BLOCKS - first) * BLOCK
        data = rng.integers(0, 256, length, dtype=np.uint8).tobytes() if op is Op.WRITE else b""
        extents.append(Extent(op, first * BLOCK, length, data))
    return extents


def filled(extents: list[Extent]) -> tuple[ExtentMap, Model]:
    found, model = ExtentMap(), Model()
    for extent in extents:
        found.add(extent)
        model.apply(extent)
        check(found, model)
    return found, model


def check(found: ExtentMap, model: Model) -> None:
    """The map says what the model says, with no extent too many."""
    again = Model()
    behind = 0
    before: Extent | None = None
    for extent in found:
        assert extent.length > 0
        assert extent.offset >= behind, "not disjoint, or not in order"
        if before is not None and before.op is extent.op and extent.op is not Op.WRITE:
            assert before.end < extent.offset, "two runs that could be one"
        behind, before = extent.end, extent
        again.apply(extent)
    assert again == model
    assert found.count == len(list(found))
    written = int(np.count_nonzero(model.op == Op.WRITE))
    assert found.bytes == written + HEADER_BYTES * found.count
    kept = {id(e.data.obj): len(e.data.obj) for e in found if isinstance(e.data, memoryview)}
    whole = sum(len(e.data) for e in found if not isinstance(e.data, memoryview))
    assert sum(kept.values()) + whole <= 2 * written, "buffers of which little is left are kept alive"


@given(changes)
def test_the_last_writer_wins(found: list[tuple[Op, int, int]]) -> None:
    filled(extents_of(found))


@given(changes, st.integers(HEADER_BYTES + BLOCK, 200))
def test_taking_in_pieces_gives_the_same(found: list[tuple[Op, int, int]], limit: int) -> None:
    extents, model = filled(extents_of(found))
    again = Model()
    while taken := extents.take(limit, BLOCK):
        size = sum(HEADER_BYTES + len(extent.data) for extent in taken)
        assert size <= limit
        for extent in taken:
            assert extent.offset % BLOCK == extent.length % BLOCK == 0
            again.apply(extent)
        if extents:
            assert size > limit - HEADER_BYTES - BLOCK, "a piece could have held more"
    assert again == model
    assert (extents.bytes, extents.count) == (0, 0)


@given(changes, changes, st.integers(HEADER_BYTES + BLOCK, 200))
def test_changes_after_a_piece_was_taken(
    first: list[tuple[Op, int, int]], second: list[tuple[Op, int, int]], limit: int
) -> None:
    extents, model = filled(extents_of(first))
    again = Model()
    for extent in extents.take(limit, BLOCK):
        again.apply(extent)
    for extent in extents_of(second):
        extents.add(extent)
        model.apply(extent)
    for extent in extents.pop_all():
        again.apply(extent)
    assert again == model
    assert (extents.bytes, extents.count, list(extents)) == (0, 0, [])


def test_a_thousand_rewrites_of_one_block_are_one_block() -> None:
    found = ExtentMap()
    for number in range(1000):
        found.add(Extent(Op.WRITE, 4096, 4096, bytes([number % 256]) * 4096))
    assert (found.count, found.bytes) == (1, 4096 + HEADER_BYTES)
    assert found.pop_all()[0].data == bytes([999 % 256]) * 4096


def test_a_cut_leaves_views_and_copies_what_is_less_than_half() -> None:
    found = ExtentMap()
    data = bytes(range(100))
    found.add(Extent(Op.WRITE, 0, 100, data))
    found.add(Extent(Op.ZERO, 70, 10))
    left, _, right = found
    assert isinstance(left.data, memoryview)
    assert left.data.obj is data
    assert left.data == data[:70]
    assert right.data == data[80:]
    assert isinstance(right.data, bytes)


def test_a_small_part_of_a_large_buffer_does_not_keep_it_alive() -> None:
    found = ExtentMap()
    large = np.zeros(1000, dtype=np.uint64)
    found.add(Extent(Op.WRITE, 0, 512, memoryview(large).cast("B")[:512]))
    found.add(Extent(Op.WRITE, 8000, 8000, memoryview(large).cast("B")))
    small, whole = found
    assert isinstance(small.data, bytes)
    assert isinstance(whole.data, memoryview)


def test_joined_runs_stay_within_one_header() -> None:
    found = ExtentMap()
    for number in range(3):
        found.add(Extent(Op.DISCARD, number * MAX_LENGTH // 2, MAX_LENGTH // 2))
    assert [extent.length for extent in found] == [MAX_LENGTH, MAX_LENGTH // 2]


def test_a_run_longer_than_a_header_says_is_cut() -> None:
    found = ExtentMap()
    found.add(Extent(Op.DISCARD, 512, 2 * MAX_LENGTH + 512))
    taken = found.take(1 << 20)
    assert [extent.length for extent in taken] == [MAX_LENGTH, MAX_LENGTH, 512]
    assert (taken[0].offset, taken[1].offset, taken[-1].end) == (512, taken[0].end, 2 * MAX_LENGTH + 1024)


def test_a_write_larger_than_a_piece_is_cut_without_copying() -> None:
    found = ExtentMap()
    data = bytes(3 * 4096)
    found.add(Extent(Op.WRITE, 512, len(data), data))
    (first,), (second,) = found.take(9000), found.take(9000)
    assert first.data.obj is data  # type: ignore[union-attr]
    assert (first.length, second.length, first.end, second.end) == (8192, 4096, second.offset, 512 + len(data))


def test_a_limit_without_room_is_refused() -> None:
    found = ExtentMap()
    found.add(Extent(Op.WRITE, 0, 4096, bytes(4096)))
    with pytest.raises(ValueError, match="no room"):
        found.take(4096)
