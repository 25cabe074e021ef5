"""All populated memory of a guest, mapped once, and copies of chosen frames out of it.

A mapping of a PV dom0 stays on the machine frames of the moment it was made, and holds a reference on each.
Hence a page that the guest gives back is not freed while we map it, and every page it gets in return raises
the domain's `tot_pages`: as long as that number stays what it was when the mapping was made, each mapped
frame is the one the guest uses and no memory is missing (xen/common/page_alloc.c: free_domheap_pages,
domain_adjust_tot_pages; XENMEM_exchange refuses pages with extra references). `checkpoint`s compare it
while the guest is down; a difference ends the source, never a stale copy."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterator
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.adapters.xen.control import DomainControl
from remus_agent.adapters.xen.libs import Libraries, failed
from remus_agent.adapters.xen.structs import PAGE_SIZE, PROT_READ
from remus_agent.errors import HypervisorError

SPECIAL: Final = range(0xFC000, 0xFF000)
"""Where the toolstack puts a PVH guest's few pages below 4 GiB: ACPI tables from the first of these frames on
(ACPI_INFO_PHYSICAL_ADDRESS), special pages up to the last (X86_HVM_END_SPECIAL_REGION)."""
SPECIAL_HVM: Final = range(0xF0000, 0xFF000)
"""The same for an HVM guest: its firmware gives PCI devices, video memory among them, addresses from the first of
these frames on (PCI_MEM_START in tools/firmware/hvmloader)."""
_SCAN: Final = 1 << 13

Pages = NDArray[np.uint8]
"""Page contents, one row of 4096 bytes a page."""


def memory_changed(before: int, now: int, domain: str) -> HypervisorError:
    """For a running guest whose `tot_pages` are not what they were when its memory was first looked at."""
    return HypervisorError(
        f"the guest's memory changed from {before} to {now} pages",
        domain=domain,
        left="the guest runs; this copy of it is unusable",
        hint="keep its memory constant (no xl mem-set); protection starts over with a full copy",
    )


class GuestMemory:
    """The mapping and its index. Frames are numbered densely as `rows` in ascending order of their gfn."""

    def __init__(self, libs: Libraries, domain: DomainControl, special: range = SPECIAL) -> None:
        self._libs, self._domain, self._special = libs, domain, special
        self._handle: int | None = libs.xenforeignmemory_open(None, 0)
        if not self._handle:
            raise failed("xenforeignmemory_open", domain.name)
        self._address: int | None = None
        self._pages: Pages = np.zeros((0, PAGE_SIZE), np.uint8)
        self.frames = 0
        self.tot_pages = 0
        self._starts = self._ends = self._bases = np.zeros(0, np.int64)

    @property
    def total(self) -> int:
        """Number of mapped pages."""
        return len(self._pages)

    def map(self) -> None:
        """Find and map all memory of the running guest. Raises HypervisorError when it changes meanwhile."""
        before = int(self._domain.info().tot_pages)
        self.frames = self._domain.frames()
        gfns = np.concatenate(list(self._find(before)) or [np.zeros(0, np.uint64)])
        gfns.sort()
        count = len(gfns)
        if not count:
            raise HypervisorError("the domain has no memory", domain=self._domain.name)
        errors = np.zeros(count, np.int32)
        address = self._libs.xenforeignmemory_map(
            self._handle, self._domain.domid, PROT_READ, count, gfns.ctypes.data, errors.ctypes.data
        )
        if not address:
            raise failed("xenforeignmemory_map", self._domain.name)
        self._address = address
        mapped = memoryview((ct.c_uint8 * (count * PAGE_SIZE)).from_address(address)).cast("B")
        self._pages = np.frombuffer(mapped, np.uint8).reshape(count, PAGE_SIZE)
        self.tot_pages = before
        self._index(gfns)
        if errors.any() or int(self._domain.info().tot_pages) != before:
            bad = int(np.count_nonzero(errors))
            self.unmap()
            raise HypervisorError(
                f"the guest's memory changed while it was mapped ({bad} frames could not be mapped)",
                domain=self._domain.name,
                left="nothing is mapped",
                hint="keep the guest's memory constant (memory = maxmem, no xl mem-set), then try again",
            )

    def check_unchanged(self, tot_pages: int) -> None:
        """Raises HypervisorError if the guest got memory since it was mapped."""
        if tot_pages != self.tot_pages:
            raise memory_changed(self.tot_pages, tot_pages, self._domain.name)

    def check_in_place(self) -> None:
        """Raises HypervisorError if a run of frames is no longer where it was mapped. A device model can move video
        memory to other frames when the guest moves its PCI address; it moves as a whole and no page is gained."""
        edges = np.concatenate((self._starts, self._ends - 1)).astype(np.uint64)
        if not self._domain.populated(edges).all():
            raise HypervisorError(
                "pages of the guest have moved to other addresses (a PCI device of it got a new one)",
                domain=self._domain.name,
                left="the guest runs; this copy of it is unusable",
                hint="protection starts over with a full copy",
            )

    def rows_of(self, gfns: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The frames among gfns that are mapped, and their rows. The others are Xen's own pages in the
        guest's address space (shared info, grant table), which a restore makes anew."""
        wanted = gfns.astype(np.int64)
        run = np.searchsorted(self._starts, wanted, side="right") - 1
        inside = (run >= 0) & (wanted < self._ends[run])
        run = run[inside]
        return gfns[inside], wanted[inside] + self._bases[run]

    def gfns_of(self, start: int, stop: int) -> NDArray[np.uint64]:
        """The frames of the rows from start to one below stop."""
        rows = np.arange(start, stop, dtype=np.int64)
        run = np.searchsorted(self._starts + self._bases, rows, side="right") - 1
        gfns: NDArray[np.uint64] = (rows - self._bases[run]).astype(np.uint64)
        return gfns

    def gather(self, rows: NDArray[np.int64], out: Pages) -> None:
        """Copy the pages of the rows into out, which has as many rows. One copy; mode clip avoids a second
        one."""
        np.take(self._pages, rows, axis=0, out=out, mode="clip")

    def unmap(self) -> None:
        """Give the guest's pages back (a destroyed domain lingers until then). Safe to call twice."""
        address, self._address = self._address, None
        count, self._pages = len(self._pages), np.zeros((0, PAGE_SIZE), np.uint8)
        if address and self._libs.xenforeignmemory_unmap(self._handle, address, count):
            raise failed("xenforeignmemory_unmap", self._domain.name)

    def close(self) -> None:
        """Safe to call twice."""
        self.unmap()
        handle, self._handle = self._handle, None
        if handle:
            self._libs.xenforeignmemory_close(handle)

    def _find(self, tot_pages: int) -> Iterator[NDArray[np.uint64]]:
        """Populated frames: the special ones below 4 GiB first, then upwards until all pages are accounted
        for."""
        special = range(min(self._special.start, self.frames), min(self._special.stop, self.frames))
        spans = (range(low, min(low + _SCAN, self.frames)) for low in range(0, self.frames, _SCAN))
        found = 0
        for span in chain((special,), spans):
            gfns = np.arange(span.start, span.stop, dtype=np.uint64)
            if span is not special:
                gfns = gfns[(gfns < special.start) | (gfns >= special.stop)]
            gfns = gfns[self._domain.populated(gfns)]
            found += len(gfns)
            yield gfns
            if found >= tot_pages:
                return

    def _index(self, gfns: NDArray[np.uint64]) -> None:
        """Runs of consecutive frames: a few numbers instead of a table as long as the guest's memory."""
        numbers = gfns.astype(np.int64)
        first = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        self._starts = numbers[first]
        self._ends = numbers[np.append(first[1:], len(numbers)) - 1] + 1
        self._bases = first - self._starts
