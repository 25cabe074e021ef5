"""Digests and tables of them, against the slow way."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from remus_agent.protocol.stream_tools import pages

CONTENT = bytes(4096) + bytes(4095) + b"\x01" + b"\x80" + bytes(4095) + bytes(4096)
ENTRIES = st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, (1 << 64) - 1)), max_size=10), max_size=6)


def test_digests_are_those_of_each_page() -> None:
    expected = [xxh3_64_intdigest(CONTENT[at : at + 4096]) for at in range(0, len(CONTENT), 4096)]
    assert pages.page_digests(memoryview(CONTENT)).tolist() == expected
    assert expected[0] == pages.ZERO_PAGE_DIGEST


@given(ENTRIES)
def test_a_table_keeps_the_newest_value(batches: list[list[tuple[int, int]]]) -> None:
    table = pages.PageTable()
    known: dict[int, int] = {}
    for batch in batches:
        table.add(
            np.array([pfn for pfn, _ in batch], dtype=np.uint64),
            np.array([value for _, value in batch], dtype=np.uint64),
        )
        known |= dict(batch)
    pfns, values = table.entries()
    assert dict(zip(pfns.tolist(), values.tolist(), strict=True)) == known
    assert pfns.tolist() == sorted(known)
    runs = pages.ranges(pfns)
    assert [pfn for first, last in runs for pfn in range(first, last + 1)] == sorted(known)
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(runs))


def test_a_table_sorts_in_while_it_grows() -> None:
    table = pages.PageTable()
    for start in range(10):
        pfns = np.arange(start, 200_000 + start, 10, dtype=np.uint64)
        table.add(pfns, pfns)
        table.add(pfns, pfns + np.uint64(1))
    pfns, values = table.entries()
    assert pfns.tolist() == list(range(200_000))
    assert np.array_equal(values, pfns + np.uint64(1))
