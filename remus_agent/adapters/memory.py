"""This process's memory, kept from being written out to a disk that may wait for this process, and given back."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from typing import Final

log = logging.getLogger(__name__)

_CURRENT: Final = 1
_FUTURE: Final = 2
_ONFAULT: Final = 4
_MADV_DONTNEED_LOCKED: Final = 24
"""Since Linux 5.18; MADV_DONTNEED refuses what is locked (madvise(2))."""


def lock() -> None:
    """Keep every page that is used, now or later, in memory (mlockall(2), with MCL_ONFAULT). A guest's write waits for the tap;
    a tap that waits for its own page from a full dom0 would wait for that write. Where it is refused, the log says so."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_CURRENT | _FUTURE | _ONFAULT) != 0:
        log.warning("memory cannot be locked: %s; set LimitMEMLOCK=infinity", os.strerror(ctypes.get_errno()))


def give_back(area: mmap.mmap, start: int, end: int) -> None:
    """Give the memory behind a part of a private anonymous mapping back to the kernel, also where it is locked; the part reads
    as zeros then. start, end: bytes, multiples of the page size. Where it is refused, the log says so, and it is kept."""
    try:
        area.madvise(_MADV_DONTNEED_LOCKED, start, end - start)
    except OSError as error:
        log.warning("%d bytes of memory cannot be given back: %s", end - start, error)
