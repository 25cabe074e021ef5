"""Frames are found, indexed and copied; a changed guest is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from fake_xen import DOMID, FRAMES, LOW, NAME, SPECIAL, UUID, XENHEAP, FakeXen
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from remus_agent.adapters.xen.control import Control, DomainControl, set_bits
from remus_agent.adapters.xen.memory import GuestMemory
from remus_agent.errors import GuestEnded, HypervisorError


def mapped(xen: FakeXen) -> GuestMemory:
    libs = xen.libs
    memory = GuestMemory(libs, DomainControl(Control(libs), DOMID, NAME, UUID))
    memory.map()
    return memory


def gfns(*numbers: int) -> NDArray[np.uint64]:
    return np.array(numbers, np.uint64)


def test_all_ordinary_frames_are_mapped_and_indexed() -> None:
    xen = FakeXen()
    memory = mapped(xen)
    assert (memory.total, memory.frames) == (len(xen.gfns), FRAMES)
    assert memory.gfns_of(0, memory.total).tolist() == xen.gfns
    known, rows = memory.rows_of(gfns(0, XENHEAP - 1, XENHEAP, XENHEAP + 1, LOW - 1, LOW, *SPECIAL, FRAMES - 1))
    assert known.tolist() == [0, XENHEAP - 1, XENHEAP + 1, LOW - 1, *SPECIAL, FRAMES - 1]
    assert rows.tolist() == [xen.gfns.index(int(gfn)) for gfn in known]


def test_the_search_ends_when_all_pages_are_found() -> None:
    xen = FakeXen()
    mapped(xen)
    assert xen.count("xc_get_pfn_type_batch") < 30  # all of them take 1020


def test_pages_are_gathered_in_order() -> None:
    xen = FakeXen()
    xen.mapping[:, 1] = np.arange(len(xen.gfns)) % 251
    memory = mapped(xen)
    _, rows = memory.rows_of(gfns(3, 77, SPECIAL[2]))
    out = np.empty((3, 4096), np.uint8)
    memory.gather(rows, out)
    assert out[:, 1].tolist() == [row % 251 for row in rows]


def test_more_memory_is_never_taken_for_the_old() -> None:
    memory = mapped(FakeXen())
    memory.check_unchanged(memory.tot_pages)
    with pytest.raises(HypervisorError, match="memory changed"):
        memory.check_unchanged(memory.tot_pages + 1)


def test_unmapping_is_done_once() -> None:
    xen = FakeXen()
    memory = mapped(xen)
    memory.close()
    memory.close()
    assert (xen.count("xenforeignmemory_unmap"), xen.count("xenforeignmemory_close")) == (1, 1)


def test_another_domain_with_the_same_id_is_not_touched() -> None:
    xen = FakeXen()
    domain = DomainControl(Control(xen.libs), DOMID, NAME, UUID.replace("2", "3"))
    with pytest.raises(GuestEnded, match="gone"):
        domain.info()


@given(st.sets(st.integers(0, 64 * 20 - 1)))
def test_bits_of_a_bitmap(wanted: set[int]) -> None:
    bits = np.zeros(64 * 20, np.uint8)
    bits[list(wanted)] = 1
    assert set_bits(np.packbits(bits, bitorder="little").view(np.uint64)).tolist() == sorted(wanted)
