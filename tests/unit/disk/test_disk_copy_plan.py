"""What is left to copy, against a mask of sectors."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.protocol.disk.copy_plan import CopyPlan

REGION, SECTOR = 64, 4


@given(
    st.integers(1, 200),
    st.integers(0, 2**16 - 1),
    st.lists(st.tuples(st.booleans(), st.integers(0, 199), st.integers(1, 80)), max_size=25),
)
def test_against_a_mask_of_sectors(sectors: int, marked: int, steps: list[tuple[bool, int, int]]) -> None:
    size = sectors * SECTOR
    regions = -(-size // REGION)
    wanted = np.array([bool(marked >> (number % 16) & 1) for number in range(regions)])
    missing = np.repeat(wanted, REGION // SECTOR)[:sectors]  # sectors to be copied
    plan = CopyPlan(size, REGION, SECTOR, wanted)
    assert plan.progress.total == np.count_nonzero(missing) * SECTOR
    handed: list[int] = []
    for written, somewhere, count in steps:
        if written:
            first = somewhere % sectors
            end = min(first + count, sectors)
            plan.overwrite(first * SECTOR, (end - first) * SECTOR)
            missing[first:end] = False
        elif (found := plan.next(count * SECTOR)) is not None:
            offset, length = found
            assert length <= max(count * SECTOR, REGION)
            assert all(
                missing[at // SECTOR : (at + REGION) // SECTOR].any() for at in range(offset, offset + length, REGION)
            )
            numbers = range(offset // REGION, -(-(offset + length) // REGION))
            assert not handed or numbers[0] > handed[-1]
            handed += numbers
            if somewhere % 2:
                plan.settle(numbers[0], numbers[-1] + 1)
                missing[offset // SECTOR : (offset + length) // SECTOR] = False
        else:
            left = [number for number in range(regions) if missing[number * 16 : number * 16 + 16].any()]
            assert set(left) <= set(handed)
        for number in range(regions):
            expected = np.zeros(sectors, dtype=np.bool_)
            for start, end in plan.missing(number):
                expected[start // SECTOR : end // SECTOR] = True
            place = slice(number * 16, number * 16 + 16)
            assert np.array_equal(expected[place], missing[place])
            assert np.count_nonzero(expected) == np.count_nonzero(missing[place])
        open_regions = [number for number in range(regions) if missing[number * 16 : number * 16 + 16].any()]
        assert plan.left == len(open_regions)
        waiting = sum(min(REGION, size - number * REGION) for number in open_regions)
        assert plan.progress.done == plan.progress.total - waiting
